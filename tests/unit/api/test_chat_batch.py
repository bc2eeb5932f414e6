"""`/v1/chat/completions/batch`: each conversation is a question of its own, in a place of its own."""

import asyncio
import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
from dualfocus_server.answering.protocol import FocusRequest
from dualfocus_server.api.chat_batch import ChatBatch, answer_batch
from dualfocus_server.app import create_app, with_outer_middleware
from dualfocus_server.guards.keys import KeyRing
from dualfocus_server.settings import Settings
from fastapi import Request

from .test_chat_service import ABOUT_AN_IMAGE, IMAGE, TEXT, FakeChat, service

ROUTE = "/v1/chat/completions/batch"


class Chat(FakeChat):
    """vLLM's chat serving, which answers with what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[FocusRequest] = []

    async def answer(self, request: FocusRequest, raw_request: Any) -> Any:
        self.asked.append(request)
        await asyncio.sleep(0)  # the others are admitted meanwhile
        assert "x-request-id" not in raw_request.headers, "vLLM would give it to every conversation"
        body = {
            "id": request.request_id,
            "model": "model",
            "choices": [{"index": 0, "message": {"content": str(request.messages[-1]["content"])}}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
            "prompt_token_ids": [1],
            "prompt_text": "What?",
            "prompt_logprobs": [None],
        }
        return SimpleNamespace(model_dump=lambda: body)


def client(chat: Any, **settings: Any) -> httpx.AsyncClient:
    app = with_outer_middleware(create_app(service(chat=chat, **settings), Settings(playground=False), KeyRing()))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server")


async def test_a_batch_may_have_as_long_an_id_as_any_request() -> None:
    chat, longest = Chat(), "x" * 128
    async with client(chat) as http:
        answer = await http.post(ROUTE, json={"messages": [TEXT]}, headers={"X-Request-Id": longest})
    assert answer.status_code == 200, answer.json()
    assert [request.request_id for request in chat.asked] == [f"{longest}_0"]


async def test_one_conversations_prompt_is_not_told_as_that_of_all() -> None:
    async with client(Chat()) as http:
        answer = await http.post(ROUTE, json={"messages": [TEXT, TEXT], "return_token_ids": True})
    assert answer.status_code == 200
    assert not {"prompt_token_ids", "prompt_text", "prompt_logprobs"} & answer.json().keys()


async def test_tools_are_taken_and_not_told_as_by_vllms_batch() -> None:
    chat, tool = Chat(), {"type": "function", "function": {"name": "look", "parameters": {}}}
    async with client(chat) as http:
        answer = await http.post(ROUTE, json={"messages": [TEXT], "tools": [tool]})
    assert answer.status_code == 200, answer.json()
    assert [(request.tools, request.tool_choice) for request in chat.asked] == [(None, "none")]


async def test_a_body_of_another_type_is_named() -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    async with client(Chat()) as http:
        answer = await http.post("/v1/chat/completions", content=b'{"messages": []}', headers=form)
    assert answer.status_code == 400
    assert "sent with Content-Type: application/json" in answer.json()["error"]["message"]


async def test_a_conversation_with_a_picture_is_looked_at_twice_and_one_without_is_vllms() -> None:
    chat = Chat()
    body = {"messages": [TEXT, ABOUT_AN_IMAGE, TEXT], "model": "model", "temperature": 0.5, "store": False}
    async with client(chat) as http:
        answer = await http.post(ROUTE, json=body, headers={"X-Request-Id": "mine"})
    told = answer.json()
    assert answer.status_code == 200, told
    assert [choice["index"] for choice in told["choices"]] == [0, 1, 2]
    assert [choice.get("dualfocus", {}).get("winner") for choice in told["choices"]] == [None, "micro", None]
    assert [choice["message"]["content"] for choice in told["choices"]] == ["What?", "micro answer", "What?"]
    assert (told["id"], answer.headers["X-Request-Id"]) == ("chatcmpl-mine", "mine")
    assert "dualfocus" not in told
    assert [request.request_id for request in chat.asked] == ["mine_0", "mine_2"]
    assert {request.temperature for request in chat.asked} == {0.5}
    # Two of vLLM's, and three turns whose prompts are those of the scripted engine.
    assert told["usage"]["total_tokens"] == told["usage"]["prompt_tokens"] + told["usage"]["completion_tokens"] > 6


@pytest.mark.parametrize("model", ["model:macro", "model:off"])
async def test_a_mode_holds_for_all_conversations(model: str) -> None:
    async with client(Chat()) as http:
        named = (await http.post(ROUTE, json={"messages": [ABOUT_AN_IMAGE] * 2, "model": model})).json()
        options = {"mode": model.partition(":")[2]}
        given = (await http.post(ROUTE, json={"messages": [ABOUT_AN_IMAGE] * 2, "dualfocus": options})).json()
    for told in (named, given):
        modes = [choice.get("dualfocus", {}).get("mode") for choice in told["choices"]]
        assert modes == ([None, None] if model.endswith("off") else ["macro", "macro"])


FAR = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://127.0.0.1/a"}}]}]


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({}, "messages", "required"),
        ({"messages": []}, "messages", "at least 1"),
        ({"messages": [TEXT] * 129}, "messages", "at most 128"),
        ({"messages": TEXT}, "messages.0", "valid list"),
        ({"messages": [TEXT, []]}, "messages.1", "at least 1"),
        ({"messages": [TEXT, [{"role": "user", "content": 3}]]}, "messages.1.0.content", "must be a string or a list"),
        ({"messages": [[{"role": 3}]]}, "messages.0.0.role", "must be system"),
        ({"messages": [TEXT], "stream": True}, "stream", "must be false"),
        ({"messages": [TEXT], "n": 2}, "n", "do not support `n > 1`"),
        ({"messages": [TEXT], "use_beam_search": True}, "use_beam_search", "do not support beam search"),
        ({"messages": [TEXT], "temperature": "x"}, "temperature", "valid number"),
        ({"messages": [TEXT], "dualfocus": {"mode": "x"}}, "dualfocus.mode", "dual"),
        ({"messages": [TEXT], "dualfocus": {"return_crop": True}}, "dualfocus.return_crop", "one conversation"),
        ({"messages": [TEXT] * 20, "chat_template_kwargs": {"a": [0] * 60_000}}, None, "more than 1,000,000 together"),
        ({"messages": [TEXT], "vllm_xargs": {"dualfocus": 1}}, "vllm_xargs", "is reserved"),
        ({"messages": [TEXT, [{"role": "user", "content": [IMAGE] * 3}]]}, None, "3 images"),
        ({"messages": [TEXT, FAR]}, None, "not fetched from '127.0.0.1'"),
    ],
)
async def test_what_is_wrong_is_said_by_its_place(fields: dict[str, Any], param: str | None, message: str) -> None:
    async with client(Chat()) as http:
        answer = await http.post(ROUTE, json=fields)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, param), error
    assert message in error["message"]


async def test_others_are_served_while_a_batch_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    read = FocusRequest.model_validate
    monkeypatch.setattr(FocusRequest, "model_validate", lambda body: done.append("read") or read(body))

    async def another() -> None:
        for _ in range(3):
            done.append("another")
            await asyncio.sleep(0)

    asked = ChatBatch.model_validate({"messages": [TEXT] * 4, "dualfocus": {"mode": "off"}})
    app = create_app(service(chat=cast("Any", Chat())), Settings(playground=False), KeyRing())
    raw = Request({"type": "http", "headers": [], "app": app})
    await asyncio.gather(answer_batch(asked, raw), another())
    assert done[:5] == ["read", "another", "read", "another", "read"]


async def test_more_conversations_than_there_could_ever_be_places_for_are_refused_for_good() -> None:
    few = replace(service(chat=cast("Any", Chat())), most_questions=6)
    app = create_app(few, Settings(playground=False), KeyRing())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server") as http:
        answer = await http.post(ROUTE, json={"messages": [TEXT] * 7})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["param"] == "messages"
    assert "7 conversations are asked at once, and may be 6 (--max-questions" in error["message"]


async def test_more_conversations_than_there_are_places_are_refused_together() -> None:
    app = create_app(service(chat=cast("Any", Chat())), Settings(playground=False), KeyRing())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server") as http:
        answers = [await http.post(ROUTE, json={"messages": [TEXT] * number}) for number in (7, 6)]
    assert [answer.status_code for answer in answers] == [429, 200], json.dumps(answers[1].json())
    assert app.state.service.admission.admitted == 0
