"""What the answers about the drawn pictures show, and which line of a profile keeps two looks from working."""

import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from dualfocus_engine import Profile
from dualfocus_engine.families.boxes import Box, Size
from dualfocus_engine.families.views import Views

from dualfocus_server.check.asking import Answered
from dualfocus_server.check.conventions import Fit, Sighting, find_convention, overlap, pattern_for, unit_of
from dualfocus_server.check.drawing import Drawn
from dualfocus_server.check.openings import Opening

# What must hold for two looks to work: boxes that can be read, and crops that show what was asked about.
_READABLE, _SHOWN = 0.75, 0.75
# A thing is in a crop that holds this much of it.
_HELD = 0.9
# Prefixes are cached in whole blocks; no engine has longer ones.
_LONGEST_BLOCK = 128
_THOUGHT = "<think>"
# Characters of what a model wrote that are shown.
_QUOTED = 200


@dataclass(frozen=True)
class Findings:
    """What was found; shares are 0 to 1, None where there was nothing to tell it by.

    `readable` boxes, their `mean_iou` with where things are, the mean error of their middles in `error_x` and `error_y`
    (shares of the picture's sides), the things that the crops `hold`, `crop_tokens` and whether they are `as_wanted`,
    turns that `shared` the prefix, the numbers that each look read, and what an `opening` changes: None where the
    profile's boxes can't be opened.
    """

    readable: float
    mean_iou: float | None
    error_x: float | None
    error_y: float | None
    hold: float
    crop_tokens: tuple[int, ...]
    as_wanted: bool | None
    shared: bool | None
    read_by_macro: float
    read_by_micro: float | None
    thoughts: bool
    absent_boxed: float
    selections: dict[str, int]
    opening: Opening | None
    advice: tuple[str, ...]

    @property
    def works(self) -> bool:
        """Whether two looks will work."""
        return not self.advice


def find(
    answered: Sequence[Answered], profile: Profile, views: Views | None, opening: Opening | None = None
) -> Findings:
    """Return what the answers show."""
    there = [one for one in answered if one.drawn.box is not None]
    absent = [one for one in answered if one.drawn.box is None]
    boxes = [(Box(*one.reply.box), one.drawn.box) for one in there if one.reply.box and one.drawn.box]
    tokens = tuple(_crop_tokens(there))
    micros = [one for one in there if one.reply.micro is not None]
    found: dict[str, Any] = {
        "readable": len(boxes) / len(there),
        "mean_iou": _mean([overlap(read, truth) for read, truth in boxes]),
        "error_x": _mean([abs(read.x1 + read.x2 - truth.x1 - truth.x2) / 2 for read, truth in boxes]),
        "error_y": _mean([abs(read.y1 + read.y2 - truth.y1 - truth.y2) / 2 for read, truth in boxes]),
        "hold": sum(map(_is_held, there)) / len(there),
        "crop_tokens": tokens,
        "as_wanted": None if views is None or not tokens else all(_is_wanted(count, views) for count in tokens),
        # A crop within its picture leaves no prefix to share.
        "shared": all(map(_shares, micros)) if micros and not profile.crop_in_picture else None,
        "read_by_macro": sum(_says(one.reply.macro, one.drawn) for one in there) / len(there),
        "read_by_micro": _mean([float(_says(one.reply.micro, one.drawn)) for one in micros]),
        "thoughts": any(_THOUGHT in said.text for one in there for said in (one.reply.macro, one.reply.micro) if said),
        "absent_boxed": _mean([float(one.reply.box is not None) for one in absent]) or 0.0,
        "selections": dict(Counter(one.reply.selection for one in there)),
        "opening": opening,
    }
    return Findings(**found, advice=tuple(_advice(found, there, profile, views)))


def _advice(found: dict[str, Any], there: Sequence[Answered], profile: Profile, views: Views | None) -> Iterator[str]:
    """Yield what keeps two looks from working, and the line of the profile to change."""
    if found["readable"] < _READABLE or found["hold"] < _SHOWN:
        yield _about_boxes([_sighting(one, views) for one in there if one.reply.grounding], found, profile)
    if found["as_wanted"] is False:
        yield _about_crops(found["crop_tokens"], views)
    if found["shared"] is False:
        yield "The second look does not continue the cached prefix: is prefix caching on, and the chat template plain?"
    if found["opening"] is not None:
        yield from found["opening"].advice()
    if found["thoughts"]:
        yield "Thoughts stand in the answers: switch them off (chat_template_kwargs: {enable_thinking: false})."


