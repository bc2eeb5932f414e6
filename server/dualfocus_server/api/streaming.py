"""Answers as server-sent events: made by a task, read by a client, with comments while nothing comes."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import ExitStack, suppress
from typing import Any

from dualfocus_engine import FocusResult, Mode
from pydantic_core import to_json
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send
from vllm.entrypoints.generate.base.protocol import DeltaMessage
from vllm.entrypoints.openai.chat_completion.protocol import (
    ChatCompletionResponseStreamChoice,
    ChatCompletionStreamResponse,
)

from dualfocus_server.api.protocol import FocusResponse
from dualfocus_server.guards.api_errors import to_api_error
from dualfocus_server.telemetry.metrics import record_failure

logger = logging.getLogger(__name__)

# Proxies cut idle connections; a comment line is nothing to a client.
_COMMENT_INTERVAL_S = 4.0
_DONE = "data: [DONE]\n\n"
# What a client gets to read the last events after the question's deadline.
_READ_GRACE_S = 10.0


class Events:
    """The events of one answer, made by a task; what is `held` is given up when it ends, however they are read."""

    def __init__(self, make: Callable[["Events"], Coroutine[Any, Any, None]], held: ExitStack) -> None:
        self._queue: asyncio.Queue[str | None] = asyncio.Queue()
        self._comment = ": waiting\n\n"
        self._begun = asyncio.Event()
        self._held = held
        self._making = asyncio.create_task(make(self))
        self._making.add_done_callback(self._ended)

    def put(self, event: str) -> None:
        """Add an event."""
        self._queue.put_nowait(event)

    def comment(self, doing: str) -> None:
        """Add a line that clients skip, which is given again while nothing else comes."""
        self._comment = f": {doing}\n\n"
        self.put(self._comment)

    def begin(self) -> None:
        """Say that the answer is on its way: what goes wrong from now on is an event."""
        self._begun.set()

    async def begun(self) -> None:
        """Wait until the answer is on its way, or is late. Raises what went wrong before."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_COMMENT_INTERVAL_S):
                await self._begun.wait()
        if self._making.done():
            self._making.result()
        elif not self._begun.is_set():
            self.put(self._comment)

    async def read(self) -> AsyncIterator[str]:
        """Yield the events as they come, and the last comment whenever nothing came for a while."""
        while (event := await self._next()) is not None:
            yield event
        try:
            self._making.result()
        except Exception as error:
            problem = to_api_error(error)
            record_failure(problem.status)
            yield _data(problem.body())
            yield _DONE

    def stop(self) -> None:
        """End what makes the events."""
        self._making.cancel()

    async def _next(self) -> str | None:
        try:
            async with asyncio.timeout(_COMMENT_INTERVAL_S):
                return await self._queue.get()
        except TimeoutError:
            return self._comment

    def _ended(self, making: asyncio.Task[None]) -> None:
        if not making.cancelled():
            making.exception()  # looked at: nobody reads on where the client has left
        self._held.close()
        self._begun.set()
        self._queue.put_nowait(None)


class EventStream(StreamingResponse):
    """Sends events; a client that leaves, or has not read them `_READ_GRACE_S` after the deadline, ends them."""

    def __init__(self, events: Events, deadline: float | None) -> None:
        super().__init__(events.read(), media_type="text/event-stream")
        self._events = events
        self._cut_at = deadline + _READ_GRACE_S if deadline is not None else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with asyncio.timeout_at(self._cut_at):
                await super().__call__(scope, receive, send)
        except TimeoutError:
            logger.warning("A client did not read its stream in time; the connection is cut.")
        finally:
            self._events.stop()


class FocusWriter:
    """Writes what a question's turns do (it is their Watcher) and its answer as events."""

    def __init__(self, events: Events, request_id: str, model: str, mode: Mode) -> None:
        self._events = events
        self._request_id = request_id
        self._model = model
        self._mode = mode
        self._held = ""  # the last piece waits: it carries the `dualfocus` field
        self._put(DeltaMessage(role="assistant", content=""))

    def on_turn_start(self, turn: str) -> None:
        """Name the turn. The answer is on its way once macro is, without which there is none in the other modes."""
        self._events.comment(turn)
        if turn == "macro" or self._mode is Mode.MICRO:
            self._events.begin()

    def on_text(self, text: str) -> None:
        """Write the piece before this one."""
        if self._held:
            self._put(DeltaMessage(content=self._held))
        self._held = text

    def write_end(self, result: FocusResult, response: FocusResponse, include_usage: bool) -> None:
        """Write the rest of the answer with its `dualfocus` field, the finish, usage, `[DONE]`."""
        choice = response.choices[0]
        content = self._chunk(DeltaMessage(content=self._held or result.text), logprobs=choice.logprobs)
        answer = to_json(content | {"dualfocus": response.dualfocus.model_dump(exclude_none=False)})
        self._events.put(f"data: {answer.decode()}\n\n")  # may be megabytes, with a crop in it
        self._put(DeltaMessage(), finish_reason=choice.finish_reason)
        if include_usage:
            self._events.put(_data(self._chunk(None) | {"usage": response.usage.model_dump()}))
        self._events.put(_DONE)

    def _put(self, delta: DeltaMessage, **choice: Any) -> None:
        self._events.put(_data(self._chunk(delta, **choice)))

    def _chunk(self, delta: DeltaMessage | None, **choice: Any) -> dict[str, Any]:
        choices = [] if delta is None else [ChatCompletionResponseStreamChoice(index=0, delta=delta, **choice)]
        chunk = ChatCompletionStreamResponse(id=self._request_id, model=self._model, choices=choices)
        body: dict[str, Any] = chunk.model_dump(exclude_unset=True)
        return {"id": chunk.id, "object": chunk.object, "created": chunk.created} | body


def _data(body: dict[str, Any]) -> str:
    return f"data: {json.dumps(body, ensure_ascii=False)}\n\n"
