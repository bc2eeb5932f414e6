"""What each thread of a process has computed, by the kernel's count, and what it is there for, by its Python name."""

import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

# By how a thread's name begins; the pictures' threads are ours, the unnamed ones vLLM's renderer and tokenizer.
_PURPOSES = {"picture": "pictures", "MainThread": "event loop", "ThreadPoolExecutor": "vLLM's threads"}
_OTHER = "all other threads"
_THREAD = re.compile(r'^Thread (\d+) \([^)]*\): "([^"]*)"', re.MULTILINE)
_NS = 1e-9


def cpu_by_thread(process: int) -> dict[str, float]:
    """Return the seconds of CPU that each thread has taken, by the thread's id."""
    tasks = Path(f"/proc/{process}/task").iterdir()
    return {task.name: _NS * int((task / "schedstat").read_text(encoding="utf-8").split()[0]) for task in tasks}


def thread_names(process: int) -> dict[str, str]:
    """Return the Python names of a process's threads, by the thread's id."""
    line = [str(Path(sys.executable).with_name("py-spy")), "dump", "--nonblocking", "--pid", str(process)]
    return dict(_THREAD.findall(subprocess.run(line, check=True, capture_output=True, text=True).stdout))


def by_purpose(
    before: Mapping[str, float], after: Mapping[str, float], names: Mapping[str, str]
) -> Mapping[str, float]:
    """Return what threads have taken in between, by what they are there for."""
    taken: dict[str, float] = defaultdict(float)
    for thread, seconds in after.items():
        taken[_purpose(names.get(thread, ""))] += seconds - before.get(thread, 0.0)
    return taken


def _purpose(name: str) -> str:
    return next((purpose for begins, purpose in _PURPOSES.items() if name.startswith(begins)), _OTHER)
