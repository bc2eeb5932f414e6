"""Several boxes as regions to crop: those that overlap or lie close become one."""

from collections.abc import Iterable
from itertools import combinations
from typing import NamedTuple

from dualfocus_engine.families.boxes import Box, CropPolicy, Region, Size, crop_region


class Place(NamedTuple):
    """A box, and the pixels to crop for it."""

    box: Box
    crop: Region


def places_of(boxes: Iterable[Box], size: Size, policy: CropPolicy, most: int) -> list[Place]:
    """Return where to look in an image of `size` for `boxes`: at most `most` places, none where no box holds a pixel.

    Boxes that overlap become one. So do two that lie so close that one crop takes no more pixels than a crop of each:
    it shows both as large, since crops share their image tokens. Of too many, those that lose least by it become one.
    """
    places = [place for box in boxes if (place := _place(box, size, policy)) is not None]
    while len(places) > 1:
        one, other, joined = min(_pairs(places, size, policy), key=_loss)
        if len(places) <= most and _loss((one, other, joined)) > 1:
            break
        places = [joined if place is one else place for place in places if place is not other]
    return places


_Pair = tuple[Place, Place, Place]


def _place(box: Box, size: Size, policy: CropPolicy) -> Place | None:
    crop = crop_region(box, size, policy) if policy.takes(box) else None
    return None if crop is None else Place(box, crop)


def _pairs(places: list[Place], size: Size, policy: CropPolicy) -> Iterable[_Pair]:
    """Yield each two places with the one that holds both."""
    for one, other in combinations(places, 2):
        box = Box.around((one.box, other.box))
        crop = crop_region(box, size, policy)
        assert crop is not None  # it holds those of both
        yield one, other, Place(box, crop)


def _loss(pair: _Pair) -> float:
    """Return how many pixels one crop takes for one that two take together; nothing is lost of what overlaps."""
    one, other, joined = pair
    return 0.0 if one.box.overlaps(other.box) else joined.crop.area / (one.crop.area + other.crop.area)
