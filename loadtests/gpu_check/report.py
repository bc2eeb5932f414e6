"""Writes a run's report: `report.md`, a table in the form of docs/performance.md, and the same as `report.json`."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from loadtests.gpu_check.figures import Figure, figures_of
from loadtests.gpu_check.journal import Journal
from loadtests.gpu_check.runner import STEPS
from loadtests.results.tables import number, table

_HOW = {
    "tiny": "**tiny shapes in the place of 7B, two at once at the most: only that it runs is shown**",
    "eager": "without CUDA graphs and compilation",
}
_REPORT = """Measured by `make gpu-check` on {machine}.
Medians, in brackets the least, the greatest and the number of rounds; sides of a ratio were asked in turn.

{figures}

### Steps

{steps}

### Proven

{proven}
"""


def write_report(folder: Path) -> Path:
    """Write what a run has so far into its folder; returns the table's path."""
    journal, found = Journal(folder), figures_of(folder)
    told = {"lines": journal.lines(), "figures": [asdict(one) | {"is_reached": one.is_reached} for one in found]}
    (folder / "report.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    path = folder / "report.md"
    path.write_text(_text(journal, found), encoding="utf-8")
    return path


def _text(journal: Journal, found: Sequence[Figure]) -> str:
    figures = table(("what", "goal", "measured", ""), map(_row, found)) if found else "Nothing was measured."
    steps = table(("step", "how it ended", "seconds"), [_step(journal, step.key) for step in STEPS])
    proven = "\n".join([*_proven(journal), *_memory(journal)]) or "Nothing was tried."
    return _REPORT.format(machine=_machine(journal), figures=figures, steps=steps, proven=proven)


def _row(figure: Figure) -> tuple[str, str, str, str]:
    spread, goal = figure.spread, figure.goal
    bound = "" if goal is None else f"{'≤' if figure.is_ceiling else '≥'} {goal:g}"
    measured = f"{number(spread.median)} ({number(spread.least)}-{number(spread.greatest)}, {spread.rounds})"
    verdict = {None: "", True: "reached", False: "**not reached**"}[figure.is_reached]
    return figure.what, bound, measured, verdict


def _step(journal: Journal, key: str) -> tuple[str, str, str]:
    """Return a step's row: done, failed, stopped, skipped and why; or that it was not come to."""
    for line in journal.lines(step=key):
        if "ended" in line:
            return key, line["ended"], f"{line['seconds']:.0f}"
        if "skipped" in line:
            return key, f"skipped: {line['skipped']}", ""
    return key, "not run to its end", ""


def _proven(journal: Journal) -> list[str]:
    tried: list[dict[str, Any]] = journal.lines(step="small", outcome=None)
    passed = [line for line in tried if line["outcome"] == "passed"]
    failed = [line.get("test", "README's question") for line in tried if line["outcome"] == "failed"]
    lines = [f"- the model that ships: {len(passed)} of {len(tried)} passed"] if tried else []
    return [*lines, *(f"- **failed**: {name}" for name in failed)]


def _memory(journal: Journal) -> list[str]:
    """Say what a GPU held in each step at its peak, beside the share of it that vLLM was given."""
    lines = []
    for step in ("seven", "drafted"):
        for peak in journal.values(step, "memory")[-1:]:
            beside = peak["peak_mib"] - peak["share"] * peak["total_mib"]
            lines.append(f"- {step}: {peak['peak_mib']:,} MiB at its peak, {beside:,.0f} beside vLLM's share")
    return lines


def _machine(journal: Journal) -> str:
    found = journal.values("machine", "machine")
    if not found:
        return "a machine that was not looked at"
    told, cards = found[0], journal.values("machine", "cards")[0]
    card = ", ".join(f"{one['name']}, driver {one['driver_version']}" for one in cards) or told["processor"]
    versions = ", ".join(f"{name} {version}" for name, version in told["versions"].items())
    said = [text for key, text in _HOW.items() if journal.values("machine", key)[0]]
    return "; ".join(
        [f"{card}, {told['date'][:10]}", f"Python {told['python']}, {versions}, commit {told['commit']}", *said]
    )
