"""The method's order, its ways out, and what cancelling does; on a scripted engine."""

import asyncio
import logging
from dataclasses import replace
from typing import Any
from unittest.mock import AsyncMock

import pytest
from dualfocus_engine.errors import BadPicture, BadQuestion, ContextFull, EngineDead
from dualfocus_engine.families.boxes import Box, Region
from dualfocus_engine.method.questions import Message, Question
from dualfocus_engine.method.results import FocusResult, Mode, Scoring, Selection
from PIL import Image
from vllm import SamplingParams

from ..builders import CLOSING, asked, plain, turn
from ..fake_engine import WAIT, FakeEngine, Script, boxed, focus_on, never

IMAGE = plain(size=(1000, 500))
QUESTION = Question((asked("What colour?\nAnswer the question using a single word or phrase.", IMAGE),))
BOX = Box(0.4, 0.5, 0.6, 0.7)


async def _answered(engine: FakeEngine, question: Question = QUESTION) -> FocusResult:
    async with asyncio.timeout(WAIT):
        return await focus_on(engine).answer(question)


async def _settled(engine: FakeEngine, *names: str) -> None:
    async with asyncio.timeout(WAIT):
        for name in names:
            await engine.has_started[name].wait()


async def test_three_turns_and_the_answer_of_lower_perplexity() -> None:
    engine = FakeEngine()
    result = await _answered(engine)
    assert (result.text, result.winner, result.selection) == (
        "micro answer",
        "micro",
        Selection.LOWER_PERPLEXITY,
    )
    assert sorted(engine.finished) == ["grounding", "macro", "micro"]
    assert result.look.box == Box(0.2, 0.2, 0.6, 0.6)
    # 200..600 x 100..300 squared to 400 around (400, 200): 0..400 high after clipping, then 25 a side.
    assert result.look.crop_box == Region(175, 0, 625, 425)
    assert result.seconds > 0


async def test_macro_wins_where_its_perplexity_is_lower() -> None:
    result = await _answered(FakeEngine(macro=turn("red", 0.1), micro=turn("blue", 0.2)))
    assert (result.text, result.selection) == ("red", Selection.LOWER_PERPLEXITY)
    assert result.look.micro is not None


async def test_micro_prompt_begins_with_grounding_prompt_and_the_box_as_written() -> None:
    text = "It is [0.2,0.2,  0.6,0.6] there"
    engine = FakeEngine(grounding=boxed(text))
    await _answered(engine)
    opening = engine.prompts["grounding"].token_ids + tuple(map(ord, text)) + (CLOSING,)
    micro = engine.prompts["micro"].token_ids
    assert micro[: len(opening)] == opening
    assert micro[len(opening)] != CLOSING


async def test_turns_see_their_pictures_and_texts() -> None:
    engine = FakeEngine()
    result = await _answered(engine)
    written = {name: "".join(map(chr, prompt.token_ids)) for name, prompt in engine.prompts.items()}
    assert written["macro"].endswith(f"user:#{QUESTION.asked};")
    assert written["grounding"].endswith("user:#" + focus_on(engine).profile.grounding_text("What colour?") + ";")
    assert written["micro"].endswith("user:#" + focus_on(engine).profile.micro_text(QUESTION.asked) + ";")
    shared = written["macro"].index("#") + 1
    assert written["macro"][:shared] == written["grounding"][:shared]
    assert engine.prompts["macro"].pictures == engine.prompts["grounding"].pictures == (IMAGE,)
    image, crop = engine.prompts["micro"].pictures
    assert image is IMAGE
    assert crop.size == (450, 425)
    assert result.look.crop_box is not None
    assert crop.key == IMAGE.crop(result.look.crop_box).key


OBSTACLES = {
    Selection.NOTHING_ASKED: Question((Message("user", "", (IMAGE,)),)),
    Selection.SEVERAL_PICTURES: Question((asked("Which is darker?", IMAGE, plain((9, 9, 9))),)),
    Selection.IMAGE_LIMIT: Question((asked("What?", IMAGE), Message("assistant", "A cup."), asked("And?", IMAGE))),
}


@pytest.mark.parametrize("mode", [Mode.DUAL, Mode.ADAPTIVE, Mode.MICRO])
@pytest.mark.parametrize("obstacle", OBSTACLES)
async def test_what_keeps_a_question_from_a_second_look_is_known_before_one_is_begun(
    obstacle: Selection, mode: Mode
) -> None:
    engine = FakeEngine()
    engine.max_images = 2
    result = await _answered(engine, replace(OBSTACLES[obstacle], mode=mode))
    assert (result.winner, result.selection) == ("macro", obstacle)
    assert engine.started == ["macro"]


