"""When an engine counts as ready, as busy and as dead."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import pytest
from dualfocus_engine import EngineDead
from dualfocus_server.guards import watchdog
from dualfocus_server.guards.http_errors import EngineBusy
from dualfocus_server.guards.watchdog import Watchdog

from ..fake_engine import WAIT


class StubEngine:
    """An engine that says of itself what a test wants; `answers` is whether a call to its process returns.

    Its work is rank 0's, unless `ranks` says how long each has been silent that has some.
    """

    def __init__(
        self,
        unfinished: int = 0,
        silence: float = 0.0,
        answers: bool = True,
        is_dead: bool = False,
        ranks: Mapping[int, float] | None = None,
    ) -> None:
        self.unfinished = unfinished
        self.answers = answers
        self.is_dead = is_dead
        self.polls = asyncio.Semaphore(0)
        self.asked = 0
        self._silences = {0: silence} if ranks is None else ranks

    @property
    def busy_ranks(self) -> set[int]:
        self.polls.release()
        return set(self._silences) if self.unfinished else set()

    def last_step(self, rank: int) -> float:
        return time.monotonic() - self._silences[rank]

    async def check_health(self) -> None:
        self.asked += 1
        if self.is_dead:
            raise EngineDead
        if not self.answers:
            await asyncio.Event().wait()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "_HEALTH_TIMEOUT_S", 0.01)
    monkeypatch.setattr(watchdog, "_POLL_INTERVAL_S", 0.001)


def watching(engine: Any, timeout: float) -> Watchdog:
    """A watchdog that saw the work begin before any of the silences here."""
    dog = Watchdog(engine, timeout)
    dog._busy_since = dict.fromkeys(engine.busy_ranks, -1e7)
    return dog


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
    dog = watching(StubEngine(**state), 60)
    if raised is None:
        await dog.check_ready()
    else:
        with pytest.raises(raised):
            await dog.check_ready()


async def test_where_no_silence_is_too_long_the_engine_is_asked() -> None:
    engine = StubEngine(unfinished=1, silence=5.0)
    await watching(engine, 0).check_ready()
    assert engine.asked == 1


def test_busy_is_not_told_as_dead() -> None:
    assert (EngineBusy().status, EngineBusy().code) == (503, "engine_busy")


@pytest.mark.parametrize(
    ("state", "why"),
    [
        ({"is_dead": True}, "The engine's process has ended."),
        ({"unfinished": 1, "silence": 61.0, "answers": False}, "The engine has work and made no step for 61 s."),
        pytest.param(
            {"unfinished": 9, "ranks": {0: 0.0, 1: 62.0, 3: 1.0}, "answers": False},
            "The engine has work and made no step for 62 s.",
            id="one of several ranks",
        ),
    ],
)
async def test_an_engine_that_failed_is_told(state: dict[str, Any], why: str) -> None:
    assert await asyncio.wait_for(watching(StubEngine(**state), 60).until_failure(), WAIT) == why


async def test_silence_counts_from_when_work_was_first_seen() -> None:
    engine = StubEngine(silence=1e6, answers=False)
    dog = watching(engine, 60)
    with pytest.raises(EngineBusy):
        await dog.check_ready()  # polled once while idle
    engine.unfinished = 1
    await dog.check_ready()
    assert engine.asked == 1, "its last step is long ago, its work has only begun"


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
    engine = StubEngine(**state)
    failing = asyncio.create_task(watching(engine, timeout).until_failure())
    for _ in range(5):
        await engine.polls.acquire()
    assert not failing.done()
    failing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await failing
