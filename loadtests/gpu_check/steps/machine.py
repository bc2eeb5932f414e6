"""The first step: on what the rest is run."""

import shutil
import subprocess

from loadtests.asking.machine import describe
from loadtests.gpu_check.settings import read_settings

_QUERY = ("name", "driver_version", "memory.total", "memory.used")


def cards() -> list[dict[str, str]]:
    """Return what `nvidia-smi` says of each GPU, memory in MiB; nothing where there is none."""
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", f"--query-gpu={','.join(_QUERY)}", "--format=csv,noheader,nounits"]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
    return [dict(zip(_QUERY, line.split(", "), strict=True)) for line in said]


def main() -> None:
    """Write it down."""
    settings = read_settings()
    settings.journal.write("machine", machine=describe(), cards=cards(), tiny=settings.tiny, eager=settings.eager)


if __name__ == "__main__":
    main()
