"""Several answers to one question, tools that are called, and answers that are read; on a scripted engine."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from dualfocus_engine.errors import ContextFull
from dualfocus_engine.method.questions import Message, Question, Text, grounding_turn
from dualfocus_engine.method.results import FocusResult, Mode, Selection, Turn, turns_of
from vllm import SamplingParams

from ..builders import asked, plain, turn
from ..fake_engine import WAIT, FakeEngine, boxed, focus_on, never

IMAGE = plain(size=(1000, 500))
QUESTION = Question((asked("What colour?", IMAGE),))


def one_after_another(*turns: Turn) -> Callable[[], Awaitable[Turn]]:
    """A step that gives another turn each time."""
    left = iter(turns)

    async def step() -> Turn:
        return next(left)

    return step


async def answers(engine: FakeEngine, question: Question) -> tuple[FocusResult, ...]:
    async with asyncio.timeout(WAIT):
        return await focus_on(engine).answers(question)


def drawn(n: int, **fields: Any) -> Question:
    return replace(QUESTION, sampling=SamplingParams(n=n, temperature=1.0, **fields))


async def test_each_answer_is_chosen_between_the_two_that_were_drawn_in_its_place() -> None:
    engine = FakeEngine(
        macro=one_after_another(turn("a", 1.0), turn("b", 0.1)), micro=one_after_another(turn("c", 0.5), turn("d", 0.5))
    )
    results = await answers(engine, drawn(2))
    assert [(result.text, result.winner) for result in results] == [("c", "micro"), ("b", "macro")]
    assert sorted(engine.started) == ["grounding", "macro", "macro", "micro", "micro"], "one box for all"
    assert len({result.look.box for result in results}) == 1
    assert [name for name, _ in turns_of(results)].count("grounding") == 1
    assert len(turns_of(results)) == 5


@pytest.mark.parametrize(("seed", "seeds"), [(7, [7, 8, 9]), (None, [None] * 3)])
async def test_answers_are_drawn_as_vllm_draws_several(seed: int | None, seeds: list[int | None]) -> None:
    engine, used = FakeEngine(), []
    generate = engine.generate

    async def noting(request: Any) -> Turn:
        used.append((request.name, request.sampling))
        return await generate(request)

    engine.generate = noting  # type: ignore[method-assign]
    await answers(engine, drawn(3, seed=seed))
    for name in ("macro", "micro"):
        samplings = [sampling for turn, sampling in used if turn == name]
        assert [(sampling.n, sampling.seed) for sampling in samplings] == [(1, each) for each in seeds]


async def test_a_question_of_several_answers_without_a_box_has_its_macro_answers() -> None:
    engine = FakeEngine(grounding=boxed("nowhere"), macro=one_after_another(turn("a"), turn("b")))
    results = await answers(engine, drawn(2))
    assert [(result.text, result.selection) for result in results] == [("a", Selection.NO_BOX), ("b", Selection.NO_BOX)]


async def test_in_micro_mode_only_an_answer_that_is_missing_is_macros() -> None:
    micros = one_after_another(turn("c"), turn("d", finish_reason="length", is_cut=True))
    engine = FakeEngine(micro=micros, macro=one_after_another(turn("a"), turn("b")))
    results = await answers(engine, replace(drawn(2), mode=Mode.MICRO))
    assert [(result.text, result.winner) for result in results] == [("c", "micro"), ("b", "macro")]


async def test_one_answer_that_fails_ends_the_others() -> None:
    async def fails() -> Turn:
        raise ContextFull(9, 8)

    engine = FakeEngine(macro=fails, grounding=never)
    with pytest.raises(ContextFull):
        await answers(engine, drawn(2))


# Tools.


async def test_a_call_in_the_macro_turn_ends_the_second_look() -> None:
    engine = FakeEngine(macro=turn("", tool_calls=("look",)), grounding=never)
    (result,) = await answers(engine, QUESTION)
    assert (result.winner, result.selection) == ("macro", Selection.TOOL_CALL)
    assert engine.cancelled == ["grounding"]


async def test_a_call_is_the_answer_also_where_the_second_look_ended_first() -> None:
    engine = FakeEngine()
    engine.script["macro"] = engine.after("micro", turn("", tool_calls=("look",)))
    (result,) = await answers(engine, QUESTION)
    assert (result.winner, result.selection) == ("macro", Selection.TOOL_CALL)


async def test_of_several_answers_those_that_call_nothing_are_compared() -> None:
    macros = one_after_another(turn("", tool_calls=("look",)), turn("red", 9.0))
    results = await answers(FakeEngine(macro=macros), drawn(2))
    assert [result.selection for result in results] == [Selection.TOOL_CALL, Selection.LOWER_PERPLEXITY]
    assert results[1].winner == "micro"


@pytest.mark.parametrize("mode", [Mode.DUAL, Mode.MICRO])
async def test_a_call_in_the_micro_turn_is_no_answer(mode: Mode) -> None:
    engine = FakeEngine(micro=turn("", 0.1, tool_calls=("look",)))
    (result,) = await answers(engine, replace(QUESTION, mode=mode))
    assert result.look.micro is not None
    assert result.look.micro.tool_calls == ()
    if mode is Mode.DUAL:
        assert (result.winner, result.selection) == ("macro", Selection.OTHER_EMPTY)


async def test_both_answers_are_read_and_the_box_is_not() -> None:
    read: list[str] = []

    def reading(given: Turn) -> Turn:
        read.append(given.text)
        return replace(given, text=given.text.upper())

    (result,) = await answers(FakeEngine(), replace(QUESTION, read=reading))
    assert sorted(read) == ["macro answer", "micro answer"]
    assert result.text == "MICRO ANSWER"
    assert result.look.box is not None


# What tools gave.


def test_what_a_tool_gave_stays_before_q1_in_the_grounding_turn() -> None:
    profile = FakeEngine().profile
    called = Message("assistant", "", fields={"tool_calls": [{"id": "c"}]})
    gave = Message.from_parts("tool", (Text("here"), plain((1, 2, 3))), tool_call_id="c")
    question = Question((asked("What?", IMAGE), called, gave))
    *before, last = grounding_turn(question, profile, pictures_first=False)
    assert before == list(question.messages)
    assert (last.role, last.pictures) == ("user", ())
    assert "What?" in last.text
    assert question.picture == gave.pictures[0]
    assert called.in_order == ()


def test_pictures_that_several_tools_gave_leave_open_which_to_look_into() -> None:
    first, second = (Message("tool", "", (plain((shade, 0, 0)),)) for shade in (1, 2))
    said = Message("assistant", "Let me look.")
    assert Question((asked("What?", IMAGE), said, first, second)).leaves_open_which_picture
    assert not Question((asked("What?", IMAGE), said, first)).leaves_open_which_picture
    assert not Question((asked("What?", IMAGE), said, first, second), image_index=1).leaves_open_which_picture
