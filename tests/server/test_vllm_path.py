"""What DualFocus does not concern is answered by vLLM's own chat serving; and the other routes."""

from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import httpx
import pytest
from openai import NotFoundError, OpenAI

About = Callable[[str, str], list[dict[str, Any]]]
MODEL = "dualfocus-starter"
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}


def test_text_alone(client: OpenAI) -> None:
    messages: Any = [{"role": "user", "content": "Hello"}]
    answer = client.chat.completions.create(model=MODEL, messages=messages, max_tokens=5)
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 5
    assert not hasattr(answer, "dualfocus")


@pytest.mark.parametrize(
    ("options", "choices"),
    [({"n": 2, "temperature": 1.0}, 2), ({"tools": [TOOL], "tool_choice": "none"}, 1), ({"n": 1, "logit_bias": {}}, 1)],
)
def test_requests_with_an_image(client: OpenAI, about: About, options: dict[str, Any], choices: int) -> None:
    messages: Any = about("coffee", "What is it?")
    answer = client.chat.completions.create(model=MODEL, messages=messages, max_tokens=5, **options)
    assert len(answer.choices) == choices
    assert hasattr(answer, "dualfocus") is ("logit_bias" in options)


def test_streams(client: OpenAI) -> None:
    messages: Any = [{"role": "user", "content": "Hello"}]
    chunks = list(client.chat.completions.create(model=MODEL, messages=messages, max_tokens=6, stream=True))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices[0].finish_reason == "length"


def test_an_unknown_model(client: OpenAI, about: About) -> None:
    messages: Any = about("coffee", "What is it?")
    with pytest.raises(NotFoundError, match="`nonesuch` does not exist"):
        client.chat.completions.create(model="nonesuch", messages=messages)


def test_models(client: OpenAI) -> None:
    names = [model.id for model in client.models.list()]
    assert names == [MODEL, *(f"{MODEL}:{mode}" for mode in ("dual", "macro", "micro", "off"))]


def test_health_ready_version(http: httpx.Client) -> None:
    assert http.get("/health").status_code == 200
    assert http.get("/ready").json() == {"status": "ready"}
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
    response = http.post("/v1/chat/completions", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 400
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert message in error["message"]


def test_unknown_routes_and_methods_are_refused_in_openais_shape(http: httpx.Client) -> None:
    missing, wrong = http.get("/v2/nothing"), http.get("/v1/chat/completions")
    assert (missing.status_code, wrong.status_code) == (404, 405)
    assert missing.json()["error"]["message"] == "Not Found: GET /v2/nothing"
    assert wrong.json()["error"]["type"] == "invalid_request_error"
