"""Admission control: how many questions run, how many wait, and that no one client takes all slots."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from dualfocus_engine.method.stages import Stages

from dualfocus_server.guards.http_errors import TooBusy


class Slot:
    """An admitted question's place in the queue, released when the question ends."""

    def __init__(self, running: asyncio.Semaphore, check: Callable[[], None], stages: Stages) -> None:
        self._running = running
        self._check = check
        self._stages = stages
        self.is_running = False

    async def acquire(self) -> None:
        """Wait until the question may run (the stage queue). Raises what the admission was ended with."""
        with self._stages.time("queue"):
            await self._running.acquire()
        self.is_running = True
        self._check()

    def release(self) -> None:
        """Let the next question run; idempotent."""
        if self.is_running:
            self.is_running = False
            self._running.release()


class Admission:
    """Admits whole questions: none of an admitted question's turns is ever refused.

    `running` at once, `queued` more waiting to run, `per_client` of both for any one client (0: no limit).
    A client is its API key, or everybody where none is needed.
    """

    def __init__(self, running: int, queued: int, per_client: int = 0) -> None:
        self._running = asyncio.Semaphore(running)
        self._places = running
        self._kept = 0  # of the places: by `alone`
        self._alone = asyncio.Lock()
        self.is_asleep = False
        self._limit = running + queued
        self._per_client = per_client
        self._clients: Counter[str] = Counter()
        self._slots: set[Slot] = set()
        self._empty = asyncio.Event()
        self._empty.set()
        self.closed: Exception | None = None
        self._ended: Exception | None = None

    @property
    def admitted(self) -> int:
        """Questions running and waiting."""
        return len(self._slots)

    @property
    def active(self) -> int:
        """Questions running."""
        return sum(slot.is_running for slot in self._slots)

    @contextmanager
    def admit(self, client: str, stages: Stages) -> Iterator[Slot]:
        """Hold a slot for one question. Raises TooBusy, or what the admission was closed with."""
        self._check(client)
        slot = Slot(self._running, self._check_ended, stages)
        self._slots.add(slot)
        self._clients[client] += 1
        self._empty.clear()
        try:
            yield slot
        finally:
            slot.release()
            self._slots.remove(slot)
            self._forget(client)

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Wait until no question runs, and let none begin within; where `is_asleep` is set then, nor after it."""
        async with self._alone:
            try:
                while self._kept < self._places:
                    await self._running.acquire()
                    self._kept += 1
                yield
            finally:
                while self._kept and not self.is_asleep:
                    self._running.release()
                    self._kept -= 1

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
            raise self._ended

    def _check(self, client: str) -> None:
        if self.closed is not None:
            raise self.closed
        # First what is the client's own doing: others' leaving would not help it.
        if self._per_client and self._clients[client] >= self._per_client:
            raise TooBusy(f"{self._per_client} questions of yours are running or waiting, which is all one client may")
        if self.admitted >= self._limit:
            raise TooBusy(f"{self.admitted} questions are running or waiting, which is all the server takes")

    def _forget(self, client: str) -> None:
        self._clients[client] -= 1
        if not self._clients[client]:
            del self._clients[client]
        if not self._clients:
            self._empty.set()
