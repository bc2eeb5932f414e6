"""A grounder in the place of the model's own grounding turn; on a scripted engine."""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from dualfocus_engine.families.boxes import Box
from dualfocus_engine.families.profiles import load_profile
from dualfocus_engine.grounders.grounder import BoundedGrounder
from dualfocus_engine.method.questions import Question
from dualfocus_engine.method.results import FocusResult, Mode, Selection
from dualfocus_engine.pictures.pictures import open_picture
from PIL import Image

from ..builders import CLOSING, asked, oriented, plain, turn
from ..fake_engine import WAIT, FakeEngine, focus_on

IMAGE = plain(size=(1000, 500))
QUESTION = Question((asked("What colour?\nAnswer the question using a single word or phrase.", IMAGE),))
BOX = Box(0.2, 0.2, 0.6, 0.6)


class Scripted:
    """Gives a box, an error, or what a step gives; counts what it was asked, and what of that was cancelled."""

    def __init__(self, gives: Any = BOX) -> None:
        self.gives = gives
        self.asked: list[str] = []
        self.pictures: list[Image.Image] = []
        self.cancelled = 0
        self.is_asked = asyncio.Event()

    async def locate(self, picture: Image.Image, question: str) -> Box | None:
        self.asked.append(question)
        self.pictures.append(picture)
        self.is_asked.set()
        try:
            given = await self.gives() if callable(self.gives) else self.gives
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if isinstance(given, Exception):
            raise given
        assert given is None or isinstance(given, Box)
        return given


async def for_ever() -> Box | None:
    await asyncio.Event().wait()
    raise AssertionError("unreachable")


async def answered(
    engine: FakeEngine, grounder: Scripted, question: Question = QUESTION, timeout: float | None = WAIT, **given: Any
) -> FocusResult:
    focus = focus_on(engine)
    focus._grounder = BoundedGrounder(grounder, timeout)
    async with asyncio.timeout(WAIT):
        return await focus.answer(question, **given)


async def test_its_box_is_written_in_the_models_notation_and_cropped_by_the_profile() -> None:
    engine, grounder, client = FakeEngine(), Scripted(), FakeEngine()
    result = await answered(engine, grounder)
    clients = await focus_on(client).answer(replace(QUESTION, box=BOX))
    assert (result.look.box, result.look.crop_box) == (BOX, clients.look.crop_box)
    written = engine.profile.box_format.write(BOX).removeprefix(engine.profile.box_format.opening)
    assert f"{written}{chr(CLOSING)}" in "".join(map(chr, engine.prompts["micro"].token_ids))
    assert engine.prompts["micro"].token_ids == client.prompts["micro"].token_ids
    assert sorted(engine.finished) == ["macro", "micro"]
    assert result.look.grounding is None
    assert result.selection is Selection.LOWER_PERPLEXITY
    assert set(result.stages) == {"macro", "grounder", "crop", "micro", "select"}


async def test_it_is_asked_without_options_and_hints_while_macro_runs() -> None:
    engine = FakeEngine()

    async def once_macro_runs() -> Box | None:
        await engine.has_started["macro"].wait()
        return BOX

    grounder = Scripted(once_macro_runs)
    engine.script["macro"] = engine.after("micro", turn("macro answer", 1.0))
    assert (await answered(engine, grounder)).winner == "micro"
    assert grounder.asked == ["What colour?"]


async def test_it_is_shown_the_picture_upright_and_of_bounded_size() -> None:
    photo = Image.new("RGB", (2000, 1000), (200, 30, 30))
    photo.paste((30, 30, 200), (1000, 0, 2000, 1000))
    grounder = Scripted()
    picture = open_picture(oriented(photo, 6, "PNG"))
    await answered(FakeEngine(), grounder, Question((asked("Where?", picture),)))
    (shown,) = grounder.pictures
    assert shown.size == (1333, 666)
    assert shown.mode == "RGB"
    assert np.asarray(shown)[300, [100, 1200]].tolist() == [[200, 30, 30], [30, 30, 200]]


async def test_the_clients_box_goes_before_it() -> None:
    grounder = Scripted()
    result = await answered(FakeEngine(), grounder, replace(QUESTION, box=Box(0.1, 0.1, 0.3, 0.3)))
    assert result.look.box == Box(0.1, 0.1, 0.3, 0.3)
    assert grounder.asked == []


async def test_with_one_a_model_that_can_not_ground_looks_twice() -> None:
    engine = FakeEngine()
    engine.profile = load_profile("no-grounding")
    assert (await answered(engine, Scripted())).selection is Selection.LOWER_PERPLEXITY


@pytest.mark.parametrize(
    ("gives", "selection", "told"),
    [
        (None, Selection.NO_BOX, ""),
        (ConnectionError("it is away"), Selection.GROUNDER_FAILED, "ConnectionError: it is away"),
        (TimeoutError(), Selection.GROUNDER_TIMED_OUT, ""),
        (Box(0.6, 0.2, 0.2, 0.6), Selection.GROUNDER_FAILED, "no box of shares"),
        (Box(0.2, 0.6, 0.6, 0.2), Selection.GROUNDER_FAILED, "no box of shares"),
        (Box(0.2, 0.2, math.nan, 0.6), Selection.GROUNDER_FAILED, "no box of shares"),
        (Box(0.2, 0.2, math.inf, 0.6), Selection.GROUNDER_FAILED, "no box of shares"),
        (Box(100, 100, 600, 300), Selection.GROUNDER_FAILED, "no box of shares"),
        (Box(-0.1, 0.2, 0.6, 0.6), Selection.GROUNDER_FAILED, "no box of shares"),
        (Box(0.5, 0.5, 0.5, 0.5), Selection.EMPTY_BOX, ""),
    ],
)
async def test_what_it_fails_in_leaves_macros_answer(
    gives: Any, selection: Selection, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    engine = FakeEngine()
    with caplog.at_level(logging.WARNING):
        result = await answered(engine, Scripted(gives))
    assert (result.text, result.winner, result.selection) == ("macro answer", "macro", selection)
    assert "grounding" not in engine.started
    assert "micro" not in engine.started
    assert told in caplog.text
    assert bool(told) == bool(caplog.text)


async def test_one_that_is_late_is_cancelled_and_macro_stands() -> None:
    grounder = Scripted(for_ever)
    result = await answered(FakeEngine(), grounder, timeout=0.01)
    assert (result.text, result.selection) == ("macro answer", Selection.GROUNDER_TIMED_OUT)
    assert grounder.cancelled == 1


async def test_cancelling_a_question_cancels_its_call() -> None:
    grounder = Scripted(for_ever)
    call = asyncio.create_task(answered(FakeEngine(), grounder))
    await grounder.is_asked.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert grounder.cancelled == 1


async def test_where_macro_is_enough_its_call_is_cancelled() -> None:
    grounder = Scripted(for_ever)
    engine = FakeEngine()
    engine.script["macro"] = _once(grounder)
    question = replace(QUESTION, mode=Mode.ADAPTIVE, skip_below=99.0)
    assert (await answered(engine, grounder, question)).selection is Selection.SKIPPED
    assert grounder.cancelled == 1


def _once(grounder: Scripted) -> Callable[[], Awaitable[Any]]:
    async def step() -> Any:
        await grounder.is_asked.wait()
        return turn("macro answer", mean_nll=0.1)

    return step


async def test_in_mode_micro_its_failure_is_answered_by_macro() -> None:
    result = await answered(FakeEngine(), Scripted(ConnectionError()), replace(QUESTION, mode=Mode.MICRO))
    assert (result.text, result.selection) == ("macro answer", Selection.GROUNDER_FAILED)
