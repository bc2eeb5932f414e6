"""`/invocations` is the route that a body fits, errors and streams included; `/load` counts what is in flight."""

import json
from typing import Any, cast

import httpx
import pytest
from dualfocus_engine.method.stages import Stages
from dualfocus_server.app import create_app
from dualfocus_server.guards.keys import KeyRing
from dualfocus_server.settings import Settings

from .test_chat_batch import Chat
from .test_chat_service import ABOUT_AN_IMAGE, CONTENT, IMAGE, TEXT, FakeChat, service
from .test_completions import PIECE, Texts


class Both(Texts, Chat):
    """vLLM's servings of chat and of completions."""

    stream = FakeChat.stream


async def both_ways(body: bytes, path: str, chat: Any = None) -> list[httpx.Response]:
    app = create_app(service(chat=chat or Both(PIECE)), Settings(playground=False), KeyRing())
    transport, headers = httpx.ASGITransport(app), {"Content-Type": "application/json"}
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as http:
        return [await http.post(route, content=body, headers=headers) for route in ("/invocations", path)]


CHAT, TEXTS = "/v1/chat/completions", "/v1/completions"


@pytest.mark.parametrize(
    ("body", "path", "status"),
    [
        ({"messages": ABOUT_AN_IMAGE, "request_id": "a"}, CHAT, 200),
        ({"messages": ABOUT_AN_IMAGE, "stream": True, "request_id": "a"}, CHAT, 200),
        ({"messages": ABOUT_AN_IMAGE, "prompt": "b", "model": "model:macro", "request_id": "a"}, CHAT, 200),
        ({"prompt": "a", "stream": True}, TEXTS, 200),
        ({"messages": []}, CHAT, 400),
        ({"messages": [{"role": "user", "content": [IMAGE] * 3}]}, CHAT, 400),
        ({"messages": TEXT, "vllm_xargs": {"dualfocus": 1}}, CHAT, 400),
        ({"prompt": [9]}, TEXTS, 400),
        ({"prompt": 3}, TEXTS, 400),
        ({"prompt_embeds": 3}, TEXTS, 400),
    ],
)
async def test_a_body_is_answered_as_its_route_answers_it(body: Any, path: str, status: int) -> None:
    passed, direct = await both_ways(json.dumps(body).encode(), path)
    assert passed.status_code == direct.status_code == status
    if status == 400:
        assert passed.json() == direct.json()
    elif body.get("stream"):
        assert passed.text.count("data: ") == direct.text.count("data: ") > 0
        assert passed.text.endswith(direct.text[-len(PIECE) :])
    else:
        choices = [answer.json()["choices"] for answer in (passed, direct)]
        assert choices[0] == choices[1]
        assert passed.json()["dualfocus"]["winner"] == direct.json()["dualfocus"]["winner"]


async def test_a_text_is_vllms() -> None:
    texts = Texts()
    passed, _ = await both_ways(b'{"prompt": "Once"}', TEXTS, texts)
    assert passed.status_code == 200
    assert [request.prompt for request in texts.asked] == ["Once", "Once"]


@pytest.mark.parametrize("body", [b"{", b"", b"\xff", b"[" * 100_000], ids=["cut", "empty", "bytes", "deep"])
async def test_what_is_no_json_is_said_as_elsewhere(body: bytes) -> None:
    passed, direct = await both_ways(body, CHAT)
    assert (passed.status_code, passed.json()) == (direct.status_code, direct.json())
    assert passed.status_code == 400


@pytest.mark.parametrize("body", [b"{}", b"[]", b"3", b'{"inputs": "a"}'])
async def test_a_body_that_fits_no_route_is_told_what_would(body: bytes) -> None:
    passed, _ = await both_ways(body, CHAT)
    assert passed.status_code == 400
    assert "none of messages, prompt, prompt_embeds" in passed.json()["error"]["message"]


async def test_the_load_is_what_runs_and_waits() -> None:
    app = create_app(service(chat=cast("Any", FakeChat(CONTENT))), Settings(playground=False), KeyRing())
    admission = app.state.service.admission
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server") as http:
        with await admission.admit("a", Stages()), await admission.admit("b", Stages()):
            busy = await http.get("/load")
        idle = await http.get("/load")
    assert (busy.json(), idle.json()) == ({"server_load": 2}, {"server_load": 0})
