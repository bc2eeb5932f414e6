"""When an engine counts as ready, as busy and as dead."""

import asyncio
from typing import Any

import pytest
from dualfocus_engine import EngineDead
from dualfocus_server.guards.refusals import EngineBusy
from dualfocus_server.startup import lifecycle
from dualfocus_server.startup.lifecycle import check_ready, engine_failure


class StubEngine:
    """An engine that says of itself what a test wants; `answers` is whether a call to its process returns."""

    def __init__(self, unfinished: int = 0, silence: float = 0.0, answers: bool = True, is_dead: bool = False) -> None:
        self.unfinished = unfinished
        self.answers = answers
        self.is_dead = is_dead
        self.looks = asyncio.Semaphore(0)
        self.asked = 0
        self._silence = silence

    @property
    def silence(self) -> float:
        """Like the engine's own, it counts while there is work."""
        self.looks.release()
        return self._silence if self.unfinished else 0.0

    async def check_health(self) -> None:
        self.asked += 1
        if self.is_dead:
            raise EngineDead
        if not self.answers:
            await asyncio.Event().wait()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "_ANSWER_WITHIN", 0.01)
    monkeypatch.setattr(lifecycle, "_LOOK_EVERY", 0.001)


@pytest.mark.parametrize(
    ("state", "raised"),
    [
        ({}, None),
        ({"unfinished": 2, "silence": 50.0}, None),
        pytest.param({"unfinished": 2, "silence": 50.0, "answers": False}, None, id="in a step that takes long"),
        pytest.param({"unfinished": 2, "silence": 61.0}, None, id="silent, but it answers"),
        ({"unfinished": 2, "silence": 61.0, "answers": False}, EngineBusy),
        pytest.param({"answers": False}, EngineBusy, id="hung without work"),
        ({"is_dead": True}, EngineDead),
        ({"is_dead": True, "unfinished": 2, "silence": 1.0}, EngineDead),
    ],
)
async def test_ready(state: dict[str, Any], raised: type[Exception] | None) -> None:
    engine: Any = StubEngine(**state)
    if raised is None:
        await check_ready(engine, 60)
    else:
        with pytest.raises(raised):
            await check_ready(engine, 60)


async def test_where_no_silence_is_too_long_the_engine_is_asked() -> None:
    engine: Any = StubEngine(unfinished=1, silence=5.0)
    await check_ready(engine, 0)
    assert engine.asked == 1


def test_busy_is_not_told_as_dead() -> None:
    assert (EngineBusy().status, EngineBusy().code) == (503, "engine_busy")


@pytest.mark.parametrize(
    ("state", "why"),
    [
        ({"is_dead": True}, "The engine's process has ended."),
        ({"unfinished": 1, "silence": 61.0, "answers": False}, "The engine has work and made no step for 61 s."),
    ],
)
async def test_an_engine_that_failed_is_told(state: dict[str, Any], why: str) -> None:
    engine: Any = StubEngine(**state)
    assert await asyncio.wait_for(engine_failure(engine, 60), 30) == why


@pytest.mark.parametrize(
    ("state", "timeout"),
    [
        ({}, 60),
        pytest.param({"silence": 1e6, "answers": False}, 60, id="long without work"),
        ({"unfinished": 1, "silence": 59.0, "answers": False}, 60),
        pytest.param({"unfinished": 1, "silence": 61.0}, 60, id="silent, but it answers"),
        pytest.param({"unfinished": 1, "silence": 1e6, "answers": False}, 0, id="never dead"),
    ],
)
async def test_an_engine_that_works_is_not_taken_for_dead(state: dict[str, Any], timeout: float) -> None:
    engine: Any = StubEngine(**state)
    watching = asyncio.create_task(engine_failure(engine, timeout))
    for _ in range(5):
        await engine.looks.acquire()
    assert not watching.done()
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching
