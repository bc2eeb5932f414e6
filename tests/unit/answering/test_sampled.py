"""What is refused of a request for being read, tokenized or compiled on the event loop, or repeated in each piece."""

import json
from typing import Any

import pytest
from dualfocus_server.answering.protocol import FocusRequest
from dualfocus_server.api.chat_batch import ChatBatch
from dualfocus_server.api.completions import Completion
from dualfocus_server.api.tokens import TokenizeConversation, TokenizeText
from pydantic import BaseModel, ValidationError

MESSAGES = [{"role": "user", "content": "What?"}]


def refused(body: dict[str, Any], message: str, kind: type[BaseModel] = FocusRequest) -> None:
    with pytest.raises(ValidationError, match=message):
        kind.model_validate_json(json.dumps({"messages": MESSAGES} | body))


@pytest.mark.parametrize("given", ["", "a b", "line\nbreak", "x" * 129, 5])
@pytest.mark.parametrize(
    ("kind", "body"),
    [(FocusRequest, {"messages": MESSAGES}), (Completion, {"prompt": "Once"}), (ChatBatch, {"messages": [MESSAGES]})],
)
def test_an_id_is_short_and_fit_for_a_log_line(kind: type[BaseModel], body: dict[str, Any], given: Any) -> None:
    refused(body | {"request_id": given}, "request_id must be 1 to 128 letters", kind)
    assert kind.model_validate(body | {"request_id": "chat-1.a:b"}).request_id == "chat-1.a:b"  # type: ignore[attr-defined]


def counted(number: int) -> dict[str, Any]:
    named = {f"p{place}": {"type": "string"} for place in range(number)}
    return {"type": "object", "properties": named, "minProperties": number // 2}


@pytest.mark.parametrize(
    "asks",
    [
        lambda schema: {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}},
        lambda schema: {"structured_outputs": {"json": schema}},
        lambda schema: {"structured_outputs": {"json": json.dumps(schema)}},
        lambda schema: {"tools": [{"type": "function", "function": {"name": "a", "parameters": schema}}]},
    ],
    ids=["format", "object", "text", "tool"],
)
def test_a_schema_that_takes_minutes_to_compile_is_refused(asks: Any) -> None:
    refused(asks(counted(201)), "201 properties under minProperties or maxProperties; 200 are the most")
    halves = {"anyOf": [counted(101), counted(100)]}
    refused(asks(halves), "201 properties")
    assert FocusRequest.model_validate({"messages": MESSAGES} | asks(counted(200)))
    named = {name: what for name, what in counted(1000).items() if name != "minProperties"}
    assert FocusRequest.model_validate({"messages": MESSAGES} | asks(named)), "which is compiled in milliseconds"


def test_words_that_are_forbidden_are_not_tokenized_by_the_megabyte() -> None:
    refused({"bad_words": ["a" * 5_000, "b" * 5_001]}, "bad_words have 10,001 characters; 10,000 are the most")
    assert FocusRequest.model_validate({"messages": MESSAGES, "bad_words": ["a" * 10_000]})


def test_arguments_of_calls_are_no_way_round_the_limits_of_a_body() -> None:
    calls = [{"id": "1", "type": "function", "function": {"name": "a", "arguments": json.dumps(["x"] * 60_000)}}] * 2
    refused(
        {"messages": [*MESSAGES, {"role": "assistant", "tool_calls": calls}]}, "arguments of tool_calls have 600,000"
    )


def test_what_is_only_counted_may_be_long_but_not_keep_others_waiting() -> None:
    most = "1,000,001 characters; 1,000,000 are the most at a time"
    refused({"prompt": "x" * 1_000_001}, most, TokenizeText)
    parts = [{"type": "text", "text": "x" * 500_000}, {"type": "text", "text": "y" * 500_001}]
    refused({"messages": [{"role": "user", "content": parts}]}, most, TokenizeConversation)
    assert TokenizeText.model_validate({"prompt": "x" * 1_000_000})
