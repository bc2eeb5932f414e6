"""Events of a stream: what fills a silence, errors by status or as events, turns that end with their reader."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from contextlib import ExitStack, suppress
from typing import Any

import pytest
from dualfocus_engine import ContextFull
from dualfocus_server.answering import streaming
from dualfocus_server.answering.streaming import Events, EventStream, Silence
from dualfocus_server.api.pieces import FocusWriter, Pieces, error_events
from prometheus_client import REGISTRY
from starlette.types import Message
from vllm.entrypoints.serve.utils.sse_keep_alive import SSE_KEEP_ALIVE_COMMENT

from ..readers import piece, reader

Make = Callable[[Events], Coroutine[Any, Any, None]]
WAIT = 10.0  # a deadlock fails the test instead of hanging it
EOS = "data: [DONE]\n\n"
PIECES = Pieces("chatcmpl-1", "model", "assistant")
NOTHING = PIECES.nothing()
COMMENT = ": keep-alive\n\n"
# Seconds that add up without rounding.
MOMENT = 2.0**-10


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """No silence is borne, so that none has to be waited for."""
    monkeypatch.setattr(streaming, "_LONGEST_SILENCE_S", MOMENT)


async def forever() -> None:
    await asyncio.Event().wait()


def made_by(make: Make, held: ExitStack | None = None, keep_alive: float = 0) -> Events:
    return Events(make, held or ExitStack(), Silence(lambda: NOTHING, keep_alive), error_events)


async def lines_of(events: Events) -> list[str]:
    async with asyncio.timeout(WAIT):
        return [line async for line in events.read()]


async def first_lines(events: Events, number: int) -> list[str]:
    """Read so many lines, then leave."""
    lines: list[str] = []
    async with asyncio.timeout(WAIT):
        async for line in events.read():
            lines.append(line)
            if len(lines) == number:
                break
    events.stop()
    return lines


def body_of(line: str) -> Any:
    return json.loads(line.removeprefix("data: "))


def writer(events: Events, progress: bool = False) -> FocusWriter:
    return FocusWriter(events, reader().delta_parser(), PIECES, progress, (False, False))


# What fills a silence.


@pytest.mark.parametrize(
    ("keep_alive", "fills"),
    [
        (0, [(15, "piece"), (15, "piece")]),
        (20, [(15, "piece"), (15, "piece")]),
        (15, [(15, "piece"), (15, "piece")]),
        (5, [(5, "comment"), (5, "comment"), (5, "piece"), (5, "comment")]),
        (4, [(4, "comment"), (4, "comment"), (4, "comment"), (3, "piece"), (4, "comment")]),
    ],
)
def test_a_silence_has_a_piece_every_15_s_and_a_comment_every_n_where_the_flag_says_so(
    keep_alive: int, fills: list[tuple[float, str]]
) -> None:
    silence = Silence(lambda: "piece", keep_alive)
    assert [(silence.seconds, silence.fill().replace(COMMENT, "comment")) for _ in fills] == fills


def test_a_silence_is_counted_anew_once_something_came() -> None:
    silence = Silence(lambda: "piece", 10)
    assert silence.fill() == COMMENT
    assert silence.seconds == 5
    silence.end()
    assert silence.seconds == 10


def test_a_comment_is_vllms() -> None:
    assert COMMENT == SSE_KEEP_ALIVE_COMMENT


async def test_no_comment_comes_where_no_flag_asks_for_one() -> None:
    async def quick(events: Events) -> None:
        own = writer(events)
        for turn in ("grounding", "macro", "micro"):
            own.on_turn_start(turn)
        own.on_turn_accepted("macro")

    events = made_by(quick)
    await events.begun()
    assert await lines_of(events) == [PIECES.role()]


@pytest.mark.usefixtures("soon")
async def test_silence_is_filled_by_valid_pieces_without_content() -> None:
    async def slow(events: Events) -> None:
        writer(events)
        await forever()

    events = made_by(slow)
    await events.begun()
    role, *fills = await first_lines(events, 4)
    assert role == PIECES.role()
    assert fills == [NOTHING] * 3
    assert body_of(NOTHING)["choices"] == [
        {"index": 0, "delta": {"content": ""}, "logprobs": None, "finish_reason": None, "token_ids": None}
    ]


async def test_a_silence_is_not_filled_behind_what_has_just_come() -> None:
    """Events may be numbered: what is written later must not be sent before."""
    late = made_by(lambda events: forever())

    async def time_is_up() -> str:
        late.put("came meanwhile")
        raise TimeoutError

    waiting, late._queue.get = late._queue.get, time_is_up  # type: ignore[method-assign]
    assert await late._next() == "came meanwhile"
    late._queue.get = waiting  # type: ignore[method-assign]
    late.stop()


async def test_comments_come_between_the_pieces_that_fill_a_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "_LONGEST_SILENCE_S", 3 * MOMENT)

    async def slow(events: Events) -> None:
        await forever()

    lines = await first_lines(made_by(slow, keep_alive=MOMENT), 6)
    assert lines == [COMMENT, COMMENT, NOTHING] * 2


@pytest.mark.usefixtures("soon")
async def test_what_waits_for_its_place_too_long_begins_with_the_role() -> None:
    async def waiting(events: Events) -> None:
        writer(events)
        await forever()

    events = made_by(waiting)
    await events.begun()
    assert await first_lines(events, 2) == [PIECES.role(), NOTHING]


@pytest.mark.parametrize(
    ("keep_alive", "first"), [(0, NOTHING), (MOMENT / 4, COMMENT)], ids=["by default", "with the flag"]
)
@pytest.mark.usefixtures("soon")
async def test_what_has_nothing_to_say_for_too_long_begins_with_what_fills_silence(
    keep_alive: float, first: str
) -> None:
    """vLLM says its role itself, later."""

    async def waiting(events: Events) -> None:
        await forever()

    events = made_by(waiting, keep_alive=keep_alive)
    await events.begun()
    assert await first_lines(events, 1) == [first]


@pytest.mark.usefixtures("soon")
async def test_text_that_is_held_back_does_not_keep_the_silence_from_being_filled() -> None:
    """What counts is what the client got: the first of the text stays here until there is more."""

    async def writing(events: Events) -> None:
        writer(events).on_text(piece("first"))
        await forever()

    assert await first_lines(made_by(writing), 3) == [PIECES.role(), NOTHING, NOTHING]


# Errors.


async def test_an_error_after_the_answer_began_is_an_event_in_openais_shape() -> None:
    has_begun = asyncio.Event()

    async def failing(events: Events) -> None:
        writer(events).on_turn_accepted("macro")
        await has_begun.wait()
        raise ContextFull(9, 8)

    events = made_by(failing)
    await events.begun()
    has_begun.set()
    role, error, done = await lines_of(events)
    assert role == PIECES.role()
    assert set(body_of(error)["error"]) == {"message", "type", "param", "code"}
    assert body_of(error)["error"]["code"] == "context_length_exceeded"
    assert done == EOS


@pytest.mark.parametrize("turns", [[], ["grounding"], ["grounding", "macro"], ["grounding", "micro"]])
async def test_an_error_before_the_engine_has_taken_an_answer_is_raised_and_can_be_given_a_status(
    turns: list[str],
) -> None:
    async def failing(events: Events) -> None:
        own = writer(events)
        for name in turns:
            own.on_turn_start(name)
        await asyncio.sleep(0)
        raise ContextFull(9, 8)

    with pytest.raises(ContextFull):
        await made_by(failing).begun()


@pytest.mark.usefixtures("soon")
async def test_an_error_of_a_question_that_had_waited_too_long_is_an_event() -> None:
    fails = asyncio.Event()

    async def failing(events: Events) -> None:
        await fails.wait()
        raise ContextFull(9, 8)

    events = made_by(failing)
    await events.begun()
    fails.set()
    *_, error, done = await lines_of(events)
    assert body_of(error)["error"]["code"] == "context_length_exceeded"
    assert done == EOS


# Ends.


async def test_what_is_held_is_given_up_when_the_answer_is_made_though_nobody_reads_it() -> None:
    held, given_up = ExitStack(), asyncio.Event()
    held.callback(given_up.set)

    async def quick(events: Events) -> None:
        events.put("data: 1\n\n")

    events = made_by(quick, held)
    await asyncio.wait_for(given_up.wait(), WAIT)
    assert await lines_of(events) == ["data: 1\n\n"]


def clients_left() -> float:
    return REGISTRY.get_sample_value("dualfocus_questions_total", {"outcome": "client_left"}) or 0.0


def failures() -> float:
    return REGISTRY.get_sample_value("dualfocus_questions_total", {"outcome": "invalid_request_error"}) or 0.0


async def sent_to(send: Any, events: Events, patience: float = 0) -> None:
    async def receive() -> Message:
        await forever()
        raise AssertionError("unreachable")

    async with asyncio.timeout(WAIT):
        await EventStream(events, patience)({"type": "http"}, receive, send)


async def test_a_client_that_does_not_read_is_cut_off() -> None:
    held, given_up = ExitStack(), asyncio.Event()
    held.callback(given_up.set)

    async def endless(events: Events) -> None:
        events.put("data: 1\n\n")
        await forever()

    async def never_sent(message: Message) -> None:
        await forever()

    before = clients_left()
    await sent_to(never_sent, made_by(endless, held), MOMENT)
    await asyncio.wait_for(given_up.wait(), WAIT)
    assert clients_left() == before + 1


async def test_one_that_reads_is_not_however_long_its_stream_takes() -> None:
    bodies: list[bytes] = []

    async def slow(events: Events) -> None:
        events.put("data: 1\n\n")
        await asyncio.sleep(10 * MOMENT)
        events.put("data: 2\n\n")

    async def read(message: Message) -> None:
        bodies.append(message.get("body", b""))

    before = clients_left()
    await sent_to(read, made_by(slow), MOMENT)
    assert b"".join(bodies) == b"data: 1\n\ndata: 2\n\n"
    assert clients_left() == before


@pytest.mark.parametrize("leaves", [True, False])
async def test_a_question_that_fails_as_its_client_leaves_is_counted_once(leaves: bool) -> None:
    async def failing(events: Events) -> None:
        events.put("data: 1\n\n")
        raise ContextFull(9, 8)

    async def gone(message: Message) -> None:
        if message.get("body") and leaves:
            raise OSError("the client has left")

    before = clients_left(), failures()
    with suppress(OSError):
        await sent_to(gone, made_by(failing))
    assert (clients_left(), failures()) == (before[0], before[1] + 1)


async def test_a_client_that_leaves_ends_the_turns() -> None:
    ended = asyncio.Event()

    async def endless(events: Events) -> None:
        try:
            events.put("data: 1\n\n")
            await forever()
        finally:
            ended.set()

    async def gone(message: Message) -> None:
        if message.get("body"):
            raise OSError("the client has left")

    with pytest.raises(OSError, match="left"):
        await sent_to(gone, made_by(endless))
    await asyncio.wait_for(ended.wait(), WAIT)


async def test_what_makes_events_goes_no_further_than_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "_MOST_UNREAD", 4)
    made = 0

    async def make(events: Events) -> None:
        nonlocal made
        for made in range(1, 21):
            events.put(f"data: {made}\n\n")
            await events.room()

    held = ExitStack()
    given_up: list[bool] = []
    held.callback(given_up.append, True)
    events = made_by(make, held)
    reading = events.read()
    await anext(reading)
    await asyncio.sleep(MOMENT)
    assert 4 <= made <= 6
    assert not given_up, "its place is held while there is more to come"
    assert [event async for event in reading][-1] == "data: 20\n\n"
    assert given_up
