"""In which convention a model writes its boxes: found by comparing what it wrote with where things are."""

import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal, NamedTuple

from dualfocus_engine.families.box_format import BoxFormat
from dualfocus_engine.families.boxes import Box, Size
from dualfocus_engine.families.patterns import all_groups

# What a number counts: so many steps of the whole width or height, or pixels of the picture as shown, or as sent.
Unit = float | Literal["shown", "sent"]

_UNITS: tuple[Unit, ...] = (1.0, 1000.0, 100.0, 1024.0, "shown", "sent")
# A convention fits from this mean overlap on; of those that are as good the one that is least of a change is meant.
FITS = 0.5
_AS_GOOD = 0.05
# Shares under this say too little about what a number counts.
_LEAST_SHARE = 0.05
_BRACKETS = ("[]", "()", "{}", "<>")


class Numbers(NamedTuple):
    """A box as it is written, in the order that the profile takes it to be in; a point has its two numbers twice."""

    x1: float
    y1: float
    x2: float
    y2: float


@dataclass(frozen=True)
class Sighting:
    """Where a thing is, and what was written when the model was asked for it.

    `sent` and `shown` are the picture's size in pixels: its own, and the one that the encoder is shown.
    """

    truth: Box
    text: str
    sent: Size
    shown: Size


@dataclass(frozen=True)
class Convention:
    """A way to write boxes: axes swapped or not, what a number counts, of the picture itself or padded to a square."""

    swapped: bool
    unit: Unit
    padded: bool

    def box(self, numbers: Numbers, seen: Sighting) -> Box:
        """Return the box that is meant by numbers."""
        x1, y1, x2, y2 = numbers
        if self.swapped:
            x1, y1, x2, y2 = y1, x1, y2, x2
        width, height = self._units(seen)
        box = Box(x1 / width, y1 / height, x2 / width, y2 / height)
        return _unpadded(box, seen.sent) if self.padded else box

    def changes(self, unit: Unit) -> int:
        """Return in how much it differs from a profile that reads numbers of `unit`."""
        return self.swapped + self.padded + (self.unit != unit)

    def _units(self, seen: Sighting) -> tuple[float, float]:
        if isinstance(self.unit, str):
            return seen.shown if self.unit == "shown" else seen.sent
        return self.unit, self.unit


class Fit(NamedTuple):
    """The convention that fits what a model wrote, and its mean overlap with where things are."""

    convention: Convention
    overlap: float


def unit_of(box_format: BoxFormat) -> Unit:
    """Return what a profile takes a number to count."""
    return "shown" if box_format.scale == "pixels" else box_format.scale


def find_convention(sightings: Sequence[Sighting], box_format: BoxFormat) -> Fit | None:
    """Return the convention that fits best; None where none fits, or most texts hold no numbers."""
    found = [(numbers, seen) for seen in sightings if (numbers := _numbers(seen.text, box_format))]
    if 2 * len(found) <= len(sightings):
        return None
    unit = unit_of(box_format)
    fits = [Fit(convention, _mean_overlap(convention, found)) for convention in _conventions(found, unit)]
    best = max(fit.overlap for fit in fits)
    as_good = [fit for fit in fits if fit.overlap >= max(best - _AS_GOOD, FITS)]
    return min(as_good, key=lambda fit: fit.convention.changes(unit), default=None)


def overlap(box: Box, truth: Box) -> float:
    """Return the intersection over union of two boxes; of a point whether it lies in the truth."""
    if (box.x1, box.y1) == (box.x2, box.y2):
        return float(truth.x1 <= box.x1 <= truth.x2 and truth.y1 <= box.y1 <= truth.y2)
    wide = min(box.x2, truth.x2) - max(box.x1, truth.x1)
    high = min(box.y2, truth.y2) - max(box.y1, truth.y1)
    common = max(wide, 0.0) * max(high, 0.0)
    return common / (_area(box) + _area(truth) - common)


def pattern_for(text: str) -> str | None:
    """Return a pattern that reads the numbers in a text, as a profile may have it; None where it holds none."""
    for name, pattern in _any_numbers("xyxy").items():
        if found := re.search(pattern, text):
            around = text[: found.start()].rstrip()[-1:] + text[found.end() :].lstrip()[:1]
            if around not in _BRACKETS:
                return name
            return rf"{re.escape(around[0])}\s{{0,9}}{name}\s{{0,9}}{re.escape(around[1])}"
    return None


def _any_numbers(order: Literal["xyxy", "yxyx"]) -> Mapping[str, str]:
    """Return patterns of any four or two numbers, by what stands for them in a profile."""
    box = BoxFormat(order=order, pattern="{corners}", template="{y1} {x1} {y2} {x2}" if order == "yxyx" else _TEMPLATE)
    return {"{corners}": box.pattern[0], "{point}": BoxFormat(pattern="{point}", template="{x} {y}").pattern[0]}


_TEMPLATE = "{x1} {y1} {x2} {y2}"


def _numbers(text: str, box_format: BoxFormat) -> Numbers | None:
    """Return the first numbers that the profile's patterns find in a text, else any."""
    text = box_format.said(text)
    for pattern in (*box_format.pattern, *_any_numbers(box_format.order).values()):
        for found in all_groups(pattern, text):
            names = ("x1", "y1", "x2", "y2") if "x1" in found else ("x", "y", "x", "y")
            return Numbers(*(float(found[name]) for name in names))
    return None


def _conventions(found: Sequence[tuple[Numbers, Sighting]], own: Unit) -> Iterator[Convention]:
    for swapped, padded in product((False, True), (False, True)):
        for unit in (own, *_UNITS, _fitted_unit(found, swapped, padded)):
            yield Convention(swapped, unit, padded)


def _fitted_unit(found: Sequence[tuple[Numbers, Sighting]], swapped: bool, padded: bool) -> float:
    """Return what stands for the whole width or height, judged by the numbers themselves; infinite where nothing is."""
    ratios = []
    for numbers, seen in found:
        truth = _padded(seen.truth, seen.sent) if padded else seen.truth
        shares = Box(truth.y1, truth.x1, truth.y2, truth.x2) if swapped else truth
        ratios += [n / share for n, share in zip(numbers, shares.as_tuple(), strict=True) if share > _LEAST_SHARE]
    unit = statistics.median(ratios)
    return (round(unit) if unit > 10 else round(unit, 2)) or float("inf")


def _mean_overlap(convention: Convention, found: Sequence[tuple[Numbers, Sighting]]) -> float:
    return statistics.fmean(overlap(convention.box(numbers, seen), seen.truth) for numbers, seen in found)


def _padded(box: Box, size: Size) -> Box:
    """Return a box of a picture as one of the picture padded to a square around its centre."""
    side = max(size)
    x, y = ((side - length) / 2 for length in size)
    width, height = size
    return Box(
        (box.x1 * width + x) / side,
        (box.y1 * height + y) / side,
        (box.x2 * width + x) / side,
        (box.y2 * height + y) / side,
    )


def _unpadded(box: Box, size: Size) -> Box:
    side = max(size)
    x, y = ((side - length) / 2 for length in size)
    width, height = size
    return Box(
        (box.x1 * side - x) / width,
        (box.y1 * side - y) / height,
        (box.x2 * side - x) / width,
        (box.y2 * side - y) / height,
    )


def _area(box: Box) -> float:
    return max(box.x2 - box.x1, 0.0) * max(box.y2 - box.y1, 0.0)
