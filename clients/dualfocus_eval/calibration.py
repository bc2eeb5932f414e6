"""The threshold of adaptive mode, from labelled questions: how many second looks it saves, and what that costs."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import fsum, inf
from typing import Any


@dataclass(frozen=True)
class Labelled:
    """A question asked of both looks: macro's perplexity (Eq. 7), scores from 0 to 1, seconds of macro and of all.

    The perplexity is infinite of an answer that is never let stand alone.
    """

    perplexity: float
    macro_score: float
    chosen_score: float
    macro_seconds: float
    seconds: float


@dataclass(frozen=True)
class Point:
    """What a threshold gives: shares of 1, and seconds a question."""

    threshold: float
    skipped: float
    accuracy: float
    seconds: float


def curve(asked: Sequence[Labelled]) -> list[Point]:
    """Return a point for each threshold that makes a difference: none skipped, then the surest answer, and so on."""
    ranked = sorted(asked, key=lambda one: one.perplexity)
    count = len(ranked)
    right = accumulate((one.macro_score - one.chosen_score for one in ranked), initial=_right(ranked))
    seconds = accumulate((one.macro_seconds - one.seconds for one in ranked), initial=fsum(o.seconds for o in ranked))
    return [
        Point(threshold, skipped / count, hits / count, time / count)
        for skipped, (threshold, hits, time) in enumerate(zip(_thresholds(ranked), right, seconds, strict=True))
        if threshold is not None
    ]


def _right(asked: Sequence[Labelled]) -> float:
    return sum(one.chosen_score for one in asked)


def _thresholds(ranked: Sequence[Labelled]) -> list[float | None]:
    """Return what skips the first 0, 1, … of them; None where the next is as sure as the last, or none ever is."""
    steps = [one.perplexity for one in ranked]
    return [0.0, *(_between(low, high) for low, high in pairwise([*steps, inf]))]


def _between(low: float, high: float) -> float | None:
    if low == high:
        return None
    return low + 1.0 if high == inf else (low + high) / 2


def pick(points: Sequence[Point], loss: float) -> Point:
    """Return the point that skips most of those that lose at most `loss` of accuracy (a share of 1)."""
    full = points[0].accuracy
    return max((point for point in points if full - point.accuracy <= loss + 1e-9), key=lambda point: point.skipped)


def figures(asked: Sequence[Labelled], loss: float) -> dict[str, Any]:
    """Return the choice and the curve as a JSON object, at most 101 points of it."""
    points = curve(asked)
    every = max(1, len(points) // 100)
    return {
        "questions": len(asked),
        "loss": loss,
        "full": vars(points[0]),
        "picked": vars(pick(points, loss)),
        "curve": [vars(point) for point in points[::every]],
    }
