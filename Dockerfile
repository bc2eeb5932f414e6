# DualFocus in a container: `docker build .` makes the GPU image, `docker build --target cpu .` the one without a GPU.
#
# Where packages come from somewhere else than the package index, pip's configuration is given as a secret:
# `--secret id=pip,src=$HOME/.config/pip/pip.conf`. docs/deploy.md has the rest.

FROM docker.io/library/python:3.11.13-slim-bookworm AS base
# vLLM is linked against libnuma. Debian keeps one version of a package: a pinned one would soon be gone.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libnuma1 \
    && rm -rf /var/lib/apt/lists/*

# What both targets need when they run. Nothing is written outside of the two volumes, so the root may be read-only.
FROM base AS runtime
ENV PATH=/opt/dualfocus/.venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HOME=/var/cache/dualfocus \
    XDG_CACHE_HOME=/var/cache/dualfocus \
    XDG_CONFIG_HOME=/var/cache/dualfocus/config \
    HF_HOME=/var/cache/dualfocus/huggingface \
    VLLM_CACHE_ROOT=/var/cache/dualfocus/vllm \
    VLLM_CONFIG_ROOT=/var/cache/dualfocus/config/vllm \
    TORCHINDUCTOR_CACHE_DIR=/var/cache/dualfocus/inductor \
    TRITON_CACHE_DIR=/var/cache/dualfocus/triton
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /var/cache/dualfocus dualfocus \
    && install --directory --owner dualfocus --group dualfocus /var/cache/dualfocus
VOLUME ["/var/cache/dualfocus", "/tmp"]
EXPOSE 8000
# The model is loaded before the server listens: until then a failure does not count.
HEALTHCHECK --interval=10s --timeout=5s --retries=3 --start-period=30m \
    CMD ["python3", "-I", "-S", "/opt/dualfocus/deploy/health.py", "8000"]
ENTRYPOINT ["dualfocus", "serve", "--host", "0.0.0.0", "--port", "8000"]
USER 10001:10001

# Dependencies, before there is any source: they are installed again only where these two files change. The project goes
# in as links to its folders, which the stage below fills; what pyproject.toml names besides is left empty.
FROM base AS dependencies
WORKDIR /opt/dualfocus
COPY pyproject.toml ./
COPY scripts/install.py scripts/
RUN touch README.md LICENSE && mkdir -p clients/playground

# With byte-code, taken as it is: nothing can be written beside the sources later, and copies may get other times.
FROM base AS sources
WORKDIR /opt/dualfocus
COPY LICENSE README.md ./
COPY engine engine
COPY server server
COPY clients clients
COPY training training
COPY deploy/health.py deploy/
RUN python3 -m compileall -q --invalidation-mode unchecked-hash engine server clients training

FROM dependencies AS dependencies-cpu
RUN --mount=type=cache,target=/root/.cache --mount=type=secret,id=pip,target=/etc/pip.conf \
    python3 scripts/install.py cpu

FROM runtime AS cpu
COPY --from=dependencies-cpu /opt/dualfocus/.venv /opt/dualfocus/.venv
COPY --from=sources /opt/dualfocus /opt/dualfocus

FROM dependencies AS dependencies-gpu
RUN --mount=type=cache,target=/root/.cache --mount=type=secret,id=pip,target=/etc/pip.conf \
    python3 scripts/install.py gpu

# CUDA comes with torch's packages and the driver from the host's container toolkit, which refuses one that is older
# than CUDA 13 needs; Triton compiles with gcc, torch what Triton does not with g++.
FROM runtime AS gpu
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_REQUIRE_CUDA="cuda>=13.0" \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 0:0
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ libc6-dev \
    && rm -rf /var/lib/apt/lists/*
USER 10001:10001
COPY --from=dependencies-gpu /opt/dualfocus/.venv /opt/dualfocus/.venv
COPY --from=sources /opt/dualfocus /opt/dualfocus
