"""Events of a stream: comments while nothing comes, errors as events, turns that end with their reader."""

import asyncio
import json
from typing import Any

import pytest
from dualfocus_engine import ContextFull
from dualfocus_engine.looks import Watcher
from dualfocus_server import streaming
from dualfocus_server.streaming import focus_events


async def collected(run: Any) -> list[str]:
    return [event async for event in focus_events(run, "chatcmpl-1", "model", include_usage=False)]


async def test_a_comment_comes_again_while_nothing_else_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "_COMMENT_EVERY", 0.05)

    async def slow(watcher: Watcher) -> Any:
        await asyncio.sleep(0.12)  # waits for its place
        watcher.begins("grounding")
        await asyncio.sleep(0.12)
        raise ContextFull(9, 8)

    events = await collected(slow)
    comments = [event for event in events if event.startswith(":")]
    assert comments[0] == ": waiting\n\n"
    assert comments.count(": grounding\n\n") >= 2


async def test_an_error_is_an_event_in_openais_shape_and_the_stream_ends() -> None:
    async def failing(watcher: Watcher) -> Any:
        raise ContextFull(9, 8)

    role, error, done = await collected(failing)
    assert json.loads(role.removeprefix("data: "))["choices"][0]["delta"]["role"] == "assistant"
    assert json.loads(error.removeprefix("data: "))["error"]["code"] == "context_length_exceeded"
    assert done == "data: [DONE]\n\n"


async def test_a_reader_that_leaves_ends_the_turns() -> None:
    ended = asyncio.Event()

    async def endless(watcher: Watcher) -> Any:
        try:
            watcher.begins("macro")
            await asyncio.sleep(60)
        finally:
            ended.set()

    events = focus_events(endless, "chatcmpl-1", "model", include_usage=False)
    await anext(events)
    assert await anext(events) == ": macro\n\n"
    await events.aclose()  # type: ignore[attr-defined]
    await asyncio.wait_for(ended.wait(), 1)
