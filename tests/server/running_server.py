"""Starts `dualfocus serve` the way a user does."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import linear_regression
from types import MappingProxyType

from dualfocus_training.models.untrained import UNTRAINED_NAME, ensure_untrained

# Seconds that something may take which is sure to come: reached only where it does not.
READY_WITHIN = 600.0
PATIENCE = 300.0
# Where time is not what is tested, a busy machine may take as much of it as it likes.
UNHURRIED = ("--timeout", "3600", "--engine-timeout", "3600")
# A quarter of what a server takes: several stand beside each other, and beside what else the machine does.
SMALL_CACHE = ("--kv-cache-memory-bytes", str(512 << 20))
# Bytes a request that still count as level: an image that is kept takes megabytes.
_LEVEL = 128 << 10
# Readings of memory that are judged together, and how many are taken until it has to be level.
_READINGS, _MOST_READINGS = 3, 20
_READY = re.compile(r"DualFocus is ready on (\S+)\. ")


@dataclass(frozen=True)
class Server:
    """A running `dualfocus serve`."""

    url: str
    log: Path
    process: subprocess.Popen[bytes]
    seconds_to_ready: float


UNTRAINED = (str(ensure_untrained()), "--served-model-name", UNTRAINED_NAME)


def start_server(
    log: Path,
    *flags: str,
    model: tuple[str, ...] = UNTRAINED,
    on_path: Path | None = None,
    environment: Mapping[str, str] = MappingProxyType({}),
) -> Server:
    """Start `dualfocus serve` on a port that the system chooses and wait for its ready line.

    `model` is what names it, nothing for the one that ships; `on_path` is a folder that goes before all others on its
    Python path; `environment` goes before the tests' own. It hurries nobody, unless flags say so.
    """
    started = time.monotonic()
    process = launch(log, *flags, model=model, on_path=on_path, environment=environment)
    while (ready := _READY.search(log.read_text(errors="replace"))) is None:
        if process.poll() is not None or time.monotonic() - started > READY_WITHIN:
            process.kill()
            raise AssertionError(f"the server did not start:\n{log.read_text()}")
        time.sleep(0.1)
    return Server(ready[1], log, process, time.monotonic() - started)


def launch(
    log: Path,
    *flags: str,
    model: tuple[str, ...] = UNTRAINED,
    on_path: Path | None = None,
    environment: Mapping[str, str] = MappingProxyType({}),
) -> subprocess.Popen[bytes]:
    """Start `dualfocus serve` as `start_server` does, and wait for nothing."""
    command = [
        str(Path(sys.executable).parent / "dualfocus"),
        "serve",
        *model,
        "--host",
        "127.0.0.1",
        "--port",
        "0",
        *UNHURRIED,
        *SMALL_CACHE,
    ]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("VLLM_")} | environment
    if on_path is not None:
        environment["PYTHONPATH"] = os.pathsep.join([str(on_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    with log.open("wb") as output:
        return subprocess.Popen(
            [*command, *flags], stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )


def wait_until_all_ended(process: int) -> None:
    """Wait until no process runs that this server began.

    One that has ended and that nobody has collected yet counts as ended: a container's first process may collect none.
    """
    running = ["pgrep", "--runstates", "R,S,D", "-s", str(process)]

    def are_none() -> bool:
        found = subprocess.run(running, capture_output=True, check=False)
        assert found.returncode in (0, 1), found.stderr  # 1: there are none
        return not found.stdout

    wait_until(are_none)


def engine_process(server: Server) -> int:
    """The id of the process in which the server's engine runs."""
    listed = subprocess.run(
        ["pgrep", "-s", str(server.process.pid), "-f", "EngineCore"], capture_output=True, check=True
    )
    return int(listed.stdout.split()[0])


def resident(server: Server) -> int:
    """The resident memory of a server's process and its engine's, in bytes."""
    return sum(_resident(process) for process in (server.process.pid, engine_process(server)))


def _resident(process: int) -> int:
    status = Path(f"/proc/{process}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) * 1024


def settles(server: Server, ask: Callable[[], int]) -> None:
    """Ask until the server's memory no longer grows with what is asked; fails where it goes on growing.

    `ask` asks something and returns how many requests that were. One reading says little: memory is given back late,
    and caches fill. What counts is the slope of several, in bytes a request.
    """
    asked, held = [0], [resident(server)]
    for _ in range(_MOST_READINGS):
        asked.append(asked[-1] + ask())
        held.append(resident(server))
        late = slice(-_READINGS, None)
        if len(held) >= _READINGS and linear_regression(asked[late], held[late]).slope <= _LEVEL:
            return
    raise AssertionError(f"it goes on growing: {held} bytes after {asked} requests")


@contextmanager
def frozen_engine(server: Server) -> Iterator[None]:
    """Hold the engine: no question that is sent meanwhile ends."""
    engine = engine_process(server)
    os.kill(engine, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(engine, signal.SIGCONT)


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for something that is sure to come true."""
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until, "it did not come true"
        time.sleep(0.05)
