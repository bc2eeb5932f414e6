"""What DualFocus does not concern is answered by vLLM's own chat serving; and the other routes."""

import json
from importlib.metadata import version
from typing import Any

import httpx
import pytest
from asking import CHAT, MODEL, TEXT_ONLY, About, ask, chunks, events
from odd_values import check_ready
from openai import BadRequestError, NotFoundError, OpenAI

# Tokens: tab, line feed, carriage return, space; and what closes an answer.
WHITESPACE, END = ("201", "202", "205", "224"), "1"
SIDES = {
    "type": "object",
    "properties": {"side": {"enum": ["left", "right"]}},
    "required": ["side"],
    "additionalProperties": False,
}
TOOL = {"type": "function", "function": {"name": "look", "parameters": SIDES, "strict": True}}
OTHER_TOOL = {"type": "function", "function": {"name": "other", "parameters": SIDES, "strict": True}}


def test_text_alone(client: OpenAI) -> None:
    answer = ask(client, TEXT_ONLY, max_tokens=5, logit_bias={END: -100})
    assert answer.usage.completion_tokens == 5
    assert not hasattr(answer, "dualfocus")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"tools": [TOOL, OTHER_TOOL], "tool_choice": "required"}, "tools"),
        ({"extra_body": {"echo": True}}, "echo"),
        ({"n": 2, "temperature": 1.0, "extra_body": {"echo": True}}, "echo"),
        ({"extra_body": {"dualfocus": {"mode": "off"}, "echo": True}}, None),
    ],
)
def test_what_keeps_a_picture_from_a_second_look_is_said(
    client: OpenAI, about: About, options: dict[str, Any], reason: str | None, stream: bool
) -> None:
    asked = {"model": MODEL, "messages": about("coffee", "What is it?"), "max_tokens": 5} | options
    answer: Any = client.chat.completions.create(**asked, stream=stream)
    last = [piece for piece in answer if piece.choices and piece.choices[0].finish_reason] if stream else [answer]
    told = {"mode": "off", "because": reason}
    assert [getattr(piece, "dualfocus", None) for piece in last] == [told if reason else None] * len(last)
    assert len(last) == (options.get("n", 1) if stream else 1)
    assert stream or len(answer.choices) == options.get("n", 1)


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [TOOL], "tool_choice": "none"},
        {"tools": []},
        {"tools": [], "tool_choice": "auto"},
        {"tool_choice": "none"},
        {"tools": None, "tool_choice": "auto"},
    ],
)
@pytest.mark.parametrize("image", ["an image", "none"])
def test_tools_that_can_not_be_called_change_nothing(
    http: httpx.Client, about: About, fields: dict[str, Any], image: str
) -> None:
    """Clients send them with everything; vLLM refuses some of them."""
    messages = about("coffee", "What is it?") if image == "an image" else TEXT_ONLY
    body = {"messages": messages, "max_tokens": 4, "temperature": 0}
    plain, answer = [http.post(CHAT, json=body | more) for more in ({}, fields)]
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["message"]["content"] == plain.json()["choices"][0]["message"]["content"]
    assert ("dualfocus" in answer.json()) is (image == "an image")


def test_the_reason_is_counted(http: httpx.Client, client: OpenAI, about: About) -> None:
    def count() -> float:
        line = 'dualfocus_passthrough_questions_total{reason="add_special_tokens"} '
        found = [text for text in http.get("/metrics").text.splitlines() if text.startswith(line)]
        return float(found[0].removeprefix(line)) if found else 0

    before = count()
    extra = {"add_special_tokens": True}
    client.chat.completions.create(
        model=MODEL,
        messages=about("coffee", "What?"),
        max_tokens=2,
        extra_body=extra,  # type: ignore[arg-type]
    )
    assert count() == before + 1


@pytest.mark.parametrize("stream", [False, True])
def test_the_chosen_answers_tokens(client: OpenAI, http: httpx.Client, about: About, stream: bool) -> None:
    body = {"model": MODEL, "messages": about("coffee", "What?"), "max_tokens": 5, "return_token_ids": True}
    if stream:
        pieces = chunks(events(http, **body))
        (told,) = [piece for piece in pieces if "dualfocus" in piece]
    else:
        told = http.post(CHAT, json=body).json()
    focus = told["dualfocus"]
    assert len(told["choices"][0]["token_ids"]) == focus[focus["winner"]]["tokens"]
    assert len(told["prompt_token_ids"]) == focus["turns"][focus["winner"]]["prompt_tokens"]


