"""Events of a stream: comments while nothing comes, errors by status or as events, turns that end with their reader."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from typing import Any

import pytest
from dualfocus_engine import ContextFull, FocusResult, Mode, SecondLook, Selection
from dualfocus_server.api import streaming
from dualfocus_server.api.report import completion
from dualfocus_server.api.streaming import Events, EventStream, FocusWriter
from starlette.types import Message

from ..builders import turn

Make = Callable[[Events], Coroutine[Any, Any, None]]
WAIT = 10.0  # a deadlock fails the test instead of hanging it
EOS = "data: [DONE]\n\n"


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Comments come at once, so that none has to be waited for."""
    monkeypatch.setattr(streaming, "_COMMENT_INTERVAL_S", 0.001)


async def forever() -> None:
    await asyncio.Event().wait()


async def lines_of(events: Events) -> list[str]:
    async with asyncio.timeout(WAIT):
        return [line async for line in events.read()]


async def lines_until(events: Events, wanted: str, times: int) -> list[str]:
    """Read until a line has come so often, then leave."""
    lines: list[str] = []
    async with asyncio.timeout(WAIT):
        async for line in events.read():
            lines.append(line)
            if lines.count(wanted) == times:
                break
    events.stop()
    return lines


def but_the_role(lines: list[str]) -> list[str]:
    """All lines but the role's, which a comment may come before: with comments this soon, any pause lets one in."""
    return [line for line in lines if '"role"' not in line]


def writer(events: Events, mode: Mode = Mode.DUAL) -> FocusWriter:
    return FocusWriter(events, "chatcmpl-1", "model", mode)


@pytest.mark.usefixtures("soon")
async def test_what_waits_for_its_turn_says_so_after_the_role() -> None:
    async def waiting(events: Events) -> None:
        writer(events)
        await forever()

    events = Events(waiting, ExitStack())
    await events.begun()
    role, first, *_ = await lines_until(events, ": waiting\n\n", 3)
    assert json.loads(role.removeprefix("data: "))["choices"][0]["delta"]["role"] == "assistant"
    assert first == ": waiting\n\n"


@pytest.mark.usefixtures("soon")
async def test_a_turns_name_comes_again_while_nothing_else_does() -> None:
    async def slow(events: Events) -> None:
        writer(events).on_turn_start("grounding")
        await forever()

    lines = await lines_until(Events(slow, ExitStack()), ": grounding\n\n", 3)
    assert but_the_role(lines) == [": grounding\n\n"] * 3


@pytest.mark.usefixtures("soon")
async def test_a_piece_that_is_held_back_does_not_keep_the_comment_away() -> None:
    """What counts is what the client got: the first piece stays here until there is another."""

    async def writing(events: Events) -> None:
        own = writer(events, Mode.MACRO)
        own.on_turn_start("macro")
        own.on_text("first")
        await forever()

    lines = await lines_until(Events(writing, ExitStack()), ": macro\n\n", 3)
    assert but_the_role(lines) == [": macro\n\n"] * 3


@pytest.mark.parametrize(
    ("mode", "turn_name"), [(Mode.DUAL, "macro"), (Mode.MACRO, "macro"), (Mode.MICRO, "grounding")]
)
async def test_an_error_after_the_answer_began_is_an_event_in_openais_shape(mode: Mode, turn_name: str) -> None:
    has_begun = asyncio.Event()

    async def failing(events: Events) -> None:
        writer(events, mode).on_turn_start(turn_name)
        await has_begun.wait()
        raise ContextFull(9, 8)

    events = Events(failing, ExitStack())
    await events.begun()
    has_begun.set()
    *_, error, done = await lines_of(events)
    assert json.loads(error.removeprefix("data: "))["error"]["code"] == "context_length_exceeded"
    assert done == EOS


@pytest.mark.parametrize("turns", [[], ["grounding"]])
async def test_an_error_before_is_raised_and_can_be_given_a_status(turns: list[str]) -> None:
    async def failing(events: Events) -> None:
        own = writer(events)
        for name in turns:
            own.on_turn_start(name)
        await asyncio.sleep(0)
        raise ContextFull(9, 8)

    with pytest.raises(ContextFull):
        await Events(failing, ExitStack()).begun()


async def test_the_last_piece_carries_how_the_answer_was_found() -> None:
    result = FocusResult("macro", Selection.ONLY_ANSWER, turn("one two three"), SecondLook(), 1.0)

    async def whole(events: Events) -> None:
        own = writer(events, Mode.MACRO)
        for piece in ("one ", "two ", "three"):
            own.on_text(piece)
        own.write_end(result, completion(result, Mode.MACRO, "model", "1", None), include_usage=True)

    events = Events(whole, ExitStack())
    await events.begun()
    *lines, done = await lines_of(events)
    bodies = [json.loads(line.removeprefix("data: ")) for line in lines]
    pieces = [body["choices"][0]["delta"].get("content") for body in bodies if body["choices"]]
    assert pieces == ["", "one ", "two ", "three", None]
    assert ["dualfocus" in body for body in bodies] == [False, False, False, True, False, False]
    assert bodies[-1]["usage"]["completion_tokens"] == 3
    assert done == EOS


async def test_what_is_held_is_given_up_when_the_answer_is_made_though_nobody_reads_it() -> None:
    held, given_up = ExitStack(), asyncio.Event()
    held.callback(given_up.set)

    async def quick(events: Events) -> None:
        events.put("data: 1\n\n")

    events = Events(quick, held)
    await asyncio.wait_for(given_up.wait(), WAIT)
    assert await lines_of(events) == ["data: 1\n\n"]


async def sent_to(send: Any, events: Events, deadline: float | None = None) -> None:
    async def receive() -> Message:
        await forever()
        raise AssertionError("unreachable")

    async with asyncio.timeout(WAIT):
        await EventStream(events, deadline)({"type": "http"}, receive, send)


async def test_a_client_that_does_not_read_is_cut_off_after_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "_READ_GRACE_S", 0.01)
    held, given_up = ExitStack(), asyncio.Event()
    held.callback(given_up.set)

    async def endless(events: Events) -> None:
        events.put("data: 1\n\n")
        await forever()

    async def never_sent(message: Message) -> None:
        await forever()

    await sent_to(never_sent, Events(endless, held), asyncio.get_running_loop().time())
    await asyncio.wait_for(given_up.wait(), WAIT)


async def test_a_client_that_leaves_ends_the_turns() -> None:
    ended = asyncio.Event()

    async def endless(events: Events) -> None:
        try:
            events.comment("macro")
            await forever()
        finally:
            ended.set()

    async def gone(message: Message) -> None:
        if message.get("body"):
            raise OSError("the client has left")

    with pytest.raises(OSError, match="left"):
        await sent_to(gone, Events(endless, ExitStack()))
    await asyncio.wait_for(ended.wait(), WAIT)
