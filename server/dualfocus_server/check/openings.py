"""Whether boxes are better where their text is begun for the model: by an opening, the profile's or a possible one."""

import json
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from string import Formatter

from dualfocus_engine import Box
from dualfocus_engine.families.box_format import BoxFormat

from dualfocus_server.check.asking import Answered, Locate
from dualfocus_server.check.conventions import FITS, overlap

# One way is better than the other from this difference of mean overlaps on: six boxes tell no finer.
_BETTER = 0.05


@dataclass(frozen=True)
class Opening:
    """A box format's opening, and the mean IoU with it and without; what can't be read overlaps nothing.

    `used` says whether the profile has it; else it is what the profile's template would be opened with. None is the
    mean IoU of a way that was not asked: a running server has one profile.
    """

    opening: str
    stop: str | None
    closing: str
    used: bool
    iou_with: float | None
    iou_without: float | None

    @property
    def better(self) -> bool | None:
        """Whether boxes are better with it; None where there is nothing to choose, or nothing to tell it by."""
        if self.iou_with is None or self.iou_without is None or abs(self.iou_with - self.iou_without) < _BETTER:
            return None
        return self.iou_with > self.iou_without

    def advice(self) -> Iterator[str]:
        """Yield the line of the profile to change, where the other way is better and points well."""
        if self.better in (None, self.used) or max(self.iou_with or 0, self.iou_without or 0) < FITS:
            return
        ious = f"a mean IoU of {self.iou_with:.2f} with, {self.iou_without:.2f} without"
        if self.used:
            yield f"Boxes are better without box_format.opening ({ious}): leave it, stop and closing out."
        else:
            lines = ", ".join(f"{name}: {json.dumps(getattr(self, name))}" for name in ("opening", "stop", "closing"))
            yield f"Boxes are better where they are opened ({ious}): box_format: {{{lines}}}"


async def compare_openings(own: BoxFormat, answered: Sequence[Answered], locate: Locate | None) -> Opening | None:
    """Ask anew where the things are, with an opening if a profile's format has none and else without, and compare.

    None where the format's template can't be opened. Raises DualFocusError.
    """
    other = _without_opening(own) if own.opening else with_opening(own)
    if other is None:
        return None
    there = [(one, one.drawn.box) for one in answered if one.drawn.box is not None]
    as_it_is = _mean_overlap([(one.reply.box and Box(*one.reply.box), truth) for one, truth in there])
    otherwise = None
    if locate is not None:
        otherwise = _mean_overlap([(await locate(one.drawn, other), truth) for one, truth in there])
    opened, ious = (own, (as_it_is, otherwise)) if own.opening else (other, (otherwise, as_it_is))
    return Opening(opened.opening, opened.stop, opened.closing, bool(own.opening), *ious)


def with_opening(box_format: BoxFormat) -> BoxFormat | None:
    """Return a format whose one box is opened, stopped and closed as its template says; None where it can't be.

    It is stopped by the fewest characters behind the last number that stand between no others.
    """
    before, *between, behind = _around_numbers(box_format.template)
    stops = (behind[:length] for length in range(1, len(behind) + 1))
    stop = next((stop for stop in stops if not any(stop in text for text in between)), None)
    if not before or stop is None:
        return None
    return box_format.model_copy(update={"opening": before, "stop": stop, "closing": behind, "grammar": None})


def _without_opening(box_format: BoxFormat) -> BoxFormat:
    # A grammar is of what follows the opening.
    return box_format.model_copy(update={"opening": "", "stop": None, "closing": "", "grammar": None})


def _around_numbers(template: str) -> list[str]:
    """Return the text of a template before its first number, between its numbers and behind its last."""
    texts = [""]
    for text, number, _, _ in Formatter().parse(template):
        texts[-1] += text
        if number is not None:
            texts.append("")
    return texts


def _mean_overlap(boxes: Sequence[tuple[Box | None, Box]]) -> float:
    return statistics.fmean(overlap(box, truth) if box else 0.0 for box, truth in boxes)
