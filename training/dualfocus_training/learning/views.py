"""Where to look in a scene: boxes that are off, as a model's own will be, parts of a crop, and what a view shows."""

from collections.abc import Iterable
from random import Random

from dualfocus_engine.families.boxes import Region
from dualfocus_eval.boxes import Box
from dualfocus_eval.scenes.layout import Extent, Print, Scene, print_extent
from dualfocus_eval.scenes.questions import WHOLE, Question

# Heights of a print that the part of a crop to look at is wide and high: room for two digits, and for being off.
_AROUND_PRINT = 3.0
# Pixels of the encoder's input from which print is readable, and under which it is not; between them nothing is said.
_READABLE = {"number": 5.5, "letter": 5.5, "dot": 2.4}
_UNREADABLE = {"number": 4.6, "letter": 4.6, "dot": 1.8}


def jitter(box: Box, rng: Random, spreads: tuple[float, ...] = (0.06, 0.15, 0.3, 1.5)) -> Box:
    """A box moved and resized at random, as a model's own boxes are; still at least 0.03 a side.

    Some miss altogether, so that a model learns to be surprised by its answer where the crop does not show it.
    """
    wide, high = box.x2 - box.x1, box.y2 - box.y1
    spread = rng.choice(spreads)
    x = (box.x1 + box.x2) / 2 + rng.gauss(0, spread) * wide
    y = (box.y1 + box.y2) / 2 + rng.gauss(0, spread) * high
    wide *= 2 ** rng.gauss(0, spread)
    high *= 2 ** rng.gauss(0, spread)
    x1, y1 = (min(0.97, max(0.0, low)) for low in (x - wide / 2, y - high / 2))
    x2, y2 = min(1.0, max(x1 + 0.03, x + wide / 2)), min(1.0, max(y1 + 0.03, y + high / 2))
    return Box(x1, y1, x2, y2)


def widen(box: Box, rng: Random) -> Box:
    """A box up to three times as wide and high that still holds all of this one."""
    factor = 2 ** rng.uniform(0, 1.6)
    wide, high = factor * (box.x2 - box.x1), factor * (box.y2 - box.y1)
    x1 = box.x1 - rng.random() * (wide - (box.x2 - box.x1))
    y1 = box.y1 - rng.random() * (high - (box.y2 - box.y1))
    return Box(max(0.0, x1), max(0.0, y1), min(1.0, x1 + wide), min(1.0, y1 + high))


def deeper_box(scene: Scene, question: Question, region: Region) -> Box:
    """Where to look next inside a crop, as shares of the crop: the print that is asked for, else what is asked about.

    All of the crop where it is about the whole picture, or about what the crop does not show.
    """
    if not question.about:
        return WHOLE
    shapes = [scene.shapes[place] for place in question.about]
    reads = question.kind != "global"
    extents = [_around(shape.print) if reads else shape.extent for shape in shapes]
    lefts, tops, rights, bottoms = zip(*extents, strict=True)
    wide, high = region.right - region.left, region.bottom - region.top
    x1, x2 = (_clipped((x - region.left) / wide) for x in (min(lefts), max(rights)))
    y1, y2 = (_clipped((y - region.top) / high) for y in (min(tops), max(bottoms)))
    return Box(x1, y1, x2, y2) if x1 < x2 and y1 < y2 else WHOLE


def is_enough(scene: Scene, question: Question, views: Iterable[Region], side: int) -> bool | None:
    """Whether a question can be answered from the whole picture and these crops, `side` encoder pixels each.

    None where some print is neither readable nor unreadable: nobody can say.
    """
    if question.kind == "global":
        return True
    views = [Region(0, 0, scene.width, scene.height), *views]
    prints = [scene.shapes[place].print for place in question.about]
    heights = [(mark, max(_height(mark, view, side) for view in views)) for mark in prints]
    if any(height < _UNREADABLE[mark.kind] for mark, height in heights):
        return False
    return True if all(height >= _READABLE[mark.kind] for mark, height in heights) else None


def _height(mark: Print, view: Region, side: int) -> float:
    """How many of the encoder's pixels high a print is in a view; 0 where it is not wholly in it."""
    left, top, right, bottom = print_extent(mark)
    inside = view.left <= left and view.top <= top and right <= view.right and bottom <= view.bottom
    return mark.height * side / max(view.right - view.left, view.bottom - view.top) if inside else 0.0


def _clipped(share: float) -> float:
    return min(1.0, max(0.0, share))


def _around(mark: Print) -> Extent:
    (x, y), reach = mark.centre, _AROUND_PRINT * mark.height / 2
    return x - reach, y - reach, x + reach, y + reach
