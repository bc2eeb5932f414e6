"""Places that are counted in one process for the questions of all: limits and the queue hold over them together."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from itertools import count

from dualfocus_server.guards.http_errors import TooBusy
from dualfocus_server.guards.places import OwnPlace, OwnPlaces
from dualfocus_server.startup.several.channel import Channel


class LentPlaces:
    """In the parent: the places that the questions of one process hold; `tell_all` is how all hear of its sleep."""

    def __init__(self, places: OwnPlaces, channel: Channel, tell_all: Callable[..., None]) -> None:
        self._places = places
        self._channel = channel
        self._tell_all = tell_all
        self._held: dict[int, OwnPlace] = {}
        self._waiting: dict[int, asyncio.Task[None]] = {}
        self._alone: asyncio.Task[None] | None = None
        channel.answers |= {
            "enter": self._enter,
            "leave": self._leave,
            "alone": self._hold_all,
            "together": self._let_go,
            "load": places.load,
        }

    async def _enter(self, number: int, client: str) -> tuple[str | None, bool]:
        """Return why a question gets no place; else whether it may run at once. It is told later where it may not."""
        if (why := self._places.refusal(client)) is not None:
            return why, False
        place = self._held[number] = await self._places.enter(client)
        if self._places.running.locked():
            self._waiting[number] = asyncio.create_task(self._begin(number, place))
        else:
            await place.begin()
        return None, place.is_running

    async def _begin(self, number: int, place: OwnPlace) -> None:
        await place.begin()
        del self._waiting[number]
        self._channel.tell("begin", number)

    async def _leave(self, number: int) -> None:
        if (waiting := self._waiting.pop(number, None)) is not None:
            waiting.cancel()
        if (place := self._held.pop(number, None)) is not None:
            place.leave()

    async def _hold_all(self) -> bool:
        """Return, once no question runs in any process, whether the engine sleeps."""
        reached = asyncio.Event()
        self._alone = asyncio.create_task(self._stay_alone(reached))
        await reached.wait()
        return self._places.is_asleep

    async def _stay_alone(self, reached: asyncio.Event) -> None:
        try:
            async with self._places.alone():
                reached.set()
                await asyncio.Event().wait()  # until `_let_go`
        finally:
            reached.set()

    async def _let_go(self, is_asleep: bool | None) -> None:
        """Let questions run again; None where who asked has left before there were none."""
        if is_asleep is not None:
            self._places.is_asleep = is_asleep
            self._tell_all("asleep", is_asleep)
        if self._alone is not None:
            self._alone.cancel()


class RemotePlace:
    """In a process that answers requests: one question's place, which the parent counts."""

    def __init__(self, may_run: asyncio.Event, leave: Callable[[], None]) -> None:
        self._may_run = may_run
        self._leave = leave

    async def begin(self) -> None:
        """Wait until the question may run."""
        await self._may_run.wait()

    def leave(self) -> None:
        """Let the next question in; idempotent."""
        self._leave()


class RemotePlaces:
    """In a process that answers requests: places that the parent counts (`LentPlaces`)."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._numbers = count()
        self._may_run: dict[int, asyncio.Event] = {}
        self._one_alone = asyncio.Lock()
        self.is_asleep = False
        channel.answers |= {"begin": self._begin, "asleep": self._note_sleep}

    async def enter(self, client: str) -> RemotePlace:
        """Hold a place, to run or to wait. Raises TooBusy."""
        number, may_run = next(self._numbers), asyncio.Event()
        self._may_run[number] = may_run
        try:
            why, may_run_at_once = await self._channel.ask("enter", number, client)
        except BaseException:
            self._leave(number)
            raise
        if why is not None:
            del self._may_run[number]
            raise TooBusy(why)
        if may_run_at_once:
            may_run.set()
        return RemotePlace(may_run, partial(self._leave, number))

    def give_up(self) -> None:
        """Let all that wait begin: nobody counts places any more, and each is to hear that the engine is lost."""
        for may_run in self._may_run.values():
            may_run.set()

    def _begin(self, number: int) -> None:
        if (may_run := self._may_run.get(number)) is not None:
            may_run.set()

    def _note_sleep(self, is_asleep: bool) -> None:
        self.is_asleep = is_asleep

    def _leave(self, number: int) -> None:
        if self._may_run.pop(number, None) is not None:
            self._channel.tell("leave", number)

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Wait until no question runs in any process; none begins within, nor after it where `is_asleep` is set."""
        async with self._one_alone:
            is_alone = False
            try:
                self.is_asleep = await self._channel.ask("alone")
                is_alone = True
                yield
            finally:
                self._channel.tell("together", self.is_asleep if is_alone else None)

    async def load(self) -> int:
        """Return how many questions run or wait in all processes."""
        return int(await self._channel.ask("load"))
