"""How large a question's pictures are shown: as the profile's views say, smaller only where the context demands it."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from dualfocus_engine.errors import BadQuestion, ContextFull
from dualfocus_engine.families.boxes import Size
from dualfocus_engine.families.views import Views
from dualfocus_engine.method.questions import Question, grounding_options, grounding_turn, macro_turn, micro_turn
from dualfocus_engine.method.results import Mode
from dualfocus_engine.method.turn_engine import TurnEngine
from dualfocus_engine.pictures.pictures import Picture

if TYPE_CHECKING:
    from vllm import SamplingParams

# What is kept for an answer: the tokens asked for, at most these, and a quarter of the context; for the crop as well.
_ANSWER_TOKENS = 1024
_CONTEXT_PARTS = 4
# Pictures are made smaller in steps, so that one picture is shown alike to questions of different lengths.
_STEP = 64
# What templates and processors put around a picture, and bytes that one more turn's wording has at most.
_AROUND = 16
_WORDING_BYTES = 4096


class Shown(NamedTuple):
    """A question with its pictures at the sizes they are shown at, and what is to be said about that."""

    question: Question
    notes: tuple[str, ...] = ()


async def show_pictures(engine: TurnEngine, question: Question) -> Shown:
    """Say how large each picture is shown, so that the context holds them, the crop and an answer.

    The notes say what is shown smaller than by default, and what of a picture's file is not shown.

    Raises ContextFull where the text alone does not fit.
    """
    left_out = tuple(dict.fromkeys(note for picture in question.pictures if (note := picture.original.left_out)))
    if engine.views is None:
        return Shown(question, left_out)
    views, context = engine.views, engine.context_length
    question = replace(question, crop_tokens=_crop_limit(views, question, context))
    sizes = _sizes(views, question, question.whole_tokens)
    wanted = [views.tokens(sizes[picture]) for picture in question.pictures]
    room = context - _answer_reserve(context, question.sampling or engine.answer_sampling())
    room -= 0 if question.mode is Mode.MACRO else question.crop_tokens or 0
    if sum(wanted) + _longest_text(question) <= room:
        return Shown(question.shown_at(sizes), left_out)
    room -= await _text_tokens(engine, question) + _AROUND * (len(wanted) + 1)
    if sum(wanted) <= room:
        return Shown(question.shown_at(sizes), left_out)
    smaller = _sizes(views, question, _fair_share(wanted, room))
    return Shown(question.shown_at(smaller), (*left_out, *_notes(sizes, smaller, context)))


def _sizes(views: Views, question: Question, most: int | None) -> dict[Picture, Size]:
    return {picture: views.show_whole(picture.size, most) for picture in question.pictures}


def _answer_reserve(context: int, sampling: "SamplingParams") -> int:
    return min(sampling.max_tokens or _ANSWER_TOKENS, _ANSWER_TOKENS, context // _CONTEXT_PARTS)


def _crop_limit(views: Views, question: Question, context: int) -> int:
    """Return the most image tokens that the crop may take: never more than its part of the context."""
    limits = [limit for limit in (views.crop.most, question.crop_tokens) if limit is not None]
    return min([*limits, context // _CONTEXT_PARTS])


def _longest_text(question: Question) -> int:
    """Return more tokens than the text of all turns has, without tokenizing it: none is shorter than a byte."""
    asked = [*(message.text for message in question.messages), question.grounding_question or ""]
    told = [*(message.fields for message in question.messages), question.turns.template_kwargs]
    texts = [*asked, *(str(fields) for fields in told if fields)]
    return 3 * sum(len(text.encode()) for text in texts) + _WORDING_BYTES


async def _text_tokens(engine: TurnEngine, question: Question) -> int:
    """Return the tokens of the longest prompt without its pictures: that of the micro turn, else of macro."""
    profile = engine.profile
    conversation = grounding_turn(question, profile, pictures_first=engine.pictures_first)
    if question.mode is not Mode.MACRO:
        with contextlib.suppress(BadQuestion, ContextFull):  # then there is no second look to keep room for
            grounding = await engine.prompt(conversation, grounding_options(question, profile))
            micro = micro_turn(question, (question.picture,), profile, conversation)
            follow_up = await engine.continuation(conversation, micro, question.turns)
            return len(grounding.token_ids) + profile.max_box_tokens + len(follow_up.token_ids)
    return len((await engine.prompt(macro_turn(question), question.turns)).token_ids)


def _fair_share(wanted: Sequence[int], room: int) -> int:
    """Return the most tokens a picture may take so that all fit into `room`; small ones leave theirs to the others."""
    left, waiting = room, sorted(wanted)
    while waiting and waiting[0] * len(waiting) <= left:
        left -= waiting.pop(0)
    share = left // max(len(waiting), 1)
    return max(share - share % _STEP if share > _STEP else share, 1)


def _notes(wanted: Mapping[Picture, Size], shown: Mapping[Picture, Size], context: int) -> list[str]:
    return [
        f"A picture was shown at {shown[picture][0]}x{shown[picture][1]} pixels, not {size[0]}x{size[1]}: "
        f"the context of {context} tokens holds no more."
        for picture, size in wanted.items()
        if shown[picture] != size
    ]
