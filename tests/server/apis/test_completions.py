"""`/v1/completions` as `vllm serve` has it, by the official client on the running server."""

from typing import Any

import httpx
import openai
import pytest
from asking import MODEL, TEXT_ONLY, chunks
from openai import OpenAI

ROUTE = "/v1/completions"
GREEDY: dict[str, Any] = {"model": MODEL, "temperature": 0, "max_tokens": 4}


def test_texts_are_continued_and_counted(client: OpenAI) -> None:
    drawn = GREEDY | {"temperature": 1, "extra_body": {"ignore_eos": True}}
    answer = client.completions.create(prompt=["Once upon", "Hello"], n=2, **drawn)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 16
    assert answer.id.startswith("cmpl-")
    assert "ec_transfer_params" not in answer.model_dump(exclude_none=True), "the engine's own count, no transfer"


def test_a_stream_says_the_same_text_and_its_usage(client: OpenAI) -> None:
    whole = client.completions.create(prompt="Once upon", **GREEDY)
    pieces = list(
        client.completions.create(prompt="Once upon", stream=True, stream_options={"include_usage": True}, **GREEDY)
    )
    assert "".join(piece.choices[0].text for piece in pieces if piece.choices) == whole.choices[0].text
    assert whole.usage is not None
    assert pieces[-1].usage is not None
    assert pieces[-1].usage.total_tokens == whole.usage.total_tokens


def test_tokens_are_continued_as_their_text_is(client: OpenAI, http: httpx.Client) -> None:
    tokens = http.post("/tokenize", json={"prompt": "Once upon"}).json()["tokens"]
    by_text = client.completions.create(prompt="Once upon", echo=True, logprobs=1, **GREEDY)
    by_tokens = client.completions.create(prompt=tokens, extra_body={"add_special_tokens": False}, **GREEDY)
    assert by_text.choices[0].text.endswith(f"Once upon{by_tokens.choices[0].text}")
    assert by_text.choices[0].logprobs is not None
    assert len(by_text.choices[0].logprobs.tokens or ()) == len(tokens) + 4


def test_the_answer_has_the_requests_id(http: httpx.Client) -> None:
    answer = http.post(ROUTE, json={"prompt": "a", "max_tokens": 1}, headers={"X-Request-Id": "mine"})
    assert answer.headers["X-Request-Id"] == "mine"
    assert answer.json()["id"] == "cmpl-mine"


def test_a_name_that_chooses_a_mode_is_its_models(client: OpenAI) -> None:
    answer = client.completions.create(prompt="Once", **(GREEDY | {"model": f"{MODEL}:micro"}))
    assert answer.model == MODEL
    with pytest.raises(openai.NotFoundError, match="There is: "):
        client.completions.create(prompt="Once", **(GREEDY | {"model": "nonesuch"}))


def test_a_prompt_that_is_too_long_is_told_with_both_lengths(http: httpx.Client) -> None:
    for prompt in ("a " * 20_000, [5] * 20_000):
        error = http.post(ROUTE, json={"prompt": prompt}).json()["error"]
        assert error["code"] == "context_length_exceeded", error


@pytest.mark.parametrize("stream", [False, True])
def test_what_the_engine_refuses_has_its_status(http: httpx.Client, stream: bool) -> None:
    body = {"prompt": "a", "logit_bias": {"99999999": 1}, "stream": stream}
    answer = http.post(ROUTE, json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "logit_bias"


def test_pictures_words_are_words(http: httpx.Client) -> None:
    """A picture's placeholder in a text is told apart from the picture's own."""
    image = "<image>"
    tokens = http.post("/tokenize", json={"prompt": image, "add_special_tokens": False}).json()["tokens"]
    answer = http.post(ROUTE, json={"prompt": image, "max_tokens": 1, "return_token_ids": True}).json()
    assert not set(tokens) <= set(answer["choices"][0]["prompt_token_ids"])


def test_a_stream_ends_as_openais_do(http: httpx.Client) -> None:
    with http.stream("POST", ROUTE, json={"prompt": "a", "max_tokens": 2, "stream": True}) as response:
        lines = [line for line in response.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    assert {piece["object"] for piece in chunks(lines)} == {"text_completion"}
    assert http.post("/v1/chat/completions", json={"messages": TEXT_ONLY, "max_tokens": 1}).status_code == 200