async def test_a_picture_that_is_named_and_words_that_are_given_are_grounded() -> None:
    for question in (
        replace(OBSTACLES[Selection.NOTHING_ASKED], grounding_question="the cup"),
        replace(OBSTACLES[Selection.SEVERAL_PICTURES], image_index=0),
    ):
        assert (await _answered(FakeEngine(), question)).selection is Selection.LOWER_PERPLEXITY


async def test_clients_sampling_draws_the_answers_and_never_the_box() -> None:
    engine = FakeEngine()
    await _answered(engine)
    assert engine.samplings == {
        "macro": engine.answer_sampling(),
        "grounding": "grounding sampling",
        "micro": engine.answer_sampling(),
    }
    clients = SamplingParams(temperature=0.5)
    await _answered(engine, replace(QUESTION, sampling=clients))
    assert engine.samplings == {"macro": clients, "grounding": "grounding sampling", "micro": clients}


async def test_macro_and_grounding_run_side_by_side() -> None:
    engine = FakeEngine()
    engine.script["macro"] = engine.after("grounding", turn("red"))
    engine.script["grounding"] = engine.after("macro", boxed("[0, 0, 1, 1]"))
    assert (await _answered(engine)).selection is Selection.LOWER_PERPLEXITY


async def test_micro_starts_before_macro_is_done() -> None:
    engine = FakeEngine()
    engine.script["macro"] = engine.after("micro", turn("red", 0.1))
    assert (await _answered(engine)).text == "red"
    assert engine.finished.index("grounding") == 0


@pytest.mark.parametrize("text", ["I can't see it.", "", "[0.1, 0.2]"])
async def test_no_readable_box_leaves_the_macro_answer(text: str) -> None:
    engine = FakeEngine(grounding=boxed(text))
    result = await _answered(engine)
    assert (result.text, result.selection) == ("macro answer", Selection.NO_BOX)
    assert "micro" not in engine.started
    assert list(result.turns) == ["macro", "grounding"]
    assert (result.look.box, result.look.crop_box) == (None, None)


@pytest.mark.parametrize("text", ["[0.5, 0.5, 0.5, 0.9]", "[0.9, 0.9, 0.1, 0.1]", "[1.5, 0.1, 1.8, 0.9]"])
async def test_empty_box_leaves_the_macro_answer(text: str) -> None:
    engine = FakeEngine(grounding=boxed(text))
    result = await _answered(engine)
    assert (result.text, result.selection) == ("macro answer", Selection.EMPTY_BOX)
    assert "micro" not in engine.started
    assert result.look.box is not None
    assert result.look.crop_box is None


@pytest.mark.parametrize("failing", ["grounding", "micro"])
@pytest.mark.parametrize(
    ("error", "selection"),
    [
        (ContextFull(5000, 4096), Selection.CONTEXT_FULL),
        (RuntimeError("CUDA out of memory"), Selection.MICRO_FAILED),
        (BadQuestion("no grammar"), Selection.MICRO_FAILED),
        (TimeoutError(), Selection.MICRO_FAILED),
    ],
)
async def test_error_of_the_second_look_leaves_the_macro_answer(
    failing: str, error: Exception, selection: Selection
) -> None:
    result = await _answered(FakeEngine(**{failing: error}))
    assert (result.text, result.winner, result.selection) == ("macro answer", "macro", selection)
    assert list(result.turns) == (["macro"] if failing == "grounding" else ["macro", "grounding"])


async def test_micro_answer_that_the_context_cut_off_leaves_the_macro_answer() -> None:
    result = await _answered(FakeEngine(micro=turn("bl", mean_nll=0.0, finish_reason="length", is_cut=True)))
    assert (result.text, result.selection) == ("macro answer", Selection.CONTEXT_FULL)
    assert result.look.micro is not None


async def test_box_that_the_context_cut_off_is_a_full_context() -> None:
    result = await _answered(FakeEngine(grounding=turn("[0.1, 0", finish_reason="length", is_cut=True)))
    assert (result.text, result.selection) == ("macro answer", Selection.CONTEXT_FULL)


async def test_failed_micro_keeps_what_the_look_had_found() -> None:
    result = await _answered(FakeEngine(micro=ContextFull(5000, 4096)))
    assert (result.look.box, result.look.crop_box) == (Box(0.2, 0.2, 0.6, 0.6), Region(175, 0, 625, 425))
    assert result.look.micro is None


