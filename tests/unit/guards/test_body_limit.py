"""A body's size and time, judged while it is read."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from dualfocus_server.guards.body_limit import BodyLimit
from starlette.types import Message, Receive, Scope, Send

POST: Scope = {"type": "http", "method": "POST", "path": "/", "headers": []}


class Client:
    """Sends pieces of a body, then nothing more, or leaves; keeps what is answered."""

    def __init__(self, *pieces: bytes, ends: bool = True) -> None:
        self._messages: Iterator[Message] = iter(
            [
                {"type": "http.request", "body": piece, "more_body": not ends or number < len(pieces)}
                for number, piece in enumerate(pieces, 1)
            ]
        )
        self.answered: list[Message] = []
        self.leaves = asyncio.Event()

    async def receive(self) -> Message:
        message = next(self._messages, None)
        if message is None:
            await self.leaves.wait()
            return {"type": "http.disconnect"}
        return message

    async def send(self, message: Message) -> None:
        self.answered.append(message)

    @property
    def error(self) -> dict[str, Any]:
        start, body = self.answered
        error: dict[str, Any] = json.loads(body["body"])["error"]
        return error | {"status": start["status"]}


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the body; fail, as frameworks do, where the client leaves before its end."""
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError
        body, more = body + message["body"], message["more_body"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


async def ask(client: Client, limit: int = 10, timeout: float = 60, scope: Scope = POST) -> None:
    await BodyLimit(echo, limit, timeout, together=10 * limit)(scope, client.receive, client.send)


async def test_a_body_within_the_limits_is_passed_on() -> None:
    client = Client(b"01234", b"56789")
    await ask(client)
    assert client.answered[1]["body"] == b"0123456789"


async def test_one_byte_more_is_refused() -> None:
    client = Client(b"01234", b"567890", ends=False)
    await ask(client)
    assert (client.error["status"], client.error["code"]) == (413, "body_too_large")
    assert "--max-body-bytes" in client.error["message"]


async def test_a_size_that_is_announced_is_refused_unread() -> None:
    client = Client(b"", ends=False)
    await ask(client, scope=POST | {"headers": [(b"content-length", b"11")]})
    assert client.error["code"] == "body_too_large"


@pytest.mark.parametrize("encoding", ["gzip", "br", "GZIP", "identity, gzip", "aws-chunked"])
async def test_a_packed_body_is_refused_unread_and_told_what_is_accepted(encoding: str) -> None:
    client = Client(b"", ends=False)
    await ask(client, scope=POST | {"headers": [(b"content-encoding", encoding.encode())]})
    assert (client.error["status"], client.error["code"]) == (415, "unsupported_encoding")
    assert client.error["message"].startswith(f"The body has Content-Encoding: {encoding}. Only identity is accepted")


@pytest.mark.parametrize("encoding", [b"identity", b"Identity", b""])
async def test_one_that_is_not_packed_is_passed_on(encoding: bytes) -> None:
    client = Client(b"01234")
    await ask(client, scope=POST | {"headers": [(b"content-encoding", encoding)]})
    assert client.answered[1]["body"] == b"01234"


@pytest.mark.parametrize("pieces", [(), (b"01", b"23")])
async def test_a_body_that_does_not_arrive_is_refused(pieces: tuple[bytes, ...]) -> None:
    client = Client(*pieces, ends=False)
    await ask(client, timeout=0.01)
    assert (client.error["status"], client.error["code"]) == (408, "body_too_slow")
    assert client.error["message"] == "The body did not arrive within 0.01 s."


async def test_bodies_that_are_here_are_limited_together_until_they_are_gone() -> None:
    """They are read before it is known whether there is a place for what they ask."""
    held, freed = asyncio.Event(), asyncio.Event()

    async def hold(scope: Scope, receive: Receive, send: Send) -> None:
        while (message := await receive())["type"] == "http.request" and message["more_body"]:
            pass
        if message["type"] == "http.disconnect":
            return
        held.set()
        await freed.wait()

    limit = BodyLimit(hold, 10, 60, together=15)
    first = asyncio.create_task(limit(POST, Client(b"01234", b"56789").receive, Client().send))
    await held.wait()
    second = Client(b"012", b"345", ends=False)
    await limit(POST, second.receive, second.send)
    assert (second.error["status"], second.error["code"]) == (429, "too_busy")
    assert "15 bytes (--max-body-bytes times the sum of --max-questions and --max-queued)" in second.error["message"]
    third = Client(b"01234")
    waits = asyncio.create_task(limit(POST, third.receive, third.send))
    freed.set()
    await asyncio.gather(first, waits)
    assert third.answered == [], "there was room for it"
    await limit(POST, Client(b"0123456789").receive, second.send)
    assert len(second.answered) == 2, "what was held is free again"


async def test_waiting_for_the_client_to_leave_has_no_limit_of_time() -> None:
    async def watch(scope: Scope, receive: Receive, send: Send) -> None:
        assert (await receive())["type"] == "http.request"
        leaving = asyncio.ensure_future(receive())
        await asyncio.sleep(0.05)  # well past the limit
        assert not leaving.done()
        client.leaves.set()
        assert (await leaving)["type"] == "http.disconnect"

    client = Client(b"0")
    await BodyLimit(watch, 10, 0.01, 100)(POST, client.receive, client.send)
    assert client.answered == []


async def test_without_a_limit_of_time_a_client_may_take_it() -> None:
    client = Client(b"0", ends=False)
    asking = asyncio.create_task(ask(client, timeout=0))
    await asyncio.sleep(0.02)
    assert not asking.done()
    client.leaves.set()
    with pytest.raises(ConnectionError):
        await asking


async def test_an_application_that_fails_by_itself_is_not_hidden() -> None:
    client = Client(b"0", ends=False)
    client.leaves.set()
    with pytest.raises(ConnectionError):
        await ask(client)
