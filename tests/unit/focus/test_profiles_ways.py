"""What a profile changes about the second look: whose message the crop is in, alone or not, how a box is opened."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from dualfocus_engine.families.box_format import BoxFormat
from dualfocus_engine.families.boxes import Box
from dualfocus_engine.families.profiles import load_profile
from dualfocus_engine.method.prompts import NO_OPTIONS, Prompt, TurnOptions
from dualfocus_engine.method.questions import Message, Question
from dualfocus_engine.method.results import FocusResult, Mode, Scoring, Selection

from ..builders import CLOSING, asked, plain, turn
from ..fake_engine import FakeEngine, boxed, focus_on

QUESTION = Question((asked("What colour?", plain(size=(1000, 500))),))


def _engine(**changes: Any) -> FakeEngine:
    engine = FakeEngine()
    engine.profile = load_profile("llava-dualfocus").model_copy(update=changes)
    return engine


class _ThinkingEngine(FakeEngine):
    """Its template writes how an answer begins."""

    prompt_ends = ""

    async def prompt(self, messages: Sequence[Message], options: TurnOptions = NO_OPTIONS) -> Prompt:
        return (await super().prompt(messages, options)).opened(self.encode(self.prompt_ends))

    async def continuation(
        self, messages: Sequence[Message], follow_up: Message, options: TurnOptions = NO_OPTIONS
    ) -> Prompt:
        return (await super().continuation(messages, follow_up, options)).opened(self.encode(self.prompt_ends))


async def _answered(engine: FakeEngine, question: Question = QUESTION) -> FocusResult:
    return await focus_on(engine).answer(question)


def _text(tokens: tuple[int, ...]) -> str:
    return "".join(map(chr, tokens))


async def test_the_crop_may_come_back_as_a_tools_result() -> None:
    engine = _engine(crop_role="tool")
    await _answered(engine)
    grounding, micro = engine.prompts["grounding"], engine.prompts["micro"]
    assert "tool:#" in _text(micro.token_ids[len(grounding.token_ids) :])
    plainly = _engine()
    await _answered(plainly)
    assert "user:#" in _text(plainly.prompts["micro"].token_ids[len(grounding.token_ids) :])


async def test_the_template_may_be_told_something_in_the_grounding_turn_alone() -> None:
    engine = _engine(grounding_template_kwargs={"enable_thinking": False})
    await _answered(engine)
    assert sorted(map(len, engine.template_kwargs)) == [0, 1]
    assert {"enable_thinking": False} in engine.template_kwargs


@pytest.mark.parametrize(
    ("prompt_ends", "written", "selection"),
    [
        ("<think>\n", "Maybe [0.2, 0.2, 0.6, 0.6], or", Selection.NO_BOX),
        ("<think>", "Maybe [0.2, 0.2, 0.6, 0.6], or", Selection.NO_BOX),
        ("<think>\n", "Maybe [0, 0, 1, 1].</think>[0.2, 0.2, 0.6, 0.6]", Selection.LOWER_PERPLEXITY),
        ("<think></think>", "[0.2, 0.2, 0.6, 0.6]", Selection.LOWER_PERPLEXITY),
        ("<think>\n\n</think>\n\n", "[0.2, 0.2, 0.6, 0.6]", Selection.LOWER_PERPLEXITY),
    ],
)
async def test_no_box_is_read_from_thoughts_that_the_template_begins_and_the_reply_does_not_end(
    prompt_ends: str, written: str, selection: Selection
) -> None:
    engine = _ThinkingEngine(grounding=boxed(written))
    engine.prompt_ends = prompt_ends
    assert (await _answered(engine)).selection is selection


THOUGHTS = "<think>\n\n</think>\n\n"


async def test_a_box_that_is_given_stands_behind_thoughts_that_the_template_begins() -> None:
    engine = _ThinkingEngine()
    engine.prompt_ends = "<think>\n"
    await _answered(engine, replace(QUESTION, box=Box(0.2, 0.2, 0.6, 0.6)))
    assert f"{THOUGHTS}[0.20, 0.20, 0.60, 0.60]" in _text(engine.prompts["micro"].token_ids)


async def test_what_is_scored_or_judged_stands_behind_thoughts_that_the_template_begins() -> None:
    judged = {f"enough-{name}": turn("Yes") for name in ("macro", "micro")}
    engine = _ThinkingEngine(grounding=boxed("</think>[0.20, 0.20, 0.60, 0.60]"), **judged)
    engine.prompt_ends = "<think>\n"
    await _answered(engine, replace(QUESTION, scoring=Scoring.SHARED, enough=True))
    assert not _text(engine.prompts["micro"].token_ids).endswith(THOUGHTS), "an answer may think"
    for name in ("macro-score", "micro-score", "enough-macro", "enough-micro"):
        assert _text(engine.prompts[name].token_ids).endswith(THOUGHTS), name


async def test_answers_are_scored_as_a_turn_that_does_not_think() -> None:
    engine = _engine(grounding_template_kwargs={"enable_thinking": False})
    await _answered(engine, replace(QUESTION, scoring=Scoring.SHARED))
    assert engine.prompts["macro-score"].options.template_kwargs == {"enable_thinking": False}


async def test_a_model_of_one_picture_a_prompt_is_asked_about_the_crop_alone() -> None:
    engine = _engine(crop_alone=True)
    engine.max_images = 1
    result = await _answered(engine)
    assert result.look.micro is not None
    micro = engine.prompts["micro"]
    assert _text(micro.token_ids).startswith("user:#")
    assert [picture.region for picture in micro.pictures] == [result.look.crop_box]
    told = replace(QUESTION, messages=(Message("system", "Be brief."), *QUESTION.messages))
    await _answered(engine, told)
    assert _text(engine.prompts["micro"].token_ids).startswith("system:Be brief.")
    engine = _engine()
    engine.max_images = 1
    assert (await _answered(engine)).selection is Selection.IMAGE_LIMIT


async def test_the_crop_may_be_a_patch_of_its_picture_in_the_same_conversation() -> None:
    engine = _engine(crop_in_picture=True)
    engine.max_images = 2
    other = plain((0, 9, 0))
    question = replace(
        QUESTION, messages=(asked("What?", *QUESTION.pictures, other),), image_index=0, scoring=Scoring.SHARED
    )
    result = await _answered(engine, question)
    grounding, micro = engine.prompts["grounding"], engine.prompts["micro"]
    assert micro.token_ids[: len(grounding.token_ids)] == grounding.token_ids
    assert "#" not in _text(micro.token_ids[len(grounding.token_ids) :])
    shown, unchanged = micro.pictures
    assert (shown.region, shown.patch and shown.patch.region) == (None, result.look.crop_box)
    assert shown.key != QUESTION.picture.key == grounding.pictures[0].key
    assert (unchanged, unchanged.patch) == (other, None)
    assert engine.prompts["macro-score"].pictures[0].key == shown.key, "both are scored where micro saw it"


@pytest.mark.parametrize(("box", "tokens"), [(None, 576), (Box(0.2, 0.2, 0.6, 0.6), 0)])
async def test_a_patchs_tokens_are_those_that_its_picture_has_more(box: Box | None, tokens: int) -> None:
    engine = _engine(crop_in_picture=True)
    engine.script["grounding"] = replace(boxed("[0.20, 0.20, 0.60, 0.60]"), picture_tokens=(2880, 1728))
    engine.script["micro"] = turn("micro answer", 0.5, picture_tokens=(3456, 1728))
    several = (asked("What?", *QUESTION.pictures, plain((0, 9, 0))),)
    result = await _answered(engine, replace(QUESTION, messages=several, image_index=0, box=box))
    assert [at.tokens for at in result.look.regions] == [tokens]


@pytest.mark.parametrize("mode", [Mode.DUAL, Mode.ADAPTIVE, Mode.MICRO])
async def test_a_model_that_can_not_point_looks_closer_only_where_the_client_says(mode: Mode) -> None:
    engine = _engine(grounds=False)
    result = await _answered(engine, replace(QUESTION, mode=mode))
    assert (result.winner, result.selection) == ("macro", Selection.NO_GROUNDING)
    assert engine.started == ["macro"]
    result = await _answered(engine, replace(QUESTION, mode=mode, box=Box(0.2, 0.2, 0.6, 0.6)))
    assert result.look.micro is not None
    assert result.look.box == Box(0.2, 0.2, 0.6, 0.6)
    assert "grounding" not in engine.started


OPENED = BoxFormat.model_validate(
    {
        "pattern": r"\[{corners}\]",
        "scale": 1000,
        "opening": '[{"bbox_2d": [',
        "stop": "]",
        "closing": '], "label": "it"}]',
        "template": '[{{"bbox_2d": [{x1:.0f}, {y1:.0f}, {x2:.0f}, {y2:.0f}], "label": "it"}}]',
    }
)


async def test_a_box_that_is_opened_is_closed_and_the_conversation_holds_a_whole_turn() -> None:
    engine = _engine(box_format=OPENED)
    written = "200, 200, 600, 600"
    engine.script["grounding"] = replace(turn(written, token_ids=(*map(ord, written + "]"),)), stop_reason="]")
    result = await _answered(engine)
    assert result.look.box == Box(0.2, 0.2, 0.6, 0.6)
    assert _text(engine.prompts["grounding"].token_ids).endswith('[{"bbox_2d": [')
    grounding, micro = engine.prompts["grounding"].token_ids, engine.prompts["micro"].token_ids
    assert micro[: len(grounding)] == grounding
    whole = written + '], "label": "it"}]'
    assert _text(micro[len(grounding) : len(grounding) + len(whole)]) == whole
    assert micro[len(grounding) + len(whole)] == CLOSING


async def test_what_goes_on_behind_an_opening_and_is_never_stopped_is_kept_as_it_is() -> None:
    engine = _engine(box_format=OPENED)
    written = "it is not there"
    engine.script["grounding"] = turn(written, token_ids=(*map(ord, written), CLOSING), logprobs=(-0.1,) * 16)
    assert (await _answered(engine)).selection is Selection.NO_BOX


async def test_a_box_that_is_given_is_written_behind_its_opening() -> None:
    engine = _engine(box_format=OPENED)
    await _answered(engine, replace(QUESTION, box=Box(0.2, 0.2, 0.6, 0.6)))
    assert '[{"bbox_2d": [200, 200, 600, 600], "label": "it"}]' in _text(engine.prompts["micro"].token_ids)
