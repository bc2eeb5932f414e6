"""Which questions have one possible referent (Section 3.2, ambiguity filtration).

The paper gives the aim, one question for one referent, and not the rules. Ours, in this order:
1. the mapping gives the question a region of its image, and the region holds pixels of the image;
2. the question, or where it names none its answer, names at least one annotated object: what nothing names can't be
   checked;
3. every object so named occurs once in the image. Annotators drew many objects more than
   once; rectangles of one name that mostly coincide are one object;
4. that object lies in the region, at least by its centre: otherwise region and question disagree.
"""

import re
from collections.abc import Iterable, Sequence
from enum import Enum

from dualfocus_training.curation.release import Rectangle, area, clipped
from dualfocus_training.curation.visual_genome import Annotated, Asked, Thing

# Rectangles of one name that overlap by more than this (intersection over union) are one object.
_SAME = 0.5


class Verdict(Enum):
    """Why a question was kept or left out, as the counts name it."""

    KEPT = "kept"
    UNKNOWN_IMAGE = "its image's size is not known"
    NO_REGION = "no region"
    LOST_REGION = "its region is not there"
    OTHER_IMAGE = "its region is of another image"
    EMPTY_REGION = "region outside the image"
    NO_REFERENT = "names no annotated object"
    SEVERAL_REFERENTS = "several objects fit"
    ELSEWHERE = "its object is not in the region"


def judge(image: Annotated, asked: Asked) -> Verdict:
    """Apply the rules to one question."""
    if image.size is None:
        return Verdict.UNKNOWN_IMAGE
    if asked.region is None:
        return Verdict.LOST_REGION if asked.mapped else Verdict.NO_REGION
    if asked.region.image != image.number:
        return Verdict.OTHER_IMAGE
    if not area(clipped(asked.region.place, image.size)):
        return Verdict.EMPTY_REGION
    named = _referents(asked.question, image.things) or _referents(asked.answer, image.things)
    return _judge_referents(named, asked.region.place)


def _judge_referents(named: Sequence[Sequence[Rectangle]], region: Rectangle) -> Verdict:
    if not named:
        return Verdict.NO_REFERENT
    if any(len(group) > 1 for group in named):
        return Verdict.SEVERAL_REFERENTS
    if not any(_holds(region, place) for group in named for place in group):
        return Verdict.ELSEWHERE
    return Verdict.KEPT


def _referents(said: str, things: Sequence[Thing]) -> list[list[Rectangle]]:
    """For each name that occurs in what is said, the distinct places of the objects so called.

    Of names within names ("tennis ball" and "ball") only the longest counts, where it occurs.
    """
    words = _singular_words(said)
    text = f" {' '.join(words)} "
    names = {name for thing in things for name in thing.names}
    groups = []
    for name in sorted(names, key=lambda name: (-len(name), name)):
        wanted = f" {' '.join(_singular_words(name))} "
        if wanted.strip() and wanted in text:
            text = text.replace(wanted, "  ")
            groups.append(_distinct(_called(wanted, things)))
    return groups


def _called(wanted: str, things: Iterable[Thing]) -> list[Rectangle]:
    """Places of all things one of whose names ends in these words: a red car is a car."""
    return [
        thing.place
        for thing in things
        if any(f" {' '.join(_singular_words(name))} ".endswith(wanted) for name in thing.names)
    ]


def _singular_words(text: str) -> list[str]:
    return [_singular(word) for word in re.findall(r"[a-z0-9]+", text.lower())]


def _singular(word: str) -> str:
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-2] if word.endswith(("ches", "shes", "xes", "sses")) else word[:-1]
    return word


_IRREGULAR = {"people": "person", "men": "man", "women": "woman", "children": "child", "feet": "foot"}


def _distinct(places: Iterable[Rectangle]) -> list[Rectangle]:
    kept: list[Rectangle] = []
    for place in places:
        if all(_overlap(place, other) <= _SAME for other in kept):
            kept.append(place)
    return kept


def _overlap(one: Rectangle, other: Rectangle) -> float:
    shared = area((max(one[0], other[0]), max(one[1], other[1]), min(one[2], other[2]), min(one[3], other[3])))
    return shared / max(area(one) + area(other) - shared, 1e-9)


def _holds(region: Rectangle, place: Rectangle) -> bool:
    x, y = (place[0] + place[2]) / 2, (place[1] + place[3]) / 2
    return region[0] <= x <= region[2] and region[1] <= y <= region[3]
