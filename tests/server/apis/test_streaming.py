"""Streams that every client can read: pieces of vLLM's shape, refusals by status, nothing but events."""

from typing import Any

import httpx
import pytest
from asking import CHAT, MODEL, TEXT_ONLY, About, ask, ask_and_leave, chunks, events
from openai import APIError, BadRequestError, OpenAI
from openai.types.chat import ChatCompletionChunk
from running_server import Server, frozen_engine

LOOKS = ("dual", "regions", "search", "adaptive", "macro", "micro")
MODES = (*LOOKS, "off")


def text_of(parts: list[dict[str, Any]]) -> str:
    """Add up the content, as a client does that does not look first."""
    return "".join(part["choices"][0]["delta"]["content"] for part in parts if part["choices"])


def focus_of(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [part["dualfocus"] for part in parts if "dualfocus" in part]


def test_a_stream_tells_the_same_as_a_whole_answer(http: httpx.Client, about: About) -> None:
    body = {"messages": about("astronaut", "What is on the badge?"), "temperature": 0}
    whole = http.post(CHAT, json=body).json()
    lines = events(http, **body, stream_options={"include_usage": True})
    parts = chunks(lines)
    assert parts[0]["choices"][0]["delta"]["role"] == "assistant"
    assert text_of(parts) == whole["choices"][0]["message"]["content"]
    (found,) = focus_of(parts)
    for name in ("winner", "selection", "box", "crop"):
        assert found[name] == whole["dualfocus"][name]
    assert parts[-2]["choices"][0]["finish_reason"] == whole["choices"][0]["finish_reason"]
    assert parts[-1]["choices"] == []
    assert parts[-1]["usage"]["prompt_tokens"] == whole["usage"]["prompt_tokens"]
    assert {part["system_fingerprint"] for part in parts[-1:]} == {whole["system_fingerprint"]}
    assert lines[-1] == "data: [DONE]"
    assert len({part["id"] for part in parts}) == 1


def test_usage_comes_only_where_it_is_asked_for(http: httpx.Client, about: About) -> None:
    parts = chunks(events(http, messages=about("coffee", "What?"), max_tokens=4))
    assert not any(part.get("usage") for part in parts)


def test_macro_streams_its_tokens_as_they_are_made(http: httpx.Client, about: About) -> None:
    body = {"messages": about("coffee", "What?"), "max_tokens": 40, "ignore_eos": True, "temperature": 0}
    focus = {"mode": "macro"}
    whole = http.post(CHAT, json=body | {"dualfocus": focus}).json()
    parts = chunks(events(http, **body, dualfocus=focus))
    contents = [part for part in parts if part["choices"] and part["choices"][0]["delta"].get("content")]
    assert len(contents) > 1  # vLLM joins what a busy machine has not fetched yet
    assert text_of(parts) == whole["choices"][0]["message"]["content"]
    assert [("dualfocus" in part) for part in contents] == [False] * (len(contents) - 1) + [True]


# What clients read.


@pytest.mark.parametrize("mode", MODES)
def test_nothing_but_events_comes(http: httpx.Client, about: About, mode: str) -> None:
    lines = events(http, messages=about("coffee", "What?"), max_tokens=4, dualfocus={"mode": mode})
    assert all(line.startswith("data: ") for line in lines), "no comments, which several clients can't read"


@pytest.mark.parametrize("mode", MODES)
def test_every_piece_but_the_last_has_finish_reason_null(http: httpx.Client, about: About, mode: str) -> None:
    parts = chunks(events(http, messages=about("coffee", "What?"), max_tokens=4, dualfocus={"mode": mode}))
    reasons = [part["choices"][0]["finish_reason"] for part in parts]
    assert reasons[:-1] == [None] * (len(parts) - 1)
    assert reasons[-1] in ("stop", "length")


@pytest.mark.parametrize("mode", LOOKS)
def test_the_last_piece_has_no_content_and_the_stop_reason(http: httpx.Client, about: About, mode: str) -> None:
    # Every token may end it: an untrained model says anything.
    ends = {"stop_token_ids": list(range(3, 250)), "ignore_eos": True, "max_tokens": 4}
    last = chunks(events(http, messages=about("coffee", "What?"), dualfocus={"mode": mode}, **ends))[-1]
    (choice,) = last["choices"]
    assert choice["delta"] == {"content": ""}
    assert choice["finish_reason"] == "stop"
    assert choice["stop_reason"] in ends["stop_token_ids"]


@pytest.mark.parametrize("mode", MODES)
def test_openais_types_find_every_key_that_they_require(http: httpx.Client, about: About, mode: str) -> None:
    focus = {"mode": mode, "progress": True}
    for part in chunks(events(http, messages=about("coffee", "What?"), max_tokens=4, temperature=0, dualfocus=focus)):
        ChatCompletionChunk.model_validate(part, strict=True)
        choice = part["choices"][0]
        if mode != "off" or choice["finish_reason"] is None:  # with a parser, vLLM's last piece may have none
            assert isinstance(choice["delta"]["content"], str)


@pytest.mark.parametrize("mode", MODES)
def test_the_official_client_puts_the_pieces_together(client: OpenAI, about: About, mode: str) -> None:
    asked: Any = {"model": MODEL, "messages": about("coffee", "What is it?"), "temperature": 0}
    # An answer that ends by itself: of a longer one the client wants no more.
    extra = {"dualfocus": {"mode": mode, "progress": True}, "structured_outputs": {"choice": ["a cup", "no cup"]}}
    whole: Any = client.chat.completions.create(**asked, extra_body=extra)
    with client.chat.completions.stream(**asked, extra_body=extra) as stream:
        together = stream.get_final_completion()
    assert together.choices[0].message.role == "assistant"
    assert together.choices[0].message.content == whole.choices[0].message.content
    assert together.choices[0].finish_reason == whole.choices[0].finish_reason


def test_the_official_client_reads_how_the_answer_was_found(client: OpenAI, about: About) -> None:
    stream = ask(client, about("coffee", "What is it?"), stream=True, max_tokens=8)
    fields = [chunk.dualfocus for chunk in stream if hasattr(chunk, "dualfocus")]
    assert [set(field["turns"]) for field in fields] == [{"macro", "grounding", "micro"}]


# What is being done.


@pytest.mark.parametrize(
    ("mode", "told"),
    [
        ("dual", ["waiting", "grounding", "macro", "micro"]),
        ("macro", ["waiting", "macro"]),
        ("micro", ["waiting", "grounding", "micro"]),
        ("off", ["waiting"]),
    ],
)
def test_progress_is_told_to_a_client_that_asks(http: httpx.Client, about: About, mode: str, told: list[str]) -> None:
    focus = {"mode": mode, "progress": True}
    parts = chunks(events(http, messages=about("coffee", "What?"), max_tokens=4, dualfocus=focus))
    telling = [part for part in parts if "progress" in part.get("dualfocus", {})]
    names = [part["dualfocus"]["progress"] for part in telling]
    assert sorted(names) == sorted(told)
    assert (names[0], names[-1]) == (told[0], told[-1]), "grounding and macro run side by side"
    assert [part["choices"][0]["delta"] for part in telling] == [{"content": ""}] * len(told)


@pytest.mark.parametrize("mode", MODES)
def test_progress_is_told_to_no_other(http: httpx.Client, about: About, mode: str) -> None:
    parts = chunks(events(http, messages=about("coffee", "What?"), max_tokens=4, dualfocus={"mode": mode}))
    assert not any("progress" in found for found in focus_of(parts))


# Errors.


def test_an_error_before_the_stream_has_its_status(http: httpx.Client) -> None:
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    messages = [{"role": "user", "content": [part, {"type": "text", "text": "What?"}]}]
    response = http.post(CHAT, json={"messages": messages, "stream": True})
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "invalid_image"


# A schema that nothing can satisfy: the engine takes it, and fails on it before the first token.
IMPOSSIBLE = {"type": "json_schema", "json_schema": {"name": "s", "schema": {"$ref": "#"}}}
REFUSED: dict[str, dict[str, Any]] = {
    "logit_bias": {"logit_bias": {"99999999": 1}},
    "stop_token_ids": {"stop_token_ids": [2**40]},
    "allowed_token_ids": {"allowed_token_ids": [-1]},
    "top_logprobs": {"logprobs": True, "top_logprobs": 10**6},
    "a grammar that is none": {"structured_outputs": {"grammar": "x"}},
    "a regular expression that is none": {"structured_outputs": {"regex": "["}},
    "a grammar that nothing can satisfy": {"response_format": IMPOSSIBLE},
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fields", list(REFUSED.values()), ids=list(REFUSED))
def test_what_the_engine_refuses_is_a_400_as_it_is_without_a_stream(
    http: httpx.Client, about: About, mode: str, fields: dict[str, Any]
) -> None:
    body = {"messages": about("coffee", "What?"), "max_tokens": 4, "dualfocus": {"mode": mode}} | fields
    whole, streamed = (http.post(CHAT, json=body | {"stream": stream}) for stream in (False, True))
    assert (streamed.status_code, streamed.headers["content-type"]) == (400, "application/json")
    assert streamed.json() == whole.json()


def test_the_official_client_raises_a_refusal_where_it_asks(client: OpenAI, about: About) -> None:
    with pytest.raises(BadRequestError, match="logit_bias"):
        ask(client, about("coffee", "What?"), stream=True, logit_bias={"99999999": 1})


@pytest.mark.parametrize("messages", [None, TEXT_ONLY], ids=["two looks", "vLLM"])
def test_an_error_within_the_stream_is_an_event_the_client_raises(
    server: Server, client: OpenAI, about: About, messages: Any
) -> None:
    """Refused once the answer had begun: because it had waited for too long."""
    with frozen_engine(server):
        stream = ask(client, messages or about("coffee", "What?"), response_format=IMPOSSIBLE, stream=True)
        first = next(stream)
    assert first.choices[0].delta.content == ""
    with pytest.raises(APIError, match="a grammar that nothing can satisfy") as told:
        list(stream)
    assert (told.value.type, told.value.code) == ("invalid_request_error", "invalid_value")


# Clients that leave, and that wait.


@pytest.mark.parametrize("mode", ["dual", "off"])
@pytest.mark.parametrize("with_image", [True, False])
async def test_a_client_that_leaves_the_stream_aborts_its_turns(
    server: Server, about: About, mode: str, with_image: bool
) -> None:
    messages = about("coffee", "Tell.") if with_image else TEXT_ONLY
    body = {"messages": messages, "max_tokens": 1500, "ignore_eos": True, "stream": True, "dualfocus": {"mode": mode}}
    await ask_and_leave(server, body)
