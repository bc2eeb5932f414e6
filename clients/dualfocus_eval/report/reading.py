"""Runs that were written before: their scores, and what a threshold is calibrated by."""

from pathlib import Path

from dualfocus_eval.asking.header import read_header
from dualfocus_eval.asking.passes import FIRST
from dualfocus_eval.asking.records import RunError, read_records
from dualfocus_eval.benchmarks import BENCHMARKS
from dualfocus_eval.calibration import Labelled
from dualfocus_eval.report.outcomes import Judged
from dualfocus_eval.report.writing import judge_all
from dualfocus_eval.samples import Benchmark
from dualfocus_eval.scenes.benchmark import scenes


def read_run(folder: Path) -> tuple[Benchmark, list[Judged]]:
    """Return a run's benchmark and its answers, scored anew. Raises RunError."""
    name = read_header(folder)["asked"]["benchmark"]
    benchmark = BENCHMARKS.get(name) or (scenes(0, 0) if name == "scenes" else None)
    if benchmark is None:
        raise RunError(f"{folder}: is a run of {name!r}, which is no benchmark here")
    return benchmark, judge_all(benchmark, read_records(folder))


def read_labelled(folder: Path) -> list[Labelled]:
    """Return the questions of a run that both looks answered, for calibration. Raises RunError."""
    if (mode := read_header(folder)["asked"]["mode"]) != "dual":
        raise RunError(f"{folder}: is a run of --mode {mode}: one of --mode dual is expected")
    _, judged = read_run(folder)
    seconds = {record["id"]: record.get("seconds") for record in read_records(folder) if record["variant"] == FIRST}
    labelled = [
        Labelled(one.outcome.macro.doubt, one.macro.score, one.chosen.score, times["macro"], times["all"])
        for one in judged
        if (times := seconds[one.outcome.sample.id]) and None not in times.values()
    ]
    if not labelled:
        raise RunError(f"{folder}: no answer in it has perplexity and seconds: a run of --mode dual is expected")
    return labelled