async def test_micro_turn_that_can_not_be_rendered_leaves_the_macro_answer() -> None:
    engine = FakeEngine()
    engine.rendering_fails = BadQuestion("The template does not show earlier answers.")
    assert (await _answered(engine)).selection is Selection.MICRO_FAILED


async def test_failure_is_logged_and_a_way_out_is_not(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        await _answered(FakeEngine(grounding=boxed("no box")))
        await _answered(FakeEngine(micro=ContextFull(2, 1)))
        assert not caplog.records
        await _answered(FakeEngine(micro=RuntimeError("CUDA out of memory")))
    assert "CUDA out of memory" in caplog.text


@pytest.mark.parametrize("error", [ContextFull(5000, 4096), EngineDead(), RuntimeError("broken")])
async def test_macro_error_is_raised_by_itself_and_ends_the_second_look(error: Exception) -> None:
    engine = FakeEngine(grounding=never)
    engine.script["macro"] = engine.after("grounding", error)
    with pytest.raises(type(error)) as raised:
        await _answered(engine)
    assert raised.value is error
    assert engine.cancelled == ["grounding"]


@pytest.mark.parametrize("failing", ["grounding", "micro"])
async def test_dead_engine_is_raised_and_ends_the_macro_turn(failing: str) -> None:
    engine = FakeEngine(macro=never)
    engine.script[failing] = engine.after("macro", EngineDead())
    with pytest.raises(EngineDead):
        await _answered(engine)
    assert engine.cancelled == ["macro"]


async def test_engine_dead_for_all_turns_is_raised_once() -> None:
    with pytest.raises(EngineDead):
        await _answered(FakeEngine(macro=EngineDead(), grounding=EngineDead()))


@pytest.mark.parametrize(
    ("script", "running"),
    [
        ({"macro": never, "grounding": never}, ["grounding", "macro"]),
        ({"macro": never, "micro": never}, ["macro", "micro"]),
    ],
)
async def test_cancelling_cancels_every_turn(script: dict[str, Script], running: list[str]) -> None:
    engine = FakeEngine(**script)
    call = asyncio.create_task(focus_on(engine).answer(QUESTION))
    await _settled(engine, *running)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert sorted(engine.cancelled) == running


async def test_cancelling_the_second_look_alone_asks_nothing_else() -> None:
    engine = FakeEngine(grounding=never)
    call = asyncio.create_task(focus_on(engine).answer(replace(QUESTION, mode=Mode.MICRO)))
    await _settled(engine, "grounding")
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert (engine.started, engine.cancelled) == (["grounding"], ["grounding"])


async def test_macro_mode_looks_once() -> None:
    engine = FakeEngine()
    result = await _answered(engine, replace(QUESTION, mode=Mode.MACRO, box=BOX))
    assert (result.text, result.selection) == ("macro answer", Selection.ONLY_ANSWER)
    assert engine.started == ["macro"]


async def test_micro_mode_gives_the_second_look_alone() -> None:
    engine = FakeEngine(micro=turn("micro answer", mean_nll=99.0))
    result = await _answered(engine, replace(QUESTION, mode=Mode.MICRO))
    assert (result.text, result.winner, result.selection) == ("micro answer", "micro", Selection.ONLY_ANSWER)
    assert engine.started == ["grounding", "micro"]
    assert result.macro is None


@pytest.mark.parametrize(
    ("script", "selection"),
    [
        ({"grounding": boxed("nothing")}, Selection.NO_BOX),
        ({"grounding": boxed("[0.5, 0.5, 0.5, 0.5]")}, Selection.EMPTY_BOX),
        ({"grounding": ContextFull(2, 1)}, Selection.CONTEXT_FULL),
        ({"micro": RuntimeError("broken")}, Selection.MICRO_FAILED),
    ],
)
async def test_micro_mode_falls_back_to_macro(script: dict[str, Script], selection: Selection) -> None:
    engine = FakeEngine(**script)
    result = await _answered(engine, replace(QUESTION, mode=Mode.MICRO))
    assert (result.text, result.winner, result.selection) == ("macro answer", "macro", selection)
    assert engine.started[-1] == "macro"


@pytest.mark.parametrize("mode", [Mode.DUAL, Mode.MICRO])
async def test_clients_box_makes_grounding_unnecessary(mode: Mode) -> None:
    engine = FakeEngine()
    result = await _answered(engine, replace(QUESTION, mode=mode, box=BOX))
    assert "grounding" not in engine.started
    assert result.text == "micro answer"
    assert (result.look.box, result.look.crop_box) == (BOX, Region(375, 175, 625, 425))
    written = "".join(map(chr, engine.prompts["micro"].token_ids))
    assert f"asks: What colour?;[0.40, 0.50, 0.60, 0.70]{chr(CLOSING)}user:#" in written


async def test_what_to_ground_reaches_only_the_grounding_text() -> None:
    engine = FakeEngine()
    await _answered(engine, replace(QUESTION, grounding_question="the left cup"))
    written = {name: "".join(map(chr, prompt.token_ids)) for name, prompt in engine.prompts.items()}
    assert written["grounding"].endswith("asks: the left cup;")
    assert "left cup" not in written["macro"]
    assert written["micro"].endswith(f"question: {QUESTION.asked};")


async def test_many_questions_come_back_in_their_order() -> None:
    engine = FakeEngine()
    focus = focus_on(engine)
    questions = [replace(QUESTION, mode=mode) for mode in (Mode.MACRO, Mode.MICRO, Mode.MACRO)]
    results = await focus.ask_many(iter(questions))
    assert [result.text for result in results] == ["macro answer", "micro answer", "macro answer"]
    assert await focus.ask_many([]) == []


async def test_first_error_of_many_questions_is_raised_by_itself() -> None:
    focus = focus_on(FakeEngine(macro=ContextFull(5000, 4096)))
    async with asyncio.timeout(WAIT):
        with pytest.raises(ContextFull):
            await focus.ask_many([QUESTION, QUESTION])


async def test_one_image_and_one_question(coffee: Image.Image) -> None:
    engine = FakeEngine()
    assert (await focus_on(engine).ask(coffee, "What is it?")).text == "micro answer"
    assert engine.prompts["macro"].pictures[0].size == coffee.size
    with pytest.raises(BadPicture):
        await focus_on(engine).ask(b"no image", "What is it?")


@pytest.mark.parametrize("late", ["grounding", "micro"])
@pytest.mark.parametrize("mode", [Mode.DUAL, Mode.ADAPTIVE])
async def test_a_second_look_that_is_late_leaves_the_macro_answer(mode: Mode, late: str) -> None:
    engine = FakeEngine(**{late: never})
    now = asyncio.get_running_loop().time()
    result = await focus_on(engine).answer(replace(QUESTION, mode=mode, skip_below=0), deadline=now)
    assert (result.winner, result.selection) == ("macro", Selection.TIMED_OUT)
    assert set(engine.cancelled) <= {late}


@pytest.mark.parametrize(("scoring", "winner"), [(Scoring.SHARED, "micro"), (Scoring.RELEASED, "macro")])
async def test_answers_that_could_not_be_scored_under_one_prompt_are_chosen_from_without(
    scoring: Scoring, winner: str, caplog: pytest.LogCaptureFixture
) -> None:
    engine = FakeEngine()
    engine.score = AsyncMock(side_effect=RuntimeError("vLLM could not finish a turn."))  # type: ignore[method-assign]
    result = await focus_on(engine).answer(replace(QUESTION, scoring=scoring))
    assert (result.winner, result.shared) == (winner, None)
    assert "could not be scored under one prompt" in caplog.text


async def test_an_engine_that_ends_while_it_scores_is_no_answer() -> None:
    engine = FakeEngine()
    engine.score = AsyncMock(side_effect=EngineDead)  # type: ignore[method-assign]
    with pytest.raises(EngineDead):
        await focus_on(engine).answer(replace(QUESTION, scoring=Scoring.SHARED))


async def test_shared_scoring_that_is_late_leaves_the_macro_answer() -> None:
    engine, deadline = FakeEngine(), asyncio.get_running_loop().time() + 3

    async def late(*given: Any, **named: Any) -> Any:
        await never()

    engine.score = late  # type: ignore[method-assign]
    result = await focus_on(engine).answer(replace(QUESTION, scoring=Scoring.SHARED), deadline=deadline)
    assert (result.winner, result.selection, result.shared) == ("macro", Selection.TIMED_OUT, None)
    assert result.look.micro is not None


async def test_a_deadline_far_off_changes_nothing() -> None:
    deadline = asyncio.get_running_loop().time() + 3600
    assert (await focus_on(FakeEngine()).answer(QUESTION, deadline=deadline)).selection is Selection.LOWER_PERPLEXITY


@pytest.mark.parametrize(("threshold", "selection"), [(3.0, Selection.SKIPPED), (1.0, Selection.LOWER_PERPLEXITY)])
async def test_the_questions_own_threshold_goes_before_the_profiles(threshold: float, selection: Selection) -> None:
    engine = FakeEngine()  # its macro answer has a perplexity of e
    result = await focus_on(engine).answer(replace(QUESTION, mode=Mode.ADAPTIVE, skip_below=threshold))
    assert result.selection is selection
