"""Streams about an image: role, comments, the chosen answer, the `dualfocus` field, usage, `[DONE]`."""

import json
from typing import Any

import httpx
import pytest
from asking import CHAT, TEXT_ONLY, About, ask, ask_and_leave, events
from openai import APIError, OpenAI
from running_server import Server, frozen_engine


def chunks(lines: list[str]) -> list[dict[str, Any]]:
    return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]


def text_of(parts: list[dict[str, Any]]) -> str:
    return "".join(part["choices"][0]["delta"].get("content") or "" for part in parts if part["choices"])


def test_a_stream_tells_the_same_as_a_whole_answer(http: httpx.Client, about: About) -> None:
    body = {"messages": about("astronaut", "What is on the badge?"), "temperature": 0}
    whole = http.post(CHAT, json=body).json()
    lines = events(http, **body, stream_options={"include_usage": True})
    parts = chunks(lines)
    assert parts[0]["choices"][0]["delta"]["role"] == "assistant"
    assert [line for line in lines if line.startswith(":")] == [": grounding", ": macro", ": micro"]
    assert text_of(parts) == whole["choices"][0]["message"]["content"]
    last_content = [part for part in parts if part["choices"] and part["choices"][0]["delta"].get("content")][-1]
    for name in ("winner", "selection", "box", "crop"):
        assert last_content["dualfocus"][name] == whole["dualfocus"][name]
    assert parts[-2]["choices"][0]["finish_reason"] == whole["choices"][0]["finish_reason"]
    assert parts[-1]["choices"] == []
    assert parts[-1]["usage"]["prompt_tokens"] == whole["usage"]["prompt_tokens"]
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
    assert len(contents) > 5
    assert text_of(parts) == whole["choices"][0]["message"]["content"]
    assert [("dualfocus" in part) for part in contents] == [False] * (len(contents) - 1) + [True]


def test_the_official_client_reads_it(client: OpenAI, about: About) -> None:
    stream = ask(client, about("coffee", "What is it?"), stream=True, max_tokens=8)
    fields = [chunk.dualfocus for chunk in stream if hasattr(chunk, "dualfocus")]
    assert [set(field["turns"]) for field in fields] == [{"macro", "grounding", "micro"}]


def test_an_error_before_the_stream_has_its_status(http: httpx.Client) -> None:
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    messages = [{"role": "user", "content": [part, {"type": "text", "text": "What?"}]}]
    response = http.post(CHAT, json={"messages": messages, "stream": True})
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "invalid_image"


# A schema that nothing can satisfy: the engine fails on it while it writes.
IMPOSSIBLE = {"type": "json_schema", "json_schema": {"name": "s", "schema": {"$ref": "#"}}}


@pytest.mark.parametrize("messages", [None, TEXT_ONLY], ids=["two looks", "vLLM"])
def test_an_error_within_the_stream_is_an_event_the_client_raises(client: OpenAI, about: About, messages: Any) -> None:
    messages = messages or about("coffee", "What?")
    stream = ask(client, messages, response_format=IMPOSSIBLE, stream=True, max_tokens=8)
    with pytest.raises(APIError, match="a grammar that nothing can satisfy") as told:
        list(stream)
    assert (told.value.type, told.value.code) == ("invalid_request_error", "invalid_value")


@pytest.mark.parametrize("mode", ["dual", "off"])
@pytest.mark.parametrize("with_image", [True, False])
async def test_a_client_that_leaves_the_stream_aborts_its_turns(
    server: Server, about: About, mode: str, with_image: bool
) -> None:
    messages = about("coffee", "Tell.") if with_image else TEXT_ONLY
    body = {"messages": messages, "max_tokens": 1500, "ignore_eos": True, "stream": True, "dualfocus": {"mode": mode}}
    await ask_and_leave(server, body)


@pytest.mark.parametrize(
    ("messages", "comments"),
    [(None, {": grounding", ": macro"}), (TEXT_ONLY, {": waiting"})],
    ids=["two looks", "vLLM"],
)
def test_a_stream_that_waits_says_so(
    server: Server, http: httpx.Client, about: About, messages: Any, comments: set[str]
) -> None:
    body = {"messages": messages or about("coffee", "What?"), "max_tokens": 4, "stream": True}
    with frozen_engine(server), http.stream("POST", CHAT, json=body) as response:
        lines = (line for line in response.iter_lines() if line.startswith(":"))
        assert {next(lines) for _ in range(2 * len(comments) - 1)} == comments
