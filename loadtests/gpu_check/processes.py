"""A process that has so many seconds, and is ended with every process that it started, those of its children too."""

import ctypes
import subprocess
from collections.abc import Sequence
from contextlib import suppress

import psutil

_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER
# How often what is left is killed, and how many seconds it has each time: a GPU's memory is given back first.
_TRIES, _ENDED_WITHIN = 3, 10.0


def run_within(command: Sequence[str], seconds: float) -> str:
    """Run a command and say how it ended: `done`, `failed: status N`, `stopped after N s`; nothing of it is left."""
    # What a server leaves behind as it dies becomes a child of this process: it is found, whatever its session.
    ctypes.CDLL(None).prctl(_SUBREAPER, 1)
    before = _children()
    process = subprocess.Popen(command)
    try:
        status = process.wait(seconds)
    except subprocess.TimeoutExpired:
        return f"stopped after {seconds:.0f} s"
    finally:
        _kill(before)
    return "done" if status == 0 else f"failed: status {status}"


def _children() -> set[psutil.Process]:
    return set(psutil.Process().children(recursive=True))


def _kill(but: set[psutil.Process]) -> None:
    """Kill this process's descendants, but those; again, where one has started another meanwhile."""
    for _ in range(_TRIES):
        if not (left := _children() - but):
            return
        for child in left:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        psutil.wait_procs(left, _ENDED_WITHIN)
