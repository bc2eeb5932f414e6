"""Where a search may stop, from labelled questions: by an answer's perplexity, or by the model's word on its view."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate, pairwise
from typing import Any

_MOST_POINTS = 101
_RIGHT = 0.5


@dataclass(frozen=True)
class Look:
    """One look's answer: its perplexity (Eq. 7), whether its view was enough (0 to 1; None: not said), its score."""

    perplexity: float
    enough: float | None
    score: float


@dataclass(frozen=True)
class Point:
    """What a threshold gives: looks a question, and right answers as a share of 1."""

    threshold: float
    looks: float
    accuracy: float


@dataclass(frozen=True)
class Signal:
    """What a search may go by: how sure a look is by it (the higher, the surer), and a profile's threshold of that."""

    sureness: Callable[[Look], float]
    threshold: Callable[[float], float]


SIGNALS = {
    "perplexity": Signal(lambda look: -look.perplexity, lambda sureness: max(-sureness, 0.0)),
    "enough": Signal(
        lambda look: -1.0 if look.enough is None else look.enough, lambda sureness: min(max(sureness, 0.0), 1.0)
    ),
}


def area_under_curve(surenesses: Sequence[float], scores: Sequence[float]) -> float | None:
    """Return how often a right answer is surer than a wrong one, ties half; None where all are right or all wrong."""
    right = [sure for sure, score in zip(surenesses, scores, strict=True) if score >= _RIGHT]
    wrong = [sure for sure, score in zip(surenesses, scores, strict=True) if score < _RIGHT]
    if not right or not wrong:
        return None
    wins = sum((one > other) + 0.5 * (one == other) for one in right for other in wrong)
    return wins / (len(right) * len(wrong))


def curve(asked: Sequence[Sequence[Look]], signal: Signal) -> list[Point]:
    """Return what each of at most 101 thresholds gives, the one that no look reaches first.

    Each question's looks are all that a search took that was never sure. Two are always taken; the answer of least
    perplexity among those that were is the question's.
    """
    told = sorted(filter(math.isfinite, {signal.sureness(look) for looks in asked for look in looks}), reverse=True)
    between = [(high + low) / 2 for high, low in pairwise(told)]
    steps = [math.inf, *between[:: len(between) // _MOST_POINTS + 1], min(told, default=0.0) - 1.0]
    return [_point(asked, signal, step) for step in steps]


def _point(asked: Sequence[Sequence[Look]], signal: Signal, step: float) -> Point:
    taken = [looks[: _stop(looks, signal, step)] for looks in asked]
    right = math.fsum(min(looks, key=lambda look: look.perplexity).score for looks in taken)
    return Point(signal.threshold(step), sum(map(len, taken)) / len(asked), right / len(asked))


def _stop(looks: Sequence[Look], signal: Signal, step: float) -> int:
    """Return how many looks are taken where one is sure from `step` on."""
    surest = accumulate((signal.sureness(look) for look in looks), max)
    return next((count for count, sure in enumerate(surest, 1) if count > 1 and sure >= step), len(looks))


def pick(points: Sequence[Point], loss: float) -> Point:
    """Return the point of fewest looks that loses at most `loss` of accuracy (a share of 1)."""
    full = points[0].accuracy
    return min((point for point in points if full - point.accuracy <= loss + 1e-9), key=lambda point: point.looks)


def search_figures(asked: Sequence[Sequence[Look]], loss: float) -> dict[str, Any]:
    """Return both signals' figures as a JSON object, and the numbers that a profile is to have."""
    first = [looks[0] for looks in asked]
    signals = {}
    for name, signal in SIGNALS.items():
        points = curve(asked, signal)
        signals[name] = {
            "area_under_curve": area_under_curve(
                [signal.sureness(look) for look in first], [look.score for look in first]
            ),
            "full": asdict(points[0]),
            "picked": asdict(pick(points, loss)),
            "curve": [asdict(point) for point in points],
        }
    return {"questions": len(asked), "loss": loss, "signals": signals, "profile": _profile(signals)}


def _profile(signals: dict[str, Any]) -> dict[str, Any]:
    """Return a profile's numbers: by the model's word where that takes fewer looks for the accuracy that is allowed."""
    perplexity, enough = (signals[name]["picked"] for name in SIGNALS)
    numbers: dict[str, Any] = {"sure_below_perplexity": perplexity["threshold"]}
    if enough["looks"] < perplexity["looks"]:
        numbers["enough"] = {"above": enough["threshold"]}
    return numbers
