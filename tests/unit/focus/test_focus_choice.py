"""How much a question is looked at, and how its answers are compared: adaptive mode and shared scoring."""

import asyncio
import math
from dataclasses import replace

import pytest
from dualfocus_engine.method.questions import Question
from dualfocus_engine.method.results import FocusResult, Mode, Scoring, Selection, Turn

from ..builders import CLOSING, asked, plain, turn
from ..fake_engine import WAIT, FakeEngine, Script, boxed, focus_on, never

IMAGE = plain(size=(1000, 500))
QUESTION = Question((asked("What colour?\nAnswer the question using a single word or phrase.", IMAGE),))


async def _answered(engine: FakeEngine, question: Question = QUESTION) -> FocusResult:
    async with asyncio.timeout(WAIT):
        return await focus_on(engine).answer(question)


ADAPTIVE = replace(QUESTION, mode=Mode.ADAPTIVE)


@pytest.mark.parametrize(
    ("script", "ended"),
    [({"grounding": never}, ["grounding"]), ({"micro": never, "macro": turn("red", 0.2)}, ["micro"])],
)
async def test_sure_macro_answer_ends_the_second_look(script: dict[str, Script], ended: list[str]) -> None:
    engine = FakeEngine(**script)
    engine.script["macro"] = engine.after(ended[0], turn("red", mean_nll=0.2))
    result = await _answered(engine, ADAPTIVE)
    assert (result.text, result.winner, result.selection) == ("red", "macro", Selection.SKIPPED)
    assert engine.cancelled == ended
    assert set(result.turns) == {"macro"}


@pytest.mark.parametrize("macro", [turn("red", mean_nll=0.8), turn(" ", mean_nll=0.0)])
async def test_macro_answer_that_leaves_doubt_is_looked_at_again(macro: Turn) -> None:
    engine = FakeEngine(macro=macro)
    result = await _answered(engine, ADAPTIVE)
    assert (result.winner, engine.cancelled) == ("micro", [])
    assert set(result.turns) == {"macro", "grounding", "micro"}


@pytest.mark.parametrize(("threshold", "winner"), [(0.0, "micro"), (1.5, "micro"), (1.51, "macro"), (3.0, "macro")])
async def test_threshold_is_a_perplexity_of_the_profiles(threshold: float, winner: str) -> None:
    engine = FakeEngine(grounding=never)
    engine.profile = engine.profile.model_copy(update={"skip_below_perplexity": threshold})
    engine.script["macro"] = turn("red", mean_nll=math.log(1.505))
    if winner == "micro":
        engine.script["grounding"] = boxed("[0.20, 0.20, 0.60, 0.60]")
        engine.script["micro"] = turn("blue", mean_nll=0.0)
    result = await _answered(engine, ADAPTIVE)
    assert (result.winner, result.selection is Selection.SKIPPED) == (winner, winner == "macro")


async def test_second_look_that_is_done_first_is_compared() -> None:
    engine = FakeEngine()
    focus, finished = focus_on(engine), asyncio.Event()

    async def late() -> Turn:
        await finished.wait()
        return turn("red", mean_nll=0.6)

    engine.script["macro"] = late
    call = asyncio.create_task(focus.answer(ADAPTIVE))
    async with asyncio.timeout(WAIT):
        while "micro" not in engine.finished:  # noqa: ASYNC110 (it is no event)
            await asyncio.sleep(0)
    await asyncio.sleep(0)
    finished.set()
    result = await call
    assert (result.winner, result.selection) == ("micro", Selection.LOWER_PERPLEXITY)


SHARED = replace(QUESTION, scoring=Scoring.SHARED)
CHOICE = replace(SHARED, messages=(asked("Which?\nA. a red cup\nB. a blue cup", IMAGE),))


async def test_shared_scoring_compares_both_answers_under_one_prompt() -> None:
    engine = FakeEngine()  # its micro answer has the lower perplexity under its own turn
    result = await _answered(engine, SHARED)
    assert (result.winner, result.selection) == ("macro", Selection.LOWER_PERPLEXITY)
    assert result.shared is not None
    assert (result.shared.macro.mean_nll, result.shared.micro.mean_nll) == (0.1, 0.2)
    prompt, micro = engine.prompts["macro-score"], engine.prompts["micro"]
    assert prompt == engine.prompts["micro-score"]
    text = "".join(map(chr, prompt.token_ids[1:]))
    assert text.endswith(
        "combine the information from these two images and answer this question: What colour?\n"
        "Answer the question using a single word or phrase;"
    )
    shared = len(engine.prompts["grounding"].token_ids) + len("[0.20, 0.20, 0.60, 0.60]")
    assert prompt.token_ids[:shared] == micro.token_ids[:shared]
    assert prompt.pictures == micro.pictures
    assert engine.scored == {"macro": [11, 12, CLOSING], "micro": [11, 12, CLOSING]}


async def test_shared_scoring_takes_an_options_text_for_its_letter() -> None:
    engine = FakeEngine(macro=turn("A"), micro=turn("B. a blue cup"))
    assert (await _answered(engine, CHOICE)).winner == "macro"
    assert engine.scored == {
        "macro": [*map(ord, "a red cup"), CLOSING],
        "micro": [*map(ord, "a blue cup"), CLOSING],
    }


@pytest.mark.parametrize(("macro", "micro", "winner"), [("A", "the cup", "macro"), ("a cup", "(B)", "micro")])
async def test_answer_that_names_an_option_goes_before_one_that_names_none(macro: str, micro: str, winner: str) -> None:
    engine = FakeEngine(macro=turn(macro), micro=turn(micro))
    result = await _answered(engine, CHOICE)
    assert (result.winner, result.selection, engine.scored) == (winner, Selection.ONLY_OPTION, {})
    assert (await _answered(engine, replace(CHOICE, scoring=Scoring.OWN))).selection is Selection.LOWER_PERPLEXITY


async def test_answers_that_can_not_be_scored_together_are_compared_apart() -> None:
    engine = FakeEngine()
    engine.scores["macro"] = None
    result = await _answered(engine, SHARED)
    assert (result.winner, result.shared) == ("micro", None)


async def test_an_answer_that_only_its_grammar_scored_is_compared_with_none_that_the_model_did() -> None:
    masked = replace(turn("blue", mean_nll=0.01), is_masked=True)
    engine = FakeEngine(macro=replace(turn("red", mean_nll=0.2), rescored=True), micro=masked)
    engine.scores["macro"] = None
    for scoring in Scoring:
        result = await _answered(engine, replace(QUESTION, scoring=scoring))
        assert (result.winner, result.selection) == ("macro", Selection.CONTEXT_FULL)


async def test_nothing_is_scored_where_one_answer_stands() -> None:
    engine = FakeEngine(grounding=boxed("nothing"))
    assert (await _answered(engine, SHARED)).selection is Selection.NO_BOX
    await _answered(engine, replace(SHARED, mode=Mode.MACRO))
    assert engine.scored == {}