def _about_crops(tokens: Sequence[int], views: Views | None) -> str:
    """Say what crops were to take."""
    assert views is not None
    wanted = f"{views.crop.least or 1} to {views.crop.most or 'any number'}"
    return (
        f"Crops took {min(tokens)} to {max(tokens)} image tokens, wanted were {wanted}: see views.rule and views.crop; "
        "a short context (--max-model-len) and --crop-tokens leave less."
    )


def _about_boxes(sightings: Sequence[Sighting], found: dict[str, Any], profile: Profile) -> str:
    """Say what is wrong with how boxes are read."""
    wrong = (
        f"{found['readable']:.0%} of the boxes can be read, {found['hold']:.0%} of the crops hold what was asked about"
    )
    fit = find_convention(sightings, profile.box_format) if sightings else None
    if fit is None:
        written = next((one.text for one in sightings), "")
        return f"{wrong}. The model does not say where things are (grounding_prompt). It wrote: {written[:_QUOTED]!r}"
    lines = list(_changes(fit, profile))
    if found["readable"] < _READABLE and (pattern := pattern_for(sightings[0].text)):
        lines.append(f"box_format.pattern: '{pattern}'")
    if not lines:
        return f"{wrong}; they are read as they are meant, and lie beside it: does the model ground well enough?"
    return f"{wrong}. {' and '.join(lines)} would fit, with a mean IoU of {fit.overlap:.2f}."


def _changes(fit: Fit, profile: Profile) -> Iterator[str]:
    convention, now = fit.convention, profile.box_format
    if convention.swapped:
        order = "yxyx" if now.order == "xyxy" else "xyxy"
        yield f"{'y' if order == 'yxyx' else 'x'} comes first: box_format.order: {order}"
    if convention.unit != unit_of(now):
        scale = {"shown": "pixels", "sent": "(pixels of the picture as sent, which no profile can say)"}
        named = scale.get(convention.unit, "") if isinstance(convention.unit, str) else f"{convention.unit:g}"
        yield f"the scale is another: box_format.scale: {named}"
    if convention.padded:
        yield "boxes are of the picture padded to a square, not of the picture itself (pad_color, or another scale)"


def _sighting(one: Answered, views: Views | None) -> Sighting:
    assert one.drawn.box is not None
    assert one.reply.grounding is not None
    sent: Size = one.drawn.picture.size
    return Sighting(one.drawn.box, one.reply.grounding.text, sent, views.show_whole(sent) if views else sent)


def _is_held(one: Answered) -> bool:
    """Whether the crop shows nearly all of the thing."""
    crop, box, (width, height) = one.reply.crop, one.drawn.box, one.drawn.picture.size
    if crop is None or box is None:
        return False
    wide = min(crop.right / width, box.x2) - max(crop.left / width, box.x1)
    high = min(crop.bottom / height, box.y2) - max(crop.top / height, box.y1)
    return max(wide, 0.0) * max(high, 0.0) >= _HELD * (box.x2 - box.x1) * (box.y2 - box.y1)


def _crop_tokens(there: Sequence[Answered]) -> Iterator[int]:
    for one in there:
        turns = one.reply.turns
        of = [turns[name].image_tokens for name in ("grounding", "micro") if name in turns]
        if len(of) == 2 and of[0] is not None and of[1] is not None:
            yield of[1] - of[0]


def _is_wanted(tokens: int, views: Views) -> bool:
    return (views.crop.least or 0) <= tokens <= (views.crop.most or tokens)


def _shares(one: Answered) -> bool:
    turns = one.reply.turns
    if "grounding" not in turns or "micro" not in turns:
        return True
    return turns["micro"].cached_tokens > turns["grounding"].prompt_tokens - _LONGEST_BLOCK


def _says(said: Any, drawn: Drawn) -> bool:
    return said is not None and drawn.number in said.text


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None
