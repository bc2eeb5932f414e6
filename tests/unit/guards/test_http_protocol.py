"""Connections on which no request comes, and headers without end, on a real socket."""

import asyncio
import contextlib
import itertools
import resource
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import uvicorn
import uvloop
from dualfocus_server.guards import http_protocol
from dualfocus_server.guards.http_protocol import HEAD_BYTES, Connection
from starlette.types import Receive, Scope, Send

PATIENCE = 60  # seconds; reached only where a connection that should be closed stays open
may_answer = asyncio.Event()
begun: set[str] = set()


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer at once, or below /later only when told to."""
    begun.add(scope["path"])
    if scope["path"].startswith("/later/"):
        await may_answer.wait()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@pytest.fixture(scope="module")
async def port() -> AsyncIterator[int]:
    config = uvicorn.Config(
        application,
        port=0,
        lifespan="off",
        log_config=None,
        ws="none",
        http=Connection,
        h11_max_incomplete_event_size=HEAD_BYTES,
        timeout_keep_alive=PATIENCE,
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server._serve())
    while not server.started:  # noqa: ASYNC110 (uvicorn has no event for it)
        await asyncio.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    await serving


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "_HEAD_TIMEOUT_S", PATIENCE)


@pytest.fixture
def hurry(patient: None, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Give requests that are begun from now on a moment."""
    return lambda: monkeypatch.setattr(http_protocol, "_HEAD_TIMEOUT_S", 0.1)


async def closed(reader: asyncio.StreamReader) -> bytes:
    """What comes until the server closes the connection (a reset, where bytes were still on their way to it)."""
    try:
        return await asyncio.wait_for(reader.read(), PATIENCE)
    except ConnectionResetError:
        return b""


