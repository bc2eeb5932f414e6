"""The arithmetic: latencies, throughputs, ratios of sides that were asked in turn, and their spread."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Cell = Mapping[str, Any]


@dataclass(frozen=True)
class Spread:
    """The median of the rounds, and the least and the greatest of them."""

    median: float
    least: float
    greatest: float
    rounds: int


def median(values: Sequence[float]) -> float:
    """Return the median. Raises ValueError where there is no value."""
    if not values:
        raise ValueError("no value to take a median of")
    return statistics.median(values)


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value that `share` (0 to 1) of the values do not exceed, between two where it falls between them."""
    ordered = sorted(values)
    if not ordered:
        raise ValueError("no value to take a quantile of")
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def threshold(values: Sequence[float], share: float) -> float | None:
    """Return a number that `share` of the values are under, as nearly as their number allows; None without values."""
    ordered = sorted(values)
    if not ordered:
        return None
    under = round(share * len(ordered))
    if under in (0, len(ordered)):
        return 0.0 if under == 0 else ordered[-1] * 2
    return (ordered[under - 1] + ordered[under]) / 2


def answered(cell: Cell) -> list[Mapping[str, Any]]:
    """Return the records of a cell's questions that were answered."""
    return [record for record in cell["records"] if record["error"] is None]


def latencies(cells: Sequence[Cell]) -> list[float]:
    """Return the seconds of every answered question."""
    return [record["seconds"] for cell in cells for record in answered(cell)]


def latency(cell: Cell) -> float:
    """Return a cell's mean seconds a question: in a round of one question, that question's."""
    return statistics.fmean(latencies([cell]))


def throughput(cell: Cell) -> float:
    """Return questions a second: a cell's answered ones, from the first's beginning to the last's end."""
    records = answered(cell)
    began = min(record["began"] for record in records)
    ended = max(record["began"] + record["seconds"] for record in records)
    return len(records) / float(ended - began)


def of_side(cells: Sequence[Cell], side: str) -> list[Cell]:
    """Return the cells of a side in which anything was answered, in the order of their rounds."""
    asked = [cell for cell in cells if cell["side"] == side and answered(cell)]
    return sorted(asked, key=lambda cell: cell["round"])


def ratios(cells: Sequence[Cell], side: str, against: str, figure: Callable[[Cell], float]) -> Spread:
    """Return a side's figure as a share of another's, round by round. Raises ValueError where no round has both."""
    ours = {cell["round"]: cell for cell in of_side(cells, side)}
    theirs = {cell["round"]: cell for cell in of_side(cells, against)}
    found = [figure(ours[number]) / figure(theirs[number]) for number in ours if number in theirs]
    if not found:
        raise ValueError(f"no round has answers of both {side} and {against}")
    return Spread(statistics.median(found), min(found), max(found), len(found))


def costs(cells: Sequence[Cell], name: str) -> list[float]:
    """Return one of the counts of every answered question that has it."""
    found = [record["cost"].get(name) for cell in cells for record in answered(cell)]
    return [value for value in found if value is not None]


def share_of(cells: Sequence[Cell], outcome: str) -> float:
    """Return the share of answered questions that ended in an outcome."""
    ends = [record["cost"]["outcome"] for cell in cells for record in answered(cell)]
    return ends.count(outcome) / len(ends) if ends else 0.0


def stages(cells: Sequence[Cell]) -> dict[str, list[float]]:
    """Return the seconds of each stage, of every answered question that went through it."""
    found: dict[str, list[float]] = {}
    for cell in cells:
        for record in answered(cell):
            for name, seconds in record["cost"]["stages"].items():
                found.setdefault(name, []).append(seconds)
    return found
