"""`/tokenize` and `/detokenize` as `vllm serve` has them, on the running server; images are opened by our rules."""

from typing import Any

import httpx
import pytest
from asking import CHAT, MODEL, TEXT_ONLY, About
from odd_values import check_ready


def test_a_text_is_tokenized_and_written_out_again(http: httpx.Client) -> None:
    found = http.post("/tokenize", json={"model": MODEL, "prompt": "Ünïcode 42", "return_token_strs": True}).json()
    assert found["count"] == len(found["tokens"]) == len(found["token_strs"])
    assert found["max_model_len"] > 0
    written = http.post("/detokenize", json={"model": f"{MODEL}:macro", "tokens": found["tokens"]}).json()
    assert written["prompt"].endswith("Ünïcode 42")


@pytest.mark.parametrize("mode", ["off", "macro"])
def test_a_conversation_has_as_many_tokens_as_its_prompt(http: httpx.Client, about: About, mode: str) -> None:
    for messages in (TEXT_ONLY, about("coffee", "What is it?")):
        found = http.post("/tokenize", json={"messages": messages}).json()
        body = {"messages": messages, "max_tokens": 1, "dualfocus": {"mode": mode}}
        assert found["count"] == http.post(CHAT, json=body).json()["usage"]["prompt_tokens"]


def test_an_image_that_was_only_tokenized_can_be_asked_about(http: httpx.Client, about: About) -> None:
    """vLLM's image cache must not take it for sent to the engine. No other test asks about this one."""
    messages = about("rocket", "What is it?")
    assert http.post("/tokenize", json={"messages": messages}).status_code == 200
    for mode in ("off", "dual"):
        answer = http.post(CHAT, json={"messages": messages, "max_tokens": 2, "dualfocus": {"mode": mode}})
        assert answer.status_code == 200


DEEP: dict[str, Any] = {}
for _ in range(600):
    DEEP = {"a": DEEP}


def _with_url(url: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]


@pytest.mark.parametrize(
    ("route", "body", "message", "param"),
    [
        ("/tokenize", {}, "Field required", "prompt"),
        ("/tokenize", {"prompt": 3}, "valid string", "prompt"),
        ("/tokenize", {"prompt": "a", "model": "nonesuch"}, "There is: ", "model"),
        ("/tokenize", {"messages": []}, "at least one message", "messages"),
        ("/tokenize", {"messages": [{"role": "user", "content": 3}]}, "messages.0.content", "messages.0.content"),
        ("/tokenize", {"messages": [TEXT_ONLY[0] | {"tool_calls": True}]}, "must be a list of calls", "messages"),
        ("/tokenize", {"messages": TEXT_ONLY, "chat_template_kwargs": DEEP}, "200 deep", "chat_template_kwargs"),
        ("/tokenize", {"messages": _with_url("http://127.0.0.1/a")}, "not fetched from '127.0.0.1'", None),
        ("/tokenize", {"messages": _with_url("data:,no image")}, "in no format", None),
        ("/tokenize", {"messages": _with_url("file:///etc/passwd")}, "must be a data: URL", None),
        ("/tokenize", {"messages": TEXT_ONLY, "chat_template": "{{ 7 * 7 }}"}, "trust-request-chat-template", None),
        ("/tokenize", {"messages": TEXT_ONLY, "mm_processor_kwargs": {"size": 9}}, "trust-request-mm-kwargs", None),
        ("/detokenize", {}, "Field required", "tokens"),
        ("/detokenize", {"tokens": "a"}, "valid list", "tokens"),
        ("/detokenize", {"tokens": [-1]}, "", "tokens.0"),
        ("/detokenize", {"tokens": [2**63]}, "64 bits", "tokens"),
        ("/detokenize", {"tokens": [1] * 100_001}, "100,000 values", None),
    ],
)
def test_what_is_wrong_is_said_in_openais_shape(
    http: httpx.Client, route: str, body: dict[str, Any], message: str, param: str | None
) -> None:
    answer = http.post(route, json=body)
    error = answer.json()["error"]
    assert answer.status_code in (400, 404)
    assert set(error) == {"message", "type", "param", "code"}
    assert message in error["message"]
    assert param is None or error["param"] == param
    assert http.post("/tokenize", json={"prompt": "a"}).status_code == 200


def test_ping_is_what_sagemaker_asks(http: httpx.Client) -> None:
    assert http.get("/ping").status_code == http.post("/ping").status_code == 200


def test_tokens_that_there_are_not_end_nothing(http: httpx.Client) -> None:
    assert http.post("/detokenize", json={"tokens": [10**9]}).status_code in (200, 400)
    check_ready(http)


def test_the_tokenizer_is_described(http: httpx.Client) -> None:
    """With the flag; without it there is no such route (tests/unit/api/test_app.py)."""
    assert http.get("/tokenizer_info").json()["tokenizer_class"]
