"""Other places, where the second look leaves doubt; on a scripted engine."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from dualfocus_engine.errors import BadQuestion, EngineDead
from dualfocus_engine.families.boxes import Box
from dualfocus_engine.method.questions import Question
from dualfocus_engine.method.results import Ending, FocusResult, Mode, Selection, Turn
from vllm import SamplingParams

from ..builders import asked, plain, turn
from ..fake_engine import WAIT, FakeEngine, Script, boxed, focus_on, time_is_up

IMAGE = plain(size=(2000, 2000))
QUESTION = Question((asked("What does the label say?", IMAGE),), candidates=3)
# The scripted engine's first box; two elsewhere, and one that has more than half in common with the first.
FIRST, OTHER, THIRD = Box(0.2, 0.2, 0.6, 0.6), boxed("[0.70, 0.10, 0.90, 0.30]"), boxed("[0.10, 0.70, 0.30, 0.90]")
NEAR = boxed("[0.25, 0.25, 0.60, 0.60]")
# In nats a token: Eq. 7 makes 7.4 and 1.1 of them, the threshold is 2.01.
DOUBT, SURE = 2.0, 0.1


def _engine(*boxes: Script, **script: Script) -> FakeEngine:
    drawn = {f"grounding-{number}": box for number, box in enumerate(boxes, 2)}
    answers = {f"micro-{number}": turn(f"answer {number}", DOUBT) for number in range(2, 5)}
    first = {"macro": turn("whole", DOUBT), "micro": turn("part", DOUBT)}
    return FakeEngine(
        **{**first, **drawn, **answers, **{name.replace("_", "-"): step for name, step in script.items()}}
    )


async def _answered(engine: FakeEngine, question: Question = QUESTION, **options: Any) -> FocusResult:
    async with asyncio.timeout(WAIT):
        return await focus_on(engine).answer(question, **options)


async def test_in_doubt_other_places_are_looked_at_from_the_first_grounding_turn() -> None:
    engine = _engine(OTHER, THIRD, micro_3=turn("42", SURE))
    result = await _answered(engine)
    assert (result.text, result.winner, result.ending) == ("42", "micro", Ending.SURE)
    assert [look.box for look in result.looks] == [FIRST, Box(0.7, 0.1, 0.9, 0.3), Box(0.1, 0.7, 0.3, 0.9)]
    drawn = [engine.prompts[f"grounding{suffix}"].token_ids for suffix in ("", "-2", "-3")]
    assert drawn[0] == drawn[1] == drawn[2], "one prefill"
    assert len(engine.template_kwargs) == 2, "macro's prompt and this one are rendered, each once"
    for suffix in ("-2", "-3"):
        assert engine.prompts[f"micro{suffix}"].token_ids[: len(drawn[0])] == drawn[0]
        assert len(engine.prompts[f"micro{suffix}"].pictures) == 2


async def test_they_are_looked_at_in_one_batch() -> None:
    engine = _engine(OTHER, THIRD)
    engine.script["grounding-2"] = engine.after("grounding-3", OTHER)
    engine.script["micro-2"] = engine.after("micro-3", turn("answer 2", DOUBT))
    engine.script["micro-3"] = engine.after("micro-2", turn("answer 3", DOUBT))
    assert (await _answered(engine)).ending is Ending.NO_OTHER_PLACE


@pytest.mark.parametrize(
    ("boxes", "failed"),
    [
        ((NEAR, OTHER), [None, Selection.SAME_PLACE, None]),
        ((OTHER, OTHER), [None, None, Selection.SAME_PLACE]),
        ((boxed("nowhere"), RuntimeError("broken")), [None, Selection.NO_BOX, Selection.MICRO_FAILED]),
    ],
)
async def test_what_has_half_in_common_with_another_or_is_no_place_gets_no_answer(
    boxes: tuple[Script, Script], failed: list[Selection | None]
) -> None:
    engine = _engine(*boxes)
    result = await _answered(engine)
    assert [look.failed for look in result.looks] == failed
    answered = [f"micro-{number}" for number in (2, 3) if failed[number - 1] is None]
    assert [name for name in engine.started if name.startswith("micro-")] == answered


@pytest.mark.parametrize("sure", ["macro", "micro"])
async def test_where_an_answer_is_sure_no_box_is_drawn(sure: str) -> None:
    engine = _engine(OTHER, THIRD, **{sure: turn("42", SURE)})
    assert (await _answered(engine)).ending is Ending.SURE
    assert "grounding-2" not in engine.started


@pytest.mark.parametrize(("seed", "drawn"), [(None, (0, 1)), (7, (7, 8))])
async def test_boxes_are_drawn_with_seeds_that_follow_each_other(seed: int | None, drawn: tuple[int, int]) -> None:
    engine = _engine(OTHER, THIRD)
    await _answered(engine, replace(QUESTION, sampling=SamplingParams(seed=seed)))
    samplings = [engine.samplings[name] for name in ("grounding", "grounding-2", "grounding-3")]
    assert samplings == ["grounding sampling", *(f"grounding sampling drawn by {each}" for each in drawn)]


async def test_a_search_goes_deeper_from_the_best_of_the_places() -> None:
    engine = _engine(OTHER, boxed("[0.00, 0.00, 0.50, 0.50]"), micro_2=turn("better", 1.5), micro_3=turn("42", SURE))
    result = await _answered(engine, replace(QUESTION, mode=Mode.SEARCH, candidates=2))
    assert (result.text, result.ending) == ("42", Ending.SURE)
    deeper, before = engine.prompts["grounding-3"], engine.prompts["grounding-2"]
    opening = before.token_ids + OTHER.token_ids
    assert deeper.token_ids[: len(opening)] == opening
    assert deeper.pictures == engine.prompts["micro-2"].pictures


async def test_a_search_takes_no_more_looks_than_it_may() -> None:
    engine = _engine(OTHER)
    result = await _answered(engine, replace(QUESTION, mode=Mode.SEARCH, max_looks=3))
    assert (len(result.looks), result.ending) == (2, Ending.MAX_LOOKS)


async def test_at_the_deadline_the_finished_places_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = _engine(OTHER, THIRD, micro_2=turn("better", 1.5))
    up = time_is_up(monkeypatch)

    async def behind_the_other() -> Turn:
        await engine.has_started["micro-2"].wait()
        await asyncio.sleep(0.5)  # it has its answer, and needs a few turns of the loop to give it
        return await up()

    engine.script["micro-3"] = behind_the_other
    result = await _answered(engine, deadline=asyncio.get_running_loop().time() + WAIT)
    assert (result.text, result.ending) == ("better", Ending.TIMED_OUT)
    assert [look.failed for look in result.looks] == [None, None, Selection.TIMED_OUT]
    assert engine.cancelled == ["micro-3"]


async def test_an_engine_that_died_ends_the_question() -> None:
    with pytest.raises(EngineDead):
        await _answered(_engine(OTHER, EngineDead()))


@pytest.mark.parametrize(
    "options", [{"mode": Mode.MACRO}, {"mode": Mode.MICRO}, {"mode": Mode.REGIONS}, {"box": FIRST}], ids=str
)
def test_where_no_other_box_can_be_drawn_the_request_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(BadQuestion, match="drawn in the modes dual, search, adaptive, and without a box") as refused:
        replace(QUESTION, **options)
    assert refused.value.param == "dualfocus.candidates"
