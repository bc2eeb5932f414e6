"""The places that questions have: how many run, how many wait, and that no one client takes all."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from dualfocus_server.guards.http_errors import TooBusy


class OwnPlace:
    """One question's place among those that are counted in this process."""

    def __init__(self, places: "OwnPlaces", client: str) -> None:
        self._places = places
        self.client = client
        self.is_running = False

    async def begin(self) -> None:
        """Wait until the question may run."""
        await self._places.running.acquire()
        self.is_running = True

    def leave(self) -> None:
        """Let the next question in; idempotent."""
        if self.is_running:
            self.is_running = False
            self._places.running.release()
        self._places.forget(self)


class OwnPlaces:
    """Places for whole questions: `running` at once, `queued` more waiting, `per_client` of both (0: no limit).

    A client is its API key, or everybody where none is needed. Those that wait run in the order in which they came.
    """

    def __init__(self, running: int, queued: int, per_client: int = 0) -> None:
        self.running = asyncio.Semaphore(running)
        self._places = running
        self._kept = 0  # of the places: by `alone`
        self._alone = asyncio.Lock()
        self.is_asleep = False
        self._limit = running + queued
        self._per_client = per_client
        self._held: set[OwnPlace] = set()
        self._clients: Counter[str] = Counter()

    @property
    def counts(self) -> tuple[int, int]:
        """Questions running, and waiting."""
        running = sum(place.is_running for place in self._held)
        return running, len(self._held) - running

    async def enter(self, client: str) -> OwnPlace:
        """Hold a place, to run or to wait. Raises TooBusy."""
        if (why := self.refusal(client)) is not None:
            raise TooBusy(why)
        place = OwnPlace(self, client)
        self._held.add(place)
        self._clients[client] += 1
        return place

    def refusal(self, client: str) -> str | None:
        """Say why a client gets no place just now; None where it gets one."""
        # First what is the client's own doing: others' leaving would not help it.
        if self._per_client and self._clients[client] >= self._per_client:
            return f"{self._per_client} questions of yours are running or waiting, which is all one client may"
        if len(self._held) >= self._limit:
            return f"{len(self._held)} questions are running or waiting, which is all the server takes"
        return None

    def forget(self, place: OwnPlace) -> None:
        """Count a place no longer; idempotent."""
        if place not in self._held:
            return
        self._held.remove(place)
        self._clients[place.client] -= 1
        if not self._clients[place.client]:
            del self._clients[place.client]

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Wait until no question runs, and let none begin within; where `is_asleep` is set then, nor after it."""
        async with self._alone:
            try:
                while self._kept < self._places:
                    await self.running.acquire()
                    self._kept += 1
                yield
            finally:
                while self._kept and not self.is_asleep:
                    self.running.release()
                    self._kept -= 1

    async def load(self) -> int:
        """Return how many questions run or wait."""
        return len(self._held)
