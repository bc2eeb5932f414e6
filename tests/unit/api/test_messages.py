"""The Messages API on a scripted engine: what goes wrong in a stream, silence, ids."""

import base64
import json
from typing import Any

import pytest
from dualfocus_engine.method.results import Turn
from dualfocus_server.answering import streaming
from dualfocus_server.answering.service import Service
from dualfocus_server.api.messages.protocol import MessagesRequest
from dualfocus_server.api.messages.routes import answer_message
from dualfocus_server.guards.api_errors import ApiError, VllmResponseError
from dualfocus_server.guards.http_errors import Stalled
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from PIL import Image
from vllm.entrypoints.anthropic.serving import AnthropicServingMessages
from vllm.entrypoints.generate.base.protocol import FunctionCall
from vllm.exceptions import VLLMValidationError

from ..builders import encoded, turn
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


# Thoughts and calls.
_DATA = base64.b64encode(encoded(Image.new("RGB", (40, 30)))).decode()
_PICTURE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": _DATA}}
ABOUT = [{"role": "user", "content": [_PICTURE, {"type": "text", "text": "What?"}]}]
CALLS = (FunctionCall(name="look", arguments='{"side": "left"}'), FunctionCall(name="ask", arguments="{}"))
THOUGHTFUL = turn("It is red.", 0.1, reasoning="Hm.", thought_tokens=1)
CALLING = turn("Let me look.", reasoning="Hm.", thought_tokens=1, tool_calls=CALLS)


def blocks_of(lines: list[str]) -> list[dict[str, Any]]:
    """The blocks that a client puts together of a stream, which come one behind the other."""
    blocks: list[dict[str, Any]] = []
    for line in lines:
        event = json.loads(line.splitlines()[1].removeprefix("data: "))
        if event["type"] == "content_block_start":
            assert event["index"] == len(blocks)
            blocks.append({name: value for name, value in event["content_block"].items() if name != "id"})
        elif event["type"] == "content_block_delta":
            assert event["index"] == len(blocks) - 1
            for name, value in event["delta"].items():
                blocks[-1][name] = blocks[-1].get(name, "") + value if name != "type" else blocks[-1]["type"]
    return blocks


@pytest.mark.parametrize(
    ("macro", "kinds", "ending"),
    [
        (THOUGHTFUL, ["thinking", "text"], "end_turn"),
        (CALLING, ["thinking", "text", "tool_use", "tool_use"], "tool_use"),
    ],
)
async def test_thoughts_and_calls_are_blocks_of_their_own(macro: Turn, kinds: list[str], ending: str) -> None:
    on = service(chat=Chat(), macro=macro, micro=turn("micro", 9.0))
    whole = json.loads((await asked_of(on, messages=ABOUT)).body)
    assert [block["type"] for block in whole["content"]] == kinds
    assert (whole["stop_reason"], whole["content"][0]["thinking"]) == (ending, "Hm.")
    lines = await lines_of(await asked_of(on, messages=ABOUT, stream=True))
    blocks = blocks_of(lines)
    assert [block["type"] for block in blocks] == kinds
    assert (blocks[0]["thinking"], blocks[1]["text"]) == ("Hm.", macro.text)
    assert [json.loads(block["partial_json"]) for block in blocks[2:]] == [
        block["input"] for block in whole["content"][2:]
    ]
    assert json.loads(lines[-2].splitlines()[1].removeprefix("data: "))["delta"]["stop_reason"] == ending


async def test_a_call_that_was_cut_has_no_input_in_a_whole_answer() -> None:
    cut = turn('{"side": "le', 0.1, finish_reason="length")
    tools = {
        "tools": [{"name": "look", "input_schema": {"type": "object"}}],
        "tool_choice": {"type": "tool", "name": "look"},
    }
    whole = json.loads((await asked_of(service(chat=Chat(), macro=cut, micro=cut), messages=ABOUT, **tools)).body)
    assert [(block["type"], block["input"]) for block in whole["content"]] == [("tool_use", {})]
    assert whole["stop_reason"] == "max_tokens"
    stopped = turn('{"side": "le', 0.1, stop_reason="ft")
    on = service(chat=Chat(), macro=stopped, micro=stopped)
    whole = json.loads((await asked_of(on, messages=ABOUT, stop_sequences=["ft"], **tools)).body)
    assert (whole["stop_reason"], whole["stop_sequence"]) == ("stop_sequence", "ft"), "it is not to be run"
