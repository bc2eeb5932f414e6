"""`make gpu-check`: what only a GPU can show, in minutes, into `runs/gpu-check/DATE/`."""

import os
import signal
import sys

from loadtests.gpu_check.report import write_report
from loadtests.gpu_check.runner import run_steps
from loadtests.gpu_check.settings import read_settings


def main() -> None:
    """Run every step that there is time for, and report."""
    settings = read_settings()
    if settings.journal.lines():
        sys.exit(f"{settings.journal.path} is another run's: give --out a new folder")
    # Its answers are greedy: FlashInfer's sampler, which is compiled for a minute or more at a start, would draw none.
    os.environ.setdefault("VLLM_USE_FLASHINFER_SAMPLER", "0")
    # Told to end, it ends the step that runs and reports what it has.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        run_steps(settings)
    finally:
        print(write_report(settings.folder).read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
