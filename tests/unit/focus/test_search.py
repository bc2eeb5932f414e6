"""Looking deeper until an answer is sure; on a scripted engine."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from dualfocus_engine.errors import ContextFull, EngineDead
from dualfocus_engine.families.boxes import Box, Region
from dualfocus_engine.method.questions import Message, Question
from dualfocus_engine.method.results import Ending, FocusResult, Mode, Scoring, Selection, turns_of
from vllm import SamplingParams

from ..builders import CLOSING, asked, plain, turn
from ..fake_engine import WAIT, FakeEngine, Script, boxed, focus_on, never, time_is_up

IMAGE = plain(size=(4000, 4000))
QUESTION = Question((asked("What does the label say?", IMAGE),), Mode.SEARCH)
HALF = boxed("[0.00, 0.00, 0.50, 0.50]")
# In nats a token: Eq. 7 makes 7.4 and 1.1 of them, the threshold is 2.01.
DOUBT, SURE = 2.0, 0.1
# The box of 800 to 2,400 and 25 pixels a side more; half of it, and half of that.
CROPS = [Region(775, 775, 2425, 2425), Region(750, 750, 1625, 1625), Region(725, 725, 1212, 1212)]


def _engine(**script: Script) -> FakeEngine:
    names = ("grounding-2", "grounding-3", "grounding-4"), ("micro-2", "micro-3", "micro-4")
    groundings = dict.fromkeys(names[0], HALF)
    answers = {name: turn(f"{name} answer", DOUBT - place / 10) for place, name in enumerate(names[1], 1)}
    first = {"macro": turn("macro answer", DOUBT), "micro": turn("micro answer", DOUBT)}
    return FakeEngine(
        **{**first, **groundings, **answers, **{name.replace("_", "-"): step for name, step in script.items()}}
    )


async def _answered(engine: FakeEngine, question: Question = QUESTION, **options: Any) -> FocusResult:
    async with asyncio.timeout(WAIT):
        return await focus_on(engine).answer(question, **options)


def _text(engine: FakeEngine, name: str) -> str:
    return "".join(map(chr, engine.prompts[name].token_ids))


async def test_it_goes_on_in_the_crop_until_an_answer_is_sure() -> None:
    engine = _engine(micro_2=turn("42", SURE))
    result = await _answered(engine)
    assert (result.text, result.winner, result.selection) == ("42", "micro", Selection.LOWER_PERPLEXITY)
    assert (result.ending, len(result.looks), result.look) == (Ending.SURE, 2, result.looks[1])
    assert list(result.turns) == ["macro", "grounding", "micro", "grounding-2", "micro-2"]
    assert [name for name, _ in turns_of([result])] == list(result.turns)
    assert [look.crop_box for look in result.looks] == CROPS[:2], "in pixels of the original"
    assert result.look.box is not None
    assert result.look.box.as_tuple() == pytest.approx((775 / 4000, 775 / 4000, 1600 / 4000, 1600 / 4000))


@pytest.mark.parametrize("sure", ["macro", "micro"])
async def test_a_sure_answer_of_the_first_two_needs_no_other(sure: str) -> None:
    result = await _answered(_engine(**{sure: turn("42", SURE)}))
    assert (result.text, result.ending, set(result.turns)) == ("42", Ending.SURE, {"macro", "grounding", "micro"})


async def test_each_level_continues_the_one_before_and_no_prompt_holds_an_answer() -> None:
    engine = _engine()
    result = await _answered(engine)
    assert (result.ending, len(result.looks)) == (Ending.MAX_LOOKS, 3), "and macro"
    opening: tuple[int, ...] = ()
    for place, suffix in enumerate(("", "-2", "-3")):
        grounding, micro = engine.prompts[f"grounding{suffix}"], engine.prompts[f"micro{suffix}"]
        reply = engine.script[f"grounding{suffix}"]
        assert grounding.token_ids[: len(opening)] == opening
        opening = grounding.token_ids + reply.token_ids
        assert micro.token_ids[: len(opening)] == opening
        assert [picture.region for picture in micro.pictures] == [None, *CROPS[: place + 1]]
        assert grounding.pictures == micro.pictures[:-1]
    for name in engine.prompts:
        assert "answer" not in _text(engine, name).replace("answer this question", ""), name
    assert _text(engine, "grounding-3").count(chr(CLOSING)) == 2


async def test_the_answer_of_least_perplexity_wins_whichever_look_it_is_of() -> None:
    result = await _answered(_engine(micro_2=turn("first", 1.0), micro_3=turn("second", 1.5)))
    assert (result.text, result.look) == ("first", result.looks[1])
    result = await _answered(_engine(macro=turn("whole", 0.9), micro_2=turn("first", 1.0)))
    assert (result.text, result.winner) == ("whole", "macro")
    cut = turn("cut", 0.71, finish_reason="length")
    result = await _answered(_engine(micro_2=cut, micro_3=turn("", 0.75)))
    assert (result.text, result.look) == ("micro answer", result.looks[0]), "neither cut nor empty"


@pytest.mark.parametrize(("asked_for", "looks"), [(2, 1), (3, 2), (None, 3)])
async def test_it_takes_no_more_looks_than_it_may(asked_for: int | None, looks: int) -> None:
    result = await _answered(_engine(), replace(QUESTION, max_looks=asked_for))
    assert (len(result.looks), result.ending) == (looks, Ending.MAX_LOOKS)


async def test_how_sure_is_enough_is_the_requests_else_the_profiles() -> None:
    for question, profile, ending in (
        ({"sure_below": 8.0}, {}, Ending.SURE),
        ({}, {"sure_below_perplexity": 8.0}, Ending.SURE),
        ({"sure_below": 0.0}, {"sure_below_perplexity": 8.0}, Ending.MAX_LOOKS),
        ({}, {"sure_below_perplexity": 0.0, "skip_below_perplexity": 8.0}, Ending.MAX_LOOKS),
    ):
        engine = _engine()
        engine.profile = engine.profile.model_copy(update=profile)
        assert (await _answered(engine, replace(QUESTION, **question))).ending is ending


async def test_a_crop_that_was_shown_whole_is_not_looked_into() -> None:
    result = await _answered(_engine(), replace(QUESTION, messages=(asked("What?", plain(size=(700, 700))),)))
    # 0.2 to 0.6 of 700 pixels and 25 a side are 330: the encoder is shown 336.
    assert (result.ending, len(result.looks)) == (Ending.ALL_SHOWN, 1)


@pytest.mark.parametrize(
    ("script", "failed"),
    [
        ({"grounding_2": boxed("nowhere")}, Selection.NO_BOX),
        ({"grounding_2": boxed("[0.00, 0.00, 1.00, 1.00]")}, Selection.NOTHING_TO_ENLARGE),
        ({"grounding_2": ContextFull(9, 8)}, Selection.CONTEXT_FULL),
        ({"micro_2": ContextFull(9, 8)}, Selection.CONTEXT_FULL),
        ({"micro_2": turn("cut", SURE, is_cut=True, finish_reason="length")}, Selection.CONTEXT_FULL),
        ({"micro_2": RuntimeError("broken")}, Selection.MICRO_FAILED),
    ],
)
async def test_a_look_that_comes_to_nothing_is_the_last_and_leaves_the_others(
    script: dict[str, Script], failed: Selection
) -> None:
    result = await _answered(_engine(**script))
    assert (result.text, result.ending) == ("micro answer", Ending.LOOK_FAILED)
    assert [look.failed for look in result.looks] == [None, failed]


async def test_what_the_engine_takes_of_pictures_ends_it() -> None:
    engine = _engine()
    engine.max_images = 3
    result = await _answered(engine)
    assert [look.failed for look in result.looks] == [None, None, Selection.IMAGE_LIMIT]
    assert "grounding-3" not in engine.started


async def test_where_there_is_no_second_look_there_is_no_third() -> None:
    result = await _answered(_engine(grounding=boxed("nowhere")))
    assert (result.selection, result.ending, len(result.looks)) == (Selection.NO_BOX, Ending.LOOK_FAILED, 1)
    called = await _answered(_engine(macro=turn("", 9.0, tool_calls=("look",))))
    assert (called.selection, called.ending) == (Selection.TOOL_CALL, Ending.TOOL_CALL)


async def test_boxes_behind_a_crop_are_of_what_the_profile_says() -> None:
    engine = _engine(grounding_2=boxed("[0.25, 0.25, 0.35, 0.35]"))
    box_format = engine.profile.box_format.model_copy(update={"after_crop": "original"})
    engine.profile = engine.profile.model_copy(update={"box_format": box_format})
    assert (await _answered(engine)).looks[1].box == Box(0.25, 0.25, 0.35, 0.35)


async def test_it_is_asked_where_in_the_crop_in_the_profiles_words() -> None:
    engine = _engine()
    engine.profile = engine.profile.model_copy(update={"deeper_prompt": "And in this part? {question}"})
    await _answered(engine)
    assert _text(engine, "grounding-2").endswith("user:#And in this part? What does the label say?;")


@pytest.mark.parametrize("hangs", ["grounding_2", "micro_3"])
async def test_at_the_deadline_what_is_finished_stands_and_nothing_is_left_running(
    monkeypatch: pytest.MonkeyPatch, hangs: str
) -> None:
    engine = _engine(**{hangs: time_is_up(monkeypatch)})
    result = await _answered(engine, deadline=asyncio.get_running_loop().time() + WAIT)
    assert (result.ending, len(result.looks)) == (Ending.TIMED_OUT, int(hangs[-1]) - 1)
    assert result.text == ("micro answer" if hangs == "grounding_2" else "micro-2 answer")
    assert engine.cancelled == [hangs.replace("_", "-")]


async def test_a_search_that_is_cancelled_leaves_nothing_running() -> None:
    engine = _engine(micro_2=never)
    answering = asyncio.create_task(focus_on(engine).answer(QUESTION))
    async with asyncio.timeout(WAIT):
        await engine.has_started["micro-2"].wait()
    answering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await answering
    assert engine.cancelled == ["micro-2"]


async def test_an_engine_that_died_ends_the_question() -> None:
    with pytest.raises(EngineDead):
        await _answered(_engine(micro_2=EngineDead()))


@pytest.mark.parametrize(
    ("question", "profile", "why"),
    [
        ({"sampling": SamplingParams(n=2, temperature=1.0)}, {}, "several answers"),
        ({"scoring": Scoring.SHARED}, {}, "other scoring"),
        ({}, {"crop_alone": True}, "one picture a prompt"),
        ({}, {"crop_in_picture": True}, "a patch of its picture"),
        ({"box": Box(0.2, 0.2, 0.6, 0.6)}, {"grounds": False}, "can't say where"),
    ],
)
async def test_what_can_only_be_answered_by_two_looks_is_and_says_so(
    question: dict[str, Any], profile: dict[str, Any], why: str
) -> None:
    engine = _engine()
    engine.profile = engine.profile.model_copy(update=profile)
    result = await _answered(engine, replace(QUESTION, **question))
    assert (result.looks, result.ending) == ((), None)
    assert why in result.notes[-1]
    assert not any(name.endswith("-2") for name in engine.started)


@pytest.mark.parametrize("mode", [Mode.DUAL, Mode.REGIONS, Mode.ADAPTIVE, Mode.MICRO, Mode.MACRO])
async def test_other_modes_look_no_deeper(mode: Mode) -> None:
    engine = _engine()
    result = await _answered(engine, replace(QUESTION, mode=mode))
    assert (result.looks, result.ending) == ((), None)
    assert not any(name.endswith("-2") for name in engine.started)


async def test_a_conversation_keeps_its_earlier_turns() -> None:
    before = Message("user", "Hello"), Message("assistant", "Hi")
    engine = _engine()
    await _answered(engine, replace(QUESTION, messages=(*before, *QUESTION.messages)))
    assert _text(engine, "micro-3").startswith("user:Hello;assistant:Hi;user:#")
