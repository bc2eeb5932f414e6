"""From a run's records to its figures and its files."""

import json
from collections.abc import Collection, Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dualfocus_eval.asking.header import Header
from dualfocus_eval.asking.passes import FIRST
from dualfocus_eval.asking.records import Record, RunError
from dualfocus_eval.report.document import report
from dualfocus_eval.report.figures import costs, figures
from dualfocus_eval.report.outcomes import Judged, Outcome, judge, outcomes_of
from dualfocus_eval.report.plots import draw_plots
from dualfocus_eval.samples import Benchmark


def judge_all(benchmark: Benchmark, records: Iterable[Record]) -> list[Judged]:
    """Score all answers of a run. Raises RunError where there is none."""
    outcomes = outcomes_of(records)
    if not outcomes:
        raise RunError("no question of the run has an answer")
    variants = _variants(outcomes)
    return [judge(benchmark, one, variants) for one in outcomes]


def _variants(outcomes: Sequence[Outcome]) -> list[str]:
    """Return how questions were asked again, smaller shifts first; only what all that had a box were asked."""
    boxed = [one for one in outcomes if one.box and one.box.area]
    asked = {name for one in boxed for name in one.varied}
    whole = [name for name in asked if all(name in one.varied for one in boxed)]
    return sorted(whole, key=lambda name: (len(name), name))


def figures_of(
    benchmark: Benchmark, judged: Sequence[Judged], records: Sequence[Record], variants: Collection[str]
) -> dict[str, Any]:
    """Return all figures of a run, with what failed, of `variants` when asked again, and what a question costs."""
    failed = [record["variant"] for record in records if "error" in record]
    again = sum(variant in variants for variant in failed)
    return {"failed": failed.count(FIRST), "failed_again": again, "costs": costs(records), **figures(benchmark, judged)}


def write(folder: Path, header: Header, found: dict[str, Any], judged: Sequence[Judged]) -> None:
    """Write `report.md`, `figures.json` and, where matplotlib is installed, the plots."""
    has_plots = find_spec("matplotlib") is not None
    if has_plots:
        draw_plots([one.outcome for one in judged], found, folder)
    (folder / "report.md").write_text(report(header, found, has_plots), encoding="utf-8")
    everything = json.dumps({"run": header, **found}, indent=2)
    (folder / "figures.json").write_text(everything + "\n", encoding="utf-8")
