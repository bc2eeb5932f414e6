"""The Messages API on a scripted engine: what goes wrong in a stream, silence, ids."""

import json
from typing import Any

import pytest
from dualfocus_server.answering import streaming
from dualfocus_server.answering.service import Service
from dualfocus_server.api.messages.protocol import MessagesRequest
from dualfocus_server.api.messages.routes import answer_message
from dualfocus_server.guards.api_errors import ApiError, VllmResponseError
from dualfocus_server.guards.http_errors import Stalled
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from vllm.entrypoints.anthropic.serving import AnthropicServingMessages
from vllm.exceptions import VLLMValidationError

from .test_chat_service import CONTENT, ROLE, TEXT, FakeChat, lines_of, service


def as_pieces(*events: str) -> list[str]:
    """vLLM's pieces, with the fields that its conversion wants."""
    return [event.replace('"id":"1",', '"id":"1","created":1,"model":"m",', 1) for event in events]


class Chat(FakeChat):
    """vLLM's servings; their conversions need no engine."""

    def __init__(self, *events: str) -> None:
        super().__init__(*as_pieces(*events))
        self.messages = object.__new__(AnthropicServingMessages)
        self.messages._merge_inline_system = False


def asked_of(on: Service, **fields: Any) -> Any:
    """Ask a service as its route does."""
    app = FastAPI()
    app.state.service = on
    body = {"model": "model", "max_tokens": 4, "messages": TEXT} | fields
    raw_request = Request({"type": "http", "headers": [], "app": app})
    return answer_message(MessagesRequest.model_validate(body), raw_request)


def kinds(lines: list[str]) -> list[str]:
    """The types of events."""
    return [json.loads(line.splitlines()[1].removeprefix("data: "))["type"] for line in lines]


async def test_what_vllm_fails_at_behind_a_piece_of_the_answer_is_an_event_of_anthropics() -> None:
    chat = Chat(ROLE, CONTENT)
    response = await asked_of(service(chat=chat), stream=True)
    chat.is_read.set()
    lines = await lines_of(response)
    assert kinds(lines) == ["message_start", "content_block_start", "content_block_delta", "error"]
    name, data = lines[-1].strip().splitlines()
    assert name == "event: error"
    assert json.loads(data.removeprefix("data: "))["error"]["type"] == "api_error"


@pytest.mark.parametrize("error", [VllmResponseError(ApiError(400, "could not finish")), Stalled(9)])
async def test_what_vllm_fails_at_before_any_text_has_its_status(error: Exception) -> None:
    chat = Chat(ROLE)
    chat.fails = error
    with pytest.raises(type(error)):
        await asked_of(service(chat=chat), stream=True)


async def test_a_silence_is_broken_by_pings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "_LONGEST_SILENCE_S", 2.0**-10)
    response = await asked_of(service(chat=Chat(ROLE, CONTENT)), stream=True)
    lines = response.body_iterator
    read = [str(await anext(lines)) for _ in range(6)]
    response._events.stop()
    assert kinds(read)[-1] == "ping"


_UNKNOWN = {"type": "tool_addition", "tool": {"type": "tool_reference", "name": "nonesuch"}}
_IMAGE = {"type": "image", "source": {"type": "url", "url": "https://example.org/a"}}
_RESULT = {"type": "tool_result", "tool_use_id": "1", "content": [_IMAGE] * 1_001}


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"messages": [{"role": "system", "content": [_UNKNOWN]}]}, VLLMValidationError),
        ({"tool_choice": {"type": "tool", "name": "nonesuch"}}, VLLMValidationError),
        ({"messages": [{"role": "user", "content": [_RESULT]}]}, RequestValidationError),
    ],
)
async def test_what_can_not_be_made_a_chat_completion_is_the_clients_error(
    fields: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        await asked_of(service(chat=Chat()), **fields)
