"""Starting, warming up and stopping; on a scripted engine."""

import threading
from typing import Any

import pytest
from dualfocus_engine.errors import ConfigError, ContextFull
from dualfocus_engine.focus import DualFocus
from dualfocus_engine.method.questions import Question
from dualfocus_engine.pictures.pictures import Picture
from PIL import Image

from ..builders import asked, plain
from ..fake_engine import FakeEngine, boxed, focus_on

IMAGE = plain(size=(1000, 500))
QUESTION = Question((asked("What colour?\nAnswer the question using a single word or phrase.", IMAGE),))


async def test_warming_up_runs_every_turn_even_where_the_model_writes_no_box() -> None:
    engine = FakeEngine(grounding=boxed("no box"))
    await focus_on(engine).warm_up()
    assert set(engine.finished) == {"macro", "grounding", "micro"}


async def test_warming_up_asks_every_rank() -> None:
    engine = FakeEngine()
    engine.ranks = 3
    await focus_on(engine).warm_up()
    assert engine.finished.count("macro") == engine.finished.count("grounding") == 3


def test_engine_must_be_started_first() -> None:
    with pytest.raises(RuntimeError, match="not running"):
        _ = DualFocus("no-such-model", "paper").engine


@pytest.mark.parametrize("failing", [ContextFull(2, 1), RuntimeError("two images are too many")])
async def test_warming_up_says_where_no_question_could_be_looked_at_twice(failing: Exception) -> None:
    with pytest.raises(ConfigError, match=r"'\{\"image\": 2\}'.*--max-model-len.*--chat-template"):
        await focus_on(FakeEngine(micro=failing)).warm_up()


async def test_engine_that_can_not_be_warmed_up_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = FakeEngine(micro=ContextFull(2, 1))
    focus = focus_on(engine)
    monkeypatch.setattr(focus, "start", lambda: None)
    with pytest.raises(ConfigError):
        await focus.__aenter__()
    assert engine.stopped


async def test_pictures_are_opened_off_the_event_loop(monkeypatch: pytest.MonkeyPatch, coffee: Image.Image) -> None:
    opened_in: list[int] = []
    engine = FakeEngine()
    opening = engine.pictures.open

    def noted(*given: Any) -> Picture:
        opened_in.append(threading.get_ident())
        return opening(*given)

    monkeypatch.setattr(engine.pictures, "open", noted)
    await focus_on(engine).ask(coffee, "What is it?")
    assert opened_in != [threading.get_ident()]


async def test_leaving_the_context_stops_the_engine() -> None:
    engine = FakeEngine()
    await focus_on(engine).__aexit__(None, None, None)
    assert engine.stopped
