"""Answers as server-sent events: made by a task, read by a client, with something to read while nothing comes.

Leans on vLLM 0.32's `SSE_KEEP_ALIVE_COMMENT`.
"""

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import ExitStack, suppress
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send
from vllm.entrypoints.serve.utils.sse_keep_alive import SSE_KEEP_ALIVE_COMMENT

from dualfocus_server.guards.api_errors import ApiError, to_api_error
from dualfocus_server.guards.http_errors import CLIENT_LEFT
from dualfocus_server.telemetry.metrics import record_failure

logger = logging.getLogger(__name__)

COMMENT: str = SSE_KEEP_ALIVE_COMMENT
# Proxies cut connections on which nothing comes, some of them after 30 s.
_LONGEST_SILENCE_S = 15.0
# An answer of many choices with their log-probabilities is hundreds of megabytes of events.
_MOST_UNREAD = 256


class Silence:
    """What a client is sent while nothing else comes.

    A piece every `_LONGEST_SILENCE_S`, and vLLM's comment line every `keep_alive` seconds (0: none) in between: several
    clients can't read comments, and a client's own limit may not count them.
    """

    def __init__(self, piece: Callable[[], str], keep_alive: float) -> None:
        self._piece = piece
        self._keep_alive = keep_alive or math.inf
        self._lasted = 0.0

    @property
    def seconds(self) -> float:
        """How long nothing may come from now on."""
        return min(self._keep_alive, _LONGEST_SILENCE_S - self._lasted)

    def fill(self) -> str:
        """Return what is to be sent now that nothing came for `seconds`."""
        self._lasted += self.seconds
        if self._lasted < _LONGEST_SILENCE_S:
            return COMMENT
        self.end()
        return self._piece()

    def end(self) -> None:
        """Count anew: something came."""
        self._lasted = 0.0


class Events:
    """The events of one answer, made by a task; what is `held` is given up when it ends, however they are read.

    What goes wrong once it has begun is written by `failure`.
    """

    def __init__(
        self,
        make: Callable[["Events"], Coroutine[Any, Any, None]],
        held: ExitStack,
        silence: Silence,
        failure: Callable[[ApiError], Iterable[str]],
    ) -> None:
        self._queue: asyncio.Queue[str | None] = asyncio.Queue()
        self._silence = silence
        self._failure = failure
        self._begun, self._taken = asyncio.Event(), asyncio.Event()
        self._is_told = False
        self._held = held
        self._making = asyncio.create_task(make(self))
        self._making.add_done_callback(self._ended)

    def put(self, event: str) -> None:
        """Add an event."""
        self._queue.put_nowait(event)

    async def room(self) -> None:
        """Wait while the client has many events to read."""
        while self._queue.qsize() >= _MOST_UNREAD:
            self._taken.clear()
            await self._taken.wait()

    def begin(self) -> None:
        """Say that the answer is on its way: what goes wrong from now on is an event."""
        self._begun.set()

    async def begun(self) -> None:
        """Wait until the answer is on its way, or the silence has lasted too long. Raises what went wrong before."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._silence.seconds):
                await self._begun.wait()
        if self._making.done():
            self._making.result()
        elif not self._begun.is_set() and self._queue.empty():
            self.put(self._silence.fill())

    async def read(self) -> AsyncIterator[str]:
        """Yield the events as they come, and what fills the silence between them."""
        while (event := await self._next()) is not None:
            yield event
        try:
            self._making.result()
        except Exception as error:
            problem = to_api_error(error)
            self._is_told = True
            record_failure(problem.status)
            for event in self._failure(problem):
                yield event

    def stop(self) -> int | None:
        """End what makes the events; returns the status that is to be counted where nothing was yet: nobody read on."""
        if self._making.cancel():
            return CLIENT_LEFT
        error = None if self._is_told or self._making.cancelled() else self._making.exception()
        return to_api_error(error).status if isinstance(error, Exception) else None

    async def _next(self) -> str | None:
        try:
            async with asyncio.timeout(self._silence.seconds):
                event = await self._queue.get()
        except TimeoutError:
            if self._queue.empty():
                return self._silence.fill()
            event = self._queue.get_nowait()  # it came while the time was up: what is sent now must not go before it
        self._silence.end()
        self._taken.set()
        return event

    def _ended(self, making: asyncio.Task[None]) -> None:
        if not making.cancelled():
            making.exception()  # looked at: nobody reads on where the client has left
        self._held.close()
        self._begun.set()
        self._queue.put_nowait(None)


class EventStream(StreamingResponse):
    """Sends events; a client that leaves, or takes none for `patience` seconds (0: no limit), ends them.

    That is counted, unless they are no question's.
    """

    def __init__(self, events: Events, patience: float, *, is_question: bool = True) -> None:
        super().__init__(events.read(), media_type="text/event-stream")
        self._events = events
        self._patience = patience or None
        self._is_question = is_question

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_in_time(message: Message) -> None:
            async with asyncio.timeout(self._patience):
                await send(message)

        try:
            await super().__call__(scope, receive, send_in_time)
        except TimeoutError:
            logger.warning("A client did not read its stream in time; the connection is cut.")
        finally:
            status = self._events.stop()
            if status is not None and self._is_question:
                record_failure(status)