async def answered(port: int, request: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection whose first request was there in time, and was answered: a busy machine may need more than one."""
    while True:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionResetError):
            assert b"200" in await reader.readuntil(b"ok")
            return reader, writer
        writer.close()


async def asked_later(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection whose request was there in time, and is not answered yet."""
    for attempt in itertools.count():
        path = f"/later/{attempt}"
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        while path not in begun and not reader.at_eof():  # noqa: ASYNC110 (either may come)
            await asyncio.sleep(0.01)
        if path in begun:
            return reader, writer
        writer.close()
    raise AssertionError("unreachable")


@pytest.mark.parametrize("start", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: a\r\nX-A: b\r\n"])
async def test_a_request_that_is_never_finished_is_hung_up_on(
    port: int, hurry: Callable[[], None], start: bytes
) -> None:
    hurry()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(start)
    assert await closed(reader) == b""
    writer.close()


async def test_one_that_drips_is_too(port: int, hurry: Callable[[], None]) -> None:
    hurry()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n")
    closing = asyncio.create_task(closed(reader))
    while not closing.done():
        writer.write(b"X: y\r\n")
        await asyncio.sleep(0.01)
    assert await closing == b""
    writer.close()


async def test_so_is_the_second_request_of_a_connection(port: int, hurry: Callable[[], None]) -> None:
    hurry()
    reader, writer = await answered(port, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    writer.write(b"GET /")
    assert await closed(reader) == b""
    writer.close()


async def test_so_is_what_is_left_of_a_body_after_its_answer(port: int, hurry: Callable[[], None]) -> None:
    hurry()
    reader, writer = await answered(port, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n")
    closing = asyncio.create_task(closed(reader))
    while not closing.done():
        writer.write(b"x")
        await asyncio.sleep(0.01)
    assert await closing == b""
    writer.close()


async def test_an_answer_may_take_longer_than_a_request(port: int, hurry: Callable[[], None]) -> None:
    hurry()
    may_answer.clear()
    begun.clear()
    reader, writer = await asked_later(port)
    silent, other = await asyncio.open_connection("127.0.0.1", port)
    assert await closed(silent) == b""  # one that came later has been hung up on by now
    may_answer.set()
    assert b"200" in await reader.readuntil(b"ok")
    writer.close()
    other.close()


async def test_an_idle_connection_may_stay_longer_than_a_request_takes(port: int, hurry: Callable[[], None]) -> None:
    hurry()
    reader, writer = await answered(port, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    silent, other = await asyncio.open_connection("127.0.0.1", port)
    assert await closed(silent) == b""  # one that came later has been hung up on by now
    assert not reader.at_eof()
    writer.close()
    other.close()


@pytest.mark.parametrize("loop", [asyncio.run, uvloop.run])
def test_what_nobody_reads_does_not_keep_a_connection_that_was_closed(
    monkeypatch: pytest.MonkeyPatch, loop: Callable[[Any], None]
) -> None:
    monkeypatch.setattr(http_protocol, "_REST_TIMEOUT_S", 0.2)
    loop(_closed_before_it_was_read(reads=False))


@pytest.mark.parametrize("loop", [asyncio.run, uvloop.run])
def test_who_reads_slowly_is_sent_the_rest_of_it(loop: Callable[[Any], None]) -> None:
    loop(_closed_before_it_was_read(reads=True))


async def _closed_before_it_was_read(reads: bool) -> None:
    gone = asyncio.Event()

    class Lost(Closing):
        def connection_lost(self, exc: Exception | None) -> None:
            gone.set()

    server = await asyncio.get_running_loop().create_server(Lost, "127.0.0.1", 0)
    async with server:
        with socket.create_connection(server.sockets[0].getsockname()) as peer:
            read = asyncio.to_thread(_read_all, peer) if reads else asyncio.sleep(0, 0)
            assert await read == (MOST if reads else 0)
            await asyncio.wait_for(gone.wait(), PATIENCE)


def _read_all(peer: socket.socket) -> int:
    return sum(iter(lambda: len(peer.recv(1 << 20)), 0))


MOST = 30_000_000


class Closing(asyncio.Protocol):
    """Sends more than the system's buffers hold, and closes the connection."""

    def connection_made(self, transport: Any) -> None:
        ending = http_protocol._EndingTransport(transport, asyncio.get_running_loop())
        ending.write(bytes(MOST))
        ending.close()


@pytest.mark.parametrize(
    ("limits", "raised"),
    [
        ((1024, 4096), (4096, 4096)),
        ((1024, 1 << 20), (65_535, 1 << 20)),
        ((1024, resource.RLIM_INFINITY), (65_535, resource.RLIM_INFINITY)),
        ((1 << 20, 1 << 20), None),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), None),
    ],
)
def test_open_files_are_allowed_as_the_system_lets_us(
    monkeypatch: pytest.MonkeyPatch, limits: tuple[int, int], raised: tuple[int, int] | None
) -> None:
    set_to: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda kind: limits)
    monkeypatch.setattr(resource, "setrlimit", lambda kind, given: set_to.append(given))
    http_protocol.allow_many()
    assert set_to == ([raised] if raised else [])


async def test_headers_without_end_are_refused(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    # As long as is judged, and nothing behind it that could reset the connection.
    writer.write((b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * HEAD_BYTES)[: HEAD_BYTES + 1])
    assert (await closed(reader)).startswith(b"HTTP/1.1 400")
    writer.close()


async def test_a_websocket_is_no_way_around(port: int) -> None:
    """A handshake is a request like any other: what guards those guards it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    keys = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" + keys + b"\r\n")
    assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")
    writer.close()


async def test_an_upgrade_that_is_asked_for_is_neither_made_nor_logged(
    port: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Java's HttpClient asks for h2c with each request."""
    upgrade = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: %s\r\nHTTP2-Settings: AAEAAEAAAAIAAAAB\r\n\r\n"
    for kind in (b"h2c", b"websocket"):
        _, writer = await answered(port, b"GET / HTTP/1.1\r\nHost: here\r\n" + upgrade % kind)
        writer.close()
    assert not caplog.records
