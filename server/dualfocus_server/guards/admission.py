"""Admission control: whole questions are let in while there are places, and none once the server stops."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol, Self

from dualfocus_engine.method.stages import Stages


class Place(Protocol):
    """A question's place, to run or to wait."""

    async def begin(self) -> None:
        """Wait until the question may run."""

    def leave(self) -> None:
        """Let the next question in; idempotent."""


class Places(Protocol):
    """Where places are counted: `OwnPlaces` in this process, or in another where several answer requests."""

    is_asleep: bool

    async def enter(self, client: str) -> Place:
        """Hold a place, to run or to wait. Raises TooBusy."""

    def alone(self) -> AbstractAsyncContextManager[None]:
        """Wait until no question runs, and let none begin within; where `is_asleep` is set then, nor after it."""

    async def load(self) -> int:
        """Return how many questions run or wait."""


class Slot:
    """An admitted question, which holds a place until it ends."""

    def __init__(self, stages: Stages, check: Callable[[], None], on_end: Callable[["Slot"], None]) -> None:
        self.place: Place | None = None
        self._stages = stages
        self._check = check
        self._on_end = on_end

    async def acquire(self) -> None:
        """Wait until the question may run (the stage queue). Raises what the admission was ended with."""
        assert self.place is not None
        with self._stages.time("queue"):
            await self.place.begin()
        self._check()

    def release(self) -> None:
        """Let the next question in; idempotent."""
        if self.place is not None:
            self.place.leave()
        self._on_end(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()


class Admission:
    """Admits whole questions: none of an admitted question's turns is ever refused."""

    def __init__(self, places: Places) -> None:
        self.places = places
        self._slots: set[Slot] = set()
        self._empty = asyncio.Event()
        self._empty.set()
        self.closed: Exception | None = None
        self._ended: Exception | None = None

    @property
    def admitted(self) -> int:
        """Questions of this process, running and waiting."""
        return len(self._slots)

    async def admit(self, client: str, stages: Stages) -> Slot:
        """Return a question's slot, held until it is left. Raises TooBusy, or what the admission was closed with."""
        if self.closed is not None:
            raise _anew(self.closed)
        slot = Slot(stages, self._check_ended, self._forget)
        self._slots.add(slot)  # at once: who drains waits for it
        self._empty.clear()
        try:
            slot.place = await self.places.enter(client)
        except BaseException:
            self._forget(slot)
            raise
        return slot

    def close(self, why: Exception) -> None:
        """Take no new questions from now on: `why` is raised for each."""
        self.closed = self.closed or why

    def end(self, why: Exception) -> None:
        """Take no new questions, and begin none of those that wait: `why` is raised for each."""
        self.close(why)
        self._ended = why

    async def emptied(self) -> None:
        """Wait until no question is left."""
        await self._empty.wait()

    def _check_ended(self) -> None:
        if self._ended is not None:
            raise _anew(self._ended)

    def _forget(self, slot: Slot) -> None:
        self._slots.discard(slot)
        if not self._slots:
            self._empty.set()


def _anew(error: Exception) -> Exception:
    """Return an error without the frames that it was raised in before: they hold whole requests."""
    return error.with_traceback(None)