def test_streams(client: OpenAI) -> None:
    chunks = list(ask(client, TEXT_ONLY, max_tokens=6, logit_bias={END: -100}, stream=True))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices[0].finish_reason == "length"


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "look"}}])
@pytest.mark.parametrize("stream", [False, True])
def test_a_tool_is_called(client: OpenAI, about: About, choice: Any, stream: bool) -> None:
    # An untrained model would write whitespace between any two tokens, and call after call.
    bias = dict.fromkeys(WHITESPACE, -100) | {END: 100}
    wish = {"tools": [TOOL], "tool_choice": choice, "max_tokens": 100, "logit_bias": bias}
    answer = ask(client, about("coffee", "What is it?"), stream=stream, **wish)
    parts = [chunk.choices[0].delta for chunk in answer] if stream else [answer.choices[0].message]
    calls = [call.function for part in parts for call in part.tool_calls or []]
    assert calls[0].name == "look"
    assert json.loads("".join(call.arguments or "" for call in calls))["side"] in ("left", "right")


@pytest.mark.parametrize("mode", ["dual", "off"])
def test_an_image_of_a_refused_question_can_be_asked_about(client: OpenAI, about: About, mode: str) -> None:
    """vLLM takes it for sent to its engine, which it was not. No other test asks about this one."""
    image = {"dual": "moon", "off": "clock"}[mode]
    with pytest.raises(BadRequestError, match="tokens long"):
        ask(client, about(image, "why " * 600), {"mode": mode})
    assert ask(client, about(image, "What?"), {"mode": mode}, max_tokens=4).usage.completion_tokens > 0


def test_a_request_id_that_is_no_id_does_not_come_back(http: httpx.Client) -> None:
    body = {"messages": TEXT_ONLY, "max_tokens": 2}
    kept = http.post(CHAT, json=body, headers={"X-Request-Id": "mine-1"})
    replaced = http.post(CHAT, json=body, headers={"X-Request-Id": "two words"})
    assert kept.json()["id"] == "chatcmpl-mine-1"
    assert replaced.json()["id"] == f"chatcmpl-{replaced.headers['X-Request-Id']}"


def test_an_unknown_model(client: OpenAI, about: About) -> None:
    with pytest.raises(NotFoundError, match=f"`nonesuch` does not exist. There is: {MODEL}."):
        ask(client, about("coffee", "What is it?"), model="nonesuch")


def test_models(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [MODEL]
    assert [client.models.retrieve(name).id for name in (MODEL, f"{MODEL}:macro")] == [MODEL, f"{MODEL}:macro"]


def test_health_ready_version(http: httpx.Client) -> None:
    assert http.get("/health").status_code == 200
    check_ready(http)
    assert http.get("/version").json() == {"version": version("dualfocus"), "vllm": "0.32.0"}


def test_metrics_hold_vllms_and_ours(http: httpx.Client) -> None:
    text = http.get("/metrics").text
    assert "dualfocus_unfinished_turns" in text
    assert "vllm:prompt_tokens_total" in text


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "The body is not valid JSON"),
        (b"[]", "messages must be a list"),
        (b"{}", "messages must be a list"),
        (b'{"messages": 3}', "messages must be a list"),
        (b'{"messages": []}', "messages must be a list"),
        (b'{"messages": ["hi"]}', "messages must be a list"),
        (b'{"messages": [{"role": "user", "content": "hi"}], "temperature": "hot"}', "temperature"),
        (b'{"messages": [{"role": "user", "content": "hi"}], "max_tokens": -1}', "max_tokens"),
        (b'{"messages": [{"role": "user", "content": "hi"}], "temperature": -1}', "temperature"),
        (b'{"messages": [{"content": "hi"}]}', "role"),
        (b'{"messages": [{"role": "user", "content": [{"type": "image_url"}, {"type": "text", "text": "a"}]}]}', "url"),
    ],
)
def test_bad_bodies_are_refused_in_openais_shape(http: httpx.Client, body: bytes, message: str) -> None:
    response = http.post(CHAT, content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 400
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert message in error["message"]


def test_unknown_routes_and_methods_are_refused_in_openais_shape(http: httpx.Client) -> None:
    missing, wrong = http.get("/v2/nothing"), http.get(CHAT)
    assert (missing.status_code, wrong.status_code) == (404, 405)
    assert missing.json()["error"]["message"].startswith("Not Found: GET /v2/nothing. There is: POST /v1/chat/")
    assert wrong.json()["error"]["type"] == "invalid_request_error"
