"""Responses that are made while nobody waits for them, each by a task of its own; their events are kept to be read."""

import asyncio
from collections.abc import Coroutine
from contextlib import ExitStack
from functools import partial
from http import HTTPStatus
from typing import Any

from fastapi import Response
from starlette.types import Message

from dualfocus_server.answering.service import Service
from dualfocus_server.answering.streaming import COMMENT, Events, EventStream, Silence
from dualfocus_server.api.responses.store import Stored
from dualfocus_server.api.responses.wire import ResponsesWire
from dualfocus_server.guards.api_errors import ApiError, VllmResponseError, to_api_error
from dualfocus_server.guards.http_errors import CLIENT_LEFT
from dualfocus_server.telemetry.metrics import record_failure

# An ASGI server of this version tells a stream by itself that its client has left: here nobody can.
_SCOPE = {"type": "http", "asgi": {"spec_version": "2.4"}}


async def begin(answering: Coroutine[Any, Any, Response], wire: ResponsesWire, stored: Stored) -> None:
    """Go on with an answer in the background. Raises what is wrong with it at once: no place, too many images."""
    task = asyncio.create_task(_keep(answering, wire, stored))
    await asyncio.sleep(0)  # until it first waits
    if task.done():
        task.result()
    stored.task = task
    stored.store.add(stored)
    task.add_done_callback(lambda _: stored.wake())


async def _keep(answering: Coroutine[Any, Any, Response], wire: ResponsesWire, stored: Stored) -> None:
    """Keep the events of an answer until it ends, however it does."""
    try:
        stream = await _begun(answering)
        if not stored.is_ended:
            stored.set_status("in_progress")
        await stream(_SCOPE, _nothing, partial(_keep_event, stored))
    except Exception as error:
        if stored.task is None:  # the client is still there to be told
            raise
        problem = to_api_error(error)
        record_failure(problem.status)
        wire.number_from(len(stored.events))
        for event in wire.failure(problem):
            stored.add_event(event)
    stored.store.add(stored)  # it is as large as it gets


async def _begun(answering: Coroutine[Any, Any, Response]) -> Response:
    """Return the stream of an answer; one that is cancelled before there is any is counted as those after it are."""
    try:
        return await answering
    except asyncio.CancelledError:
        record_failure(CLIENT_LEFT)
        raise


async def _keep_event(stored: Stored, message: Message) -> None:
    if event := message.get("body", b"").decode():
        stored.add_event(event)


async def _nothing() -> Message:
    """Receive nothing: no client leaves."""
    await asyncio.Event().wait()
    raise AssertionError("unreachable")


async def cancel(stored: Stored) -> None:
    """Stop a response that is made in the background; one that has ended stays as it is. Raises VllmResponseError."""
    if stored.task is None:
        message = "Only a response that is made in the background can be cancelled."
        raise VllmResponseError(ApiError(HTTPStatus.BAD_REQUEST, message, "response_id"))
    if stored.is_ended:
        return
    stored.task.cancel()
    await asyncio.wait({stored.task})
    if stored.response["status"] in ("queued", "in_progress", "failed"):
        stored.set_status("cancelled", error=None)
    stored.store.add(stored)  # its events were not counted yet


def replayed(stored: Stored, number: int, service: Service) -> EventStream:
    """Return the events of a response from a number on, those that are still to come too. Raises VllmResponseError."""
    if stored.task is None:
        message = "Only the events of a response that is made in the background are kept; ask for it without stream."
        raise VllmResponseError(ApiError(HTTPStatus.BAD_REQUEST, message, "stream"))

    async def read(events: Events) -> None:
        events.begin()
        async for event in stored.read(number):
            events.put(event)

    silence = Silence(lambda: COMMENT, service.keep_alive)
    return EventStream(Events(read, ExitStack(), silence, lambda problem: ()), service.timeout, is_question=False)
