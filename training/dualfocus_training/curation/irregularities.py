"""What is irregular in Visual Genome's files, by the name that the counts give it."""

import re
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum

from dualfocus_training.curation.release import IMAGES, MAPPING, OBJECTS, QUESTIONS, REGIONS, Rectangle, area, clipped

Size = tuple[int, int]


class Odd(StrEnum):
    """Each irregularity; the ones of regions and objects are counted over the whole file."""

    NO_QUESTIONS = "images without questions"
    EXCLUDED = "images left out by --exclude"
    FILE_MISSING = "image files missing"
    FILE_DAMAGED = "image files that can't be read"
    FILE_TURNED = "image files that their EXIF turns"
    QUESTIONS_UNKNOWN = f"images of {QUESTIONS} not in {IMAGES}"
    QUESTIONS_LACK = f"images of {IMAGES} not in {QUESTIONS}"
    OBJECTS_UNKNOWN = f"images of {OBJECTS} not in {IMAGES}"
    OBJECTS_LACK = f"images of {IMAGES} not in {OBJECTS}"
    REGIONS_UNKNOWN = f"images of {REGIONS} not in {IMAGES}"
    REGIONS_LACK = f"images of {IMAGES} not in {REGIONS}"
    NEGATIVE = "regions with a negative coordinate"
    PAST_EDGE = "regions past the right or lower edge"
    NO_AREA = "regions without width or height"
    OUTSIDE = "regions wholly outside their image"
    TWICE = "regions in the place of another"
    SAME_WORDS = "regions in nearly the words of another"
    OBJECT_CLIPPED = "objects clipped to their image"
    OBJECT_DROPPED = "objects without area in their image, left out"
    ORPHANS = f"questions of {MAPPING} not in {QUESTIONS}"
    SEVERAL = f"regions of {MAPPING} with several questions"
    FULL_STOP = "answers whose full stop was taken off"


def odd_regions(regions: Iterable[tuple[Rectangle, str]], size: Size | None) -> Iterator[Odd]:
    """What is irregular in the regions (places and phrases) of one image; without its `size`, what can be told."""
    places, phrases = set(), set()
    for place, phrase in regions:
        words = _words(phrase)
        if place in places:
            yield Odd.TWICE
        if words in phrases:
            yield Odd.SAME_WORDS
        places.add(place)
        phrases.add(words)
        yield from _odd_place(place, size)


def _odd_place(place: Rectangle, size: Size | None) -> Iterator[Odd]:
    left, top, right, bottom = place
    if min(left, top) < 0:
        yield Odd.NEGATIVE
    if not area(place):
        yield Odd.NO_AREA
    if size and (right > size[0] or bottom > size[1]):
        yield Odd.PAST_EDGE
    if size and area(place) and not area(clipped(place, size)):
        yield Odd.OUTSIDE


def _words(phrase: str) -> tuple[str, ...]:
    """A phrase without case, punctuation and articles."""
    return tuple(word for word in re.findall(r"\w+", phrase.lower()) if word not in ("a", "an", "the"))


def report(counted: Mapping[str, int]) -> dict[str, int]:
    """All of them in their order, those that did not occur too."""
    return {odd.value: counted.get(odd, 0) for odd in Odd}
