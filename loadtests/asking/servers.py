"""The servers that are compared, each started when an experiment needs it and stopped when the next one does not."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
from dualfocus_engine.machine.platform import engine_defaults, prepare_environment

_READY_WITHIN = 600.0
_STOPPED_WITHIN = 30.0
# `vllm serve` without its command line, which looks for a package named vllm: the CPU build has another name.
_VLLM = ("vllm.entrypoints.openai.api_server", "--enable-prompt-tokens-details")

# What keeps each of them from a cache. Without prefix caching vLLM still keeps pictures by their content, processed and
# encoded; where it does not even know their content, it keeps nothing.
_CACHES = {
    "vllm": (),
    "vllm-uncached": ("--no-enable-prefix-caching",),
    "vllm-bare": ("--no-enable-prefix-caching", "--mm-processor-cache-gb", "0"),
}


class NotStarted(RuntimeError):
    """A server that did not become ready; its log says why."""


@dataclass
class Running:
    """A server's process and where it answers."""

    url: str
    process: subprocess.Popen[bytes]


def command(kind: str, model: str, name: str, flags: Sequence[str], port: int) -> list[str]:
    """Return the command line of a server of a kind: plain, drafted, vllm, vllm-uncached, vllm-bare, loop."""
    where = ["--host", "127.0.0.1", "--port", str(port)]
    named = ["--served-model-name", name]
    if kind == "loop":
        return [sys.executable, "-m", "loadtests.asking.loop", model, "--port", str(port)]
    if kind.startswith("vllm"):
        return [sys.executable, "-m", *_VLLM, "--model", model, *where, *named, *engine_flags(), *flags, *_CACHES[kind]]
    drafted = ["--draft-boxes"] if kind == "drafted" else []
    # By its module: packages that were carried to a machine have no program beside its Python.
    program = [sys.executable, "-m", "dualfocus_client.cli"]
    return [*program, "serve", model, *where, *named, "--timeout", "0", *flags, *drafted]


def engine_flags() -> list[str]:
    """Return as `vllm serve`'s flags what this server sets for the machine, so that both have the same engine."""
    flags = []
    for name, value in engine_defaults().items():
        if name == "enable_prefix_caching":  # vLLM's own default, where it is not the thing compared
            continue
        option = f"--{'' if value is not False else 'no-'}{name.replace('_', '-')}"
        flags += [option] if isinstance(value, bool) else [option, str(value)]
    return flags


class Servers:
    """Servers of one model, by kind; at most those of one experiment are alive."""

    def __init__(
        self, model: str, name: str, flags: Mapping[str, Sequence[str]], logs: Path, *, threads: int = 1
    ) -> None:
        self._model, self._name, self._flags, self._logs, self._threads = model, name, dict(flags), logs, threads
        self._running: dict[str, Running] = {}

    def set_flags(self, kind: str, flags: Sequence[str]) -> None:
        """Say what the next server of a kind is started with besides what all are."""
        self._flags[kind] = flags

    def need(self, kinds: Sequence[str]) -> None:
        """Stop servers of other kinds and start the missing ones. Raises NotStarted."""
        for kind in [kind for kind, server in self._running.items() if kind not in kinds or not _answers(server)]:
            self.stop(kind)
        for kind in kinds:
            if kind not in self._running:
                self._running[kind] = self._start(kind)

    @property
    def urls(self) -> dict[str, str]:
        """The addresses of the servers that run, by kind."""
        return {kind: server.url for kind, server in self._running.items()}

    @property
    def processes(self) -> dict[str, int]:
        """The ids of the servers' processes, by kind; each leads a session of its own."""
        return {kind: server.process.pid for kind, server in self._running.items()}

    def stop(self, kind: str) -> None:
        """End a server and every process of its own."""
        process = self._running.pop(kind).process
        end(process)

    def stop_all(self) -> None:
        """End every server."""
        for kind in list(self._running):
            self.stop(kind)

    def _start(self, kind: str) -> Running:
        port = free_port()
        flags = [*self._flags.get("all", ()), *self._flags.get(kind, ())]
        line = command(kind, self._model, self._name, flags, port)
        log = self._logs / f"{kind}.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                line, stdout=output, stderr=subprocess.STDOUT, env=environment(self._threads), start_new_session=True
            )
        server = Running(f"http://127.0.0.1:{port}", process)
        until = time.monotonic() + _READY_WITHIN
        while not _answers(server):
            if process.poll() is not None or time.monotonic() > until:
                end(process)
                raise NotStarted(f"{kind} did not start; {log} says why")
            time.sleep(0.2)
        return server


def environment(threads: int = 1) -> dict[str, str]:
    """Return what a process runs under: this server's settings for the machine, and so many threads for its model."""
    prepare_environment()
    return os.environ | {"OMP_NUM_THREADS": str(threads)}


def end(process: "subprocess.Popen[bytes]") -> None:
    """Ask a process to end; whatever is left of its session after a while is killed."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(_STOPPED_WITHIN)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(server: Running) -> bool:
    if server.process.poll() is not None:
        return False
    try:
        return httpx.get(f"{server.url}/health", timeout=30.0).is_success
    except httpx.HTTPError:
        return False
