"""`make bench`: runs every experiment on this machine, into `runs/bench/DATE/`, and ends with a table and plots.

An experiment whose result is there is not run again: the same command goes on where it was stopped.
"""

import argparse
import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from loadtests.asking.machine import describe, has_gpu
from loadtests.asking.model import model_folder
from loadtests.bench import run_subject, say
from loadtests.plan import PACE, Subject, full_plan, llava_model, quick_plan, seven_billion, small_model
from loadtests.report import write_report

RUNS = Path("runs") / "bench"


def subject_of(key: str) -> Subject:
    """Return a model by its key, made first where it is absent."""
    if key == "small":
        return small_model()
    folder = model_folder(RUNS, key)
    # A process of its own: what torch holds of the memory is given back.
    seven = ["--seven-billion"] if key == "llava-7b" else []
    subprocess.run([sys.executable, "-m", "loadtests.asking.model", str(folder), *seven], check=True)
    return seven_billion(folder) if seven else llava_model(folder)


def main(argv: Sequence[str] | None = None) -> None:
    """Run what is asked for."""
    keys = [experiment.key for experiment in full_plan(1)]
    parser = argparse.ArgumentParser(
        prog="python -m loadtests", description="Measure this machine (docs/performance.md)."
    )
    parser.add_argument("--run", type=Path, help="the run's folder; runs/bench/DATE if left out")
    parser.add_argument("--quick", action="store_true", help="a few questions each: shows that everything works")
    parser.add_argument("--model", choices=["small", "llava", "llava-7b"], action="append", help="only this one")
    parser.add_argument("--only", choices=keys, action="append", metavar="EXPERIMENT", help=f"of {', '.join(keys)}")
    arguments = parser.parse_args(argv)
    # Told to end, it ends as it would by itself: no server is left behind.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    folder: Path = arguments.run or RUNS / datetime.now(UTC).date().isoformat()
    folder.mkdir(parents=True, exist_ok=True)
    machine = folder / "machine.json"
    if not machine.exists():
        machine.write_text(json.dumps(describe() | {"quick": arguments.quick}, indent=2) + "\n", encoding="utf-8")
    for key in arguments.model or ["small", "llava-7b" if has_gpu() else "llava"]:
        plan = quick_plan() if arguments.quick else full_plan(PACE.get(key, 1.0))
        run_subject(subject_of(key), plan, arguments.only or keys, folder / key)
    say(f"written: {write_report(folder)}")


if __name__ == "__main__":
    main()
