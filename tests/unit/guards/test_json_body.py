"""Bodies of far too many values are refused before they are read; texts of any length are no values."""

from typing import Annotated, Any, cast

import httpx
import pytest
from dualfocus_server.guards.http_errors import CLIENT_LEFT
from dualfocus_server.guards.json_body import JsonRoute
from fastapi import APIRouter, Body, FastAPI
from starlette.types import Message

_MANY = 1_200_000


@pytest.fixture
def http() -> httpx.AsyncClient:
    app, router = FastAPI(), APIRouter(route_class=JsonRoute)

    @router.post("/length")
    async def length(body: Annotated[Any, Body()]) -> int:
        return len(body)

    app.include_router(router)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server")


@pytest.mark.parametrize(
    ("body", "length"),
    [
        (b"[1,2]", 2),
        (b'"' + b"x" * _MANY + b'"', _MANY),
        (b'"\\ud800"', 1),  # an unpaired surrogate, which Python's parser reads
        ('["ä"]'.encode("utf-16"), 1),
    ],
)
async def test_json_is_read(http: httpx.AsyncClient, body: bytes, length: int) -> None:
    answer = await http.post("/length", content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()) == (200, length)


async def test_a_client_that_leaves_before_its_body_is_here_has_sent_nothing_wrong(http: httpx.AsyncClient) -> None:
    app = cast("httpx.ASGITransport", http._transport).app
    sent: list[Message] = []

    async def leaving() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/length", "query_string": b"", "headers": headers}
    await cast("FastAPI", app)(scope, leaving, send)
    assert sent[0]["status"] == CLIENT_LEFT


@pytest.mark.parametrize("piece", [b"0,", b"[],", b"{},"])
async def test_a_body_of_far_too_many_values_is_not_read(http: httpx.AsyncClient, piece: bytes) -> None:
    body = b"[" + piece * _MANY + b"0]"
    answer = await http.post("/length", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert answer.json() == {"detail": "the body has more than 100,000 values in it"}
