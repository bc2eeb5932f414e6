"""What a grounding turn says: its boxes, and the tokens of its answer that the micro turn continues."""

from collections.abc import Sequence

from dualfocus_engine.families.boxes import Box, Region, Size
from dualfocus_engine.families.profiles import Profile
from dualfocus_engine.method.prompts import Prompt
from dualfocus_engine.method.questions import Question
from dualfocus_engine.method.results import Mode, Turn
from dualfocus_engine.method.turn_engine import TurnEngine
from dualfocus_engine.pictures.fitting import size_within_aspect
from dualfocus_engine.pictures.pictures import Picture


def most_regions(engine: TurnEngine, question: Question) -> int:
    """Return how many crops may be shown: as the profile says, and what the engine takes beside the pictures."""
    profile = engine.profile
    if question.mode is not Mode.REGIONS or not profile.box_format.lists:
        return 1
    beside = 0 if profile.crop_alone else len(question.pictures)
    return min(profile.max_regions, engine.max_images - beside)


def reply_of(engine: TurnEngine, prompt: Prompt, grounding: Turn) -> tuple[str, Sequence[int]]:
    """Return a grounding turn's answer: its text, with what the prompt has written of it, and its tokens."""
    box_format = engine.profile.box_format
    is_closed = box_format.stop is not None and grounding.stop_reason == box_format.stop
    written = grounding.text + (box_format.closing if is_closed else "")
    tokens = engine.encode(written) if is_closed else grounding.token_ids
    return _begun(engine, prompt) + box_format.opening + written, tokens


def _begun(engine: TurnEngine, prompt: Prompt) -> str:
    """Return what opens thoughts where the chat template has written it already: the reply only closes them."""
    mark = engine.profile.box_format.opens_thoughts
    if not mark:
        return ""
    ends = (tuple(engine.encode(mark + line_end)) for line_end in ("", "\n"))
    return mark if any(prompt.token_ids[-len(end) :] == end for end in ends) else ""


def past_thoughts(engine: TurnEngine, prompt: Prompt) -> Prompt:
    """Return a prompt in which thoughts that its chat template has opened are over, so that what follows is said."""
    if not _begun(engine, prompt):
        return prompt
    return prompt.opened(engine.encode(f"\n{engine.profile.box_format.read_after}\n\n"))


def read_boxes(profile: Profile, question: Question, written: str, seen: Picture) -> Sequence[Box]:
    """Read the boxes that the model wrote when it had seen a picture, or a crop of it."""
    box_format, picture = profile.box_format, question.picture
    of = seen if box_format.after_crop == "crop" else picture
    if question.mode is Mode.REGIONS:
        boxes = box_format.read_all(written, _shown_size(of))
    else:
        box = box_format.read(written, _shown_size(of))
        boxes = [] if box is None else [box]
    region = _region_shown(profile, of)
    if region is None:
        return boxes
    # What is shown beside a strip is none of the picture.
    pixels = of.region or Region(0, 0, *picture.size)
    return [box.within(region, picture.size).clipped(pixels, picture.size) for box in boxes]


def box_reply(engine: TurnEngine, picture: Picture, box: Box) -> Sequence[int]:
    """Return the tokens that the model would have answered with for a box that it did not write itself."""
    box_format, region = engine.profile.box_format, _region_shown(engine.profile, picture)
    seen = box if region is None else box.of(region, picture.size)
    written = box_format.write(seen, _shown_size(picture))
    return engine.encode(written.removeprefix(box_format.opening))


def _region_shown(profile: Profile, picture: Picture) -> Region | None:
    """Return the pixels that a picture's boxes are shares of, counted in the original; None where they are all.

    Those of a crop, and around a strip what is shown beside it (`within_aspect`).
    """
    size = picture.size
    is_padded = picture.shown is None and profile.pad_color is None and size_within_aspect(size) != size
    if picture.region is None and not is_padded:
        return None
    width, height = size_within_aspect(size) if is_padded else size
    left, top = (0, 0) if picture.region is None else picture.region[:2]
    left, top = left - (width - size[0]) // 2, top - (height - size[1]) // 2
    return Region(left, top, left + width, top + height)


def _shown_size(picture: Picture) -> Size:
    """Return the size in pixels that a picture's boxes are written in."""
    return picture.shown or picture.size
