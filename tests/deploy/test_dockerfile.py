"""The Dockerfile, without building it."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from dualfocus_server.settings import Settings

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "Dockerfile"
TEXT = DOCKERFILE.read_text().replace("\\\n", " ")
STAGES = dict(re.findall(r"^FROM \S+ AS (\S+)\n(.*?)(?=^FROM |\Z)", TEXT, re.MULTILINE | re.DOTALL))
HADOLINT = Path(sys.executable).parent / "hadolint"


def test_hadolint_has_nothing_to_say() -> None:
    done = subprocess.run([HADOLINT, DOCKERFILE], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_base_is_pinned_and_the_only_one_from_outside() -> None:
    sources = re.findall(r"^FROM (\S+) ", TEXT, re.MULTILINE)
    outside = [source for source in sources if source not in STAGES]
    assert len(outside) == 1
    assert re.fullmatch(r"docker\.io/library/python:3\.11\.\d+-slim-bookworm", outside[0])


def test_the_gpu_image_is_the_default_and_the_cpu_image_needs_nothing_of_it() -> None:
    assert list(STAGES)[-1] == "gpu"
    assert not [name for name in list(STAGES)[: list(STAGES).index("cpu")] if "gpu" in name]


def test_sources_change_without_installing_again() -> None:
    for machine in ("cpu", "gpu"):
        before = STAGES["dependencies"] + STAGES[f"dependencies-{machine}"]
        assert re.findall(r"^COPY (.+)$", before, re.MULTILINE) == [
            "pyproject.toml ./",
            "scripts/install.py scripts/",
        ]
        assert f"install.py {machine}\n" in before


def test_both_images_end_as_the_user_who_is_not_root() -> None:
    for name in ("cpu", "gpu"):
        users = re.findall(r"^USER (.+)$", STAGES["runtime"] + STAGES[name], re.MULTILINE)
        assert users[-1] == "10001:10001"


def test_what_is_written_lies_in_a_volume() -> None:
    volumes = json.loads(re.findall(r"^VOLUME (.+)$", STAGES["runtime"], re.MULTILINE)[0])
    environment = dict(re.findall(r"([A-Z_]+)=(\S+)", STAGES["runtime"].partition("RUN")[0]))
    for name in ("HOME", "HF_HOME", "VLLM_CACHE_ROOT", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
        assert environment[name].startswith(f"{volumes[0]}"), name
    assert "/tmp" in volumes


def test_the_health_check_asks_what_the_server_answers(
    paths: set[str], accepted: Callable[[list[str]], Settings]
) -> None:
    entry = json.loads(re.findall(r"^ENTRYPOINT (.+)$", TEXT, re.MULTILINE)[0])
    assert entry[:2] == ["dualfocus", "serve"]
    accepted([*entry[2:], "/models/mine", "--metrics-open"])
    *_, script, port = json.loads(re.findall(r"^HEALTHCHECK .* CMD (.+)$", TEXT, re.MULTILINE)[0])
    assert port == entry[entry.index("--port") + 1]
    asked = re.findall(r":\{port\}(/\w+)", (ROOT / Path(script).relative_to("/opt/dualfocus")).read_text())
    assert set(asked) == {"/health"} <= paths


def test_what_is_copied_is_let_in_and_nothing_else() -> None:
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        source for line in re.findall(r"^COPY (?!--from)(.+)$", TEXT, re.MULTILINE) for source in line.split()[:-1]
    }
    assert copied == let_in
    assert all((ROOT / source).exists() for source in copied)
