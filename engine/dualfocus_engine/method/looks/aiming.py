"""From the boxes that say where to look to the look, and the crops that are shown for it."""

from collections.abc import Sequence

from dualfocus_engine.families.boxes import Box, Region
from dualfocus_engine.families.regions import places_of
from dualfocus_engine.method.looks.crops import enlarges, show_crops
from dualfocus_engine.method.questions import Question
from dualfocus_engine.method.results import LookedAt, SecondLook, Selection, Turn
from dualfocus_engine.method.turn_engine import TurnEngine
from dualfocus_engine.pictures.pictures import Picture


def aimed_at(
    engine: TurnEngine, question: Question, boxes: Sequence[Box], grounding: Turn | None, seen: Picture, most: int
) -> tuple[SecondLook, Sequence[Picture]]:
    """Return the look at what boxes mean, and its crops, `most` or fewer of them.

    There are none where nothing would be shown larger than it was `seen`, in the picture or a crop of it.
    """
    if not boxes:
        is_cut = grounding is not None and grounding.is_cut
        return SecondLook(None, None, grounding, failed=Selection.CONTEXT_FULL if is_cut else Selection.NO_BOX), ()
    picture = question.picture
    places = places_of(boxes, picture.size, engine.profile.crop, most)
    if not places:
        return SecondLook(Box.around(boxes), None, grounding, failed=Selection.EMPTY_BOX), ()
    crops = show_crops(engine.views, picture, [place.crop for place in places], question.crop_tokens, seen)
    shown = [(place.box, crop) for place, crop in zip(places, crops, strict=True) if enlarges(crop, seen)]
    box = Box.around(place.box for place in places)
    if not shown:
        return SecondLook(box, None, grounding, failed=Selection.NOTHING_TO_ENLARGE), ()
    looked_at = tuple(LookedAt(box, crop.region) for box, crop in shown if crop.region is not None)
    look = SecondLook(box, Region.around(at.crop for at in looked_at), grounding, regions=looked_at)
    return look, [crop for _, crop in shown]
