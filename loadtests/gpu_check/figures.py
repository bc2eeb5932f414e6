"""What a run's files say: each figure with its spread, beside the goal that is set for an H100 or H200."""

import json
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from loadtests.gpu_check.journal import Journal
from loadtests.gpu_check.plan import CALLS, DRAFTED_ONE, FEW, MANY, MOST, ONE
from loadtests.plan import DRAFTED, DUAL, MACRO
from loadtests.results.figures import Cell, Spread, latency, of_side, ratios, throughput

_NAMES = {"macro": "macro", "dual": "two looks", "calls": "the client's three calls", "drafted": "boxes drafted"}
_PLACES = (("seven", ONE), ("seven", FEW), ("seven", MANY), ("seven", MOST), ("drafted", DRAFTED_ONE))
_RATIOS = (
    ("seven", ONE, DUAL, MACRO, latency, 1.5),
    ("seven", ONE, DUAL, CALLS, latency, 0.8),
    ("seven", MANY, DUAL, CALLS, throughput, 1.2),
    ("seven", FEW, DUAL, MACRO, throughput, None),
    ("seven", MANY, DUAL, MACRO, throughput, None),
    ("seven", MOST, DUAL, MACRO, throughput, None),
    ("drafted", DRAFTED_ONE, DRAFTED, MACRO, latency, None),
)
# Questions a second, and seconds until the 7B shape is ready.
_THROUGHPUT, _START_S = 20.0, 90.0


@dataclass(frozen=True)
class Figure:
    """A figure with its spread; `goal` is what it may not exceed, or where more is better, not fall below."""

    what: str
    spread: Spread
    goal: float | None = None
    is_ceiling: bool = True

    @property
    def is_reached(self) -> bool | None:
        """Whether the median keeps the goal; None where there is none."""
        if self.goal is None:
            return None
        return self.spread.median <= self.goal if self.is_ceiling else self.spread.median >= self.goal


def figures_of(folder: Path) -> list[Figure]:
    """Return all that a run measured, also what it was stopped in."""
    journal, cells = Journal(folder), {place: _cells(folder, *place) for place in _PLACES}
    starts = [_spread(journal.values("seven", "start_s"))]
    found = [Figure("7B's shape: seconds to ready", one, _START_S) for one in starts if one]
    for step, key, side, against, figure, goal in _RATIOS:
        found += _ratio(cells[step, key], key, side.name, against.name, figure, goal)
    for place in _PLACES:
        found += _absolute(cells[place], place[1])
    return [*found, *_large_picture(journal)]


def _cells(folder: Path, step: str, key: str) -> list[Cell]:
    """Return an experiment's cells; of one that was stopped, those of its whole rounds."""
    done, begun = folder / step / f"{key}.json", folder / step / f"{key}.part"
    found = json.loads(done.read_text(encoding="utf-8")) if done.exists() else {}
    if "cells" not in found and begun.exists():
        found = {"cells": json.loads(begun.read_text(encoding="utf-8"))}
    cells: list[Cell] = found.get("cells", [])
    return cells


def _ratio(
    cells: list[Cell], key: str, side: str, against: str, figure: Callable[[Cell], float], goal: float | None
) -> Iterator[Figure]:
    try:
        spread = ratios(cells, side, against, figure)
    except ValueError:
        return
    kind = "latency" if figure is latency else "throughput"
    yield Figure(f"{key}: {kind}, {_NAMES[side]} : {_NAMES[against]}", spread, goal, figure is latency)


def _absolute(cells: list[Cell], key: str) -> Iterator[Figure]:
    """Yield a side's seconds where one question is asked at a time, else its questions a second."""
    for side in dict.fromkeys(cell["side"] for cell in cells):
        asked = of_side(cells, side)
        is_alone = all(cell["users"] == 1 for cell in asked)
        spread = _spread([latency(cell) if is_alone else throughput(cell) for cell in asked])
        goal = _THROUGHPUT if (key, side) == (MANY, "dual") else None
        unit = "seconds" if is_alone else "questions a second"
        if spread is not None:
            yield Figure(f"{key}: {unit}, {_NAMES[side]}", spread, goal, is_alone)


def _large_picture(journal: Journal) -> Iterator[Figure]:
    """Yield both ways' seconds in rounds in which both were asked, and their ratio."""
    told = {(line["looks"], line["round"]): line["cost"]["seconds"] for line in journal.lines(step="large", looks=None)}
    rounds = [number for looks, number in told if looks == 1 and (2, number) in told]
    one, two = ([told[looks, number] for number in rounds] for looks in (1, 2))
    shares = [ours / theirs for ours, theirs in zip(two, one, strict=True)]
    for what, values, goal in (
        ("seconds, one look at its own size", one, None),
        ("seconds, two looks of 1,024 tokens", two, None),
        ("latency, two looks of 1,024 tokens : one look", shares, 0.3),
    ):
        if (spread := _spread(values)) is not None:
            yield Figure(f"4000 x 3000: {what}", spread, goal)


def _spread(values: list[float]) -> Spread | None:
    return Spread(statistics.median(values), min(values), max(values), len(values)) if values else None
