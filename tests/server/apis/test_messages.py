"""Anthropic's Messages API on the running server, mostly by its official client: two looks where there is an image."""

import base64
import json
from typing import Any

import anthropic
import httpx
import pytest
from anthropic import Anthropic
from asking import CHAT, MODEL, TEXT_ONLY, chunks
from hostile_images import png
from odd_values import ODD, bounds, check_ready, failures_of
from running_server import PATIENCE, Server

MESSAGES, COUNT = "/v1/messages", "/v1/messages/count_tokens"
QUESTION = {"type": "text", "text": "What is it?"}


def block(data: bytes) -> dict[str, Any]:
    """An image as Anthropic's clients send it."""
    encoded = base64.b64encode(data).decode()
    return {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": encoded}}


def about(data: bytes) -> list[dict[str, Any]]:
    """A conversation of one message: an image and a question."""
    return [{"role": "user", "content": [block(data), QUESTION]}]


def as_chat(data: bytes) -> list[dict[str, Any]]:
    """The same as a chat completion's."""
    url = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    return [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}, QUESTION]}]


def fresh(shade: int) -> bytes:
    """An image that no other test asks about; all are of one size."""
    return png(80, 60, rows=bytes([0, *[20 * shade] * 80]) * 60)


@pytest.fixture(scope="session")
def claude(server: Server) -> Anthropic:
    """The official client, as a user would make it."""
    return Anthropic(base_url=server.url, api_key="none", max_retries=0, timeout=PATIENCE)


def ask(claude: Anthropic, messages: Any, model: str = MODEL, **options: Any) -> Any:
    """Ask through the official client."""
    return claude.messages.create(**{"model": model, "max_tokens": 8, "messages": messages} | options)


def test_an_image_is_looked_at_twice(claude: Anthropic) -> None:
    answer = ask(claude, about(fresh(1)))
    focus = answer.dualfocus
    assert (answer.type, answer.role, answer.model) == ("message", "assistant", MODEL)
    assert [part.type for part in answer.content] == ["text"]
    assert answer.content[0].text == focus[focus["winner"]]["text"]
    assert set(focus["turns"]) == {"macro", "grounding", "micro"}
    assert answer.stop_reason == "max_tokens"


def test_it_costs_what_the_same_question_costs_as_a_chat_completion(claude: Anthropic, http: httpx.Client) -> None:
    by_messages = ask(claude, about(fresh(2))).dualfocus["turns"]
    body = {"model": MODEL, "messages": as_chat(fresh(3)), "max_tokens": 8}
    by_chat = http.post(CHAT, json=body).json()["dualfocus"]["turns"]
    for counted in ("prompt_tokens", "image_tokens", "computed_tokens", "encoder_runs"):
        spent = [sum(turn[counted] for turn in turns.values()) for turns in (by_messages, by_chat)]
        assert spent[0] == spent[1] > 0, counted


def test_answers_are_those_of_chat_completions(claude: Anthropic, http: httpx.Client) -> None:
    image = fresh(4)
    greedy = {"temperature": 0}
    answer = ask(claude, about(image), system="Be brief.", stop_sequences=["zzz"], extra_body=greedy)
    messages = [{"role": "system", "content": "Be brief."}, *as_chat(image)]
    body = {"model": MODEL, "messages": messages, "max_tokens": 8, "stop": ["zzz"], **greedy}
    same = http.post(CHAT, json=body).json()
    assert answer.content[0].text == same["choices"][0]["message"]["content"]
    usage, cached = same["usage"], answer.usage.cache_read_input_tokens
    assert answer.usage.output_tokens == usage["completion_tokens"]
    assert answer.usage.input_tokens + cached + answer.usage.cache_creation_input_tokens == usage["prompt_tokens"]


def test_a_name_chooses_the_mode_and_so_does_the_field(claude: Anthropic) -> None:
    macro = ask(claude, about(fresh(4)), model=f"{MODEL}:macro")
    assert macro.model == f"{MODEL}:macro"
    assert set(macro.dualfocus["turns"]) == {"macro"}
    boxed = ask(claude, about(fresh(4)), extra_body={"dualfocus": {"box": [0, 0, 0.5, 0.5]}})
    assert set(boxed.dualfocus["turns"]) == {"macro", "micro"}


@pytest.mark.parametrize("mode", ["dual", "macro"])
def test_a_stream_has_anthropics_events_in_their_order(server: Server, claude: Anthropic, mode: str) -> None:
    body: Any = {"model": f"{MODEL}:{mode}", "max_tokens": 8, "messages": about(fresh(5))}
    body["extra_body"] = {"temperature": 0}
    whole = ask(claude, **body)
    with claude.messages.stream(**body) as stream:
        final = stream.get_final_message()
    assert final.content[0].text == whole.content[0].text  # type: ignore[union-attr]
    assert (final.stop_reason, final.usage.output_tokens) == (whole.stop_reason, whole.usage.output_tokens)
    plain = body | body.pop("extra_body") | {"stream": True}
    response = httpx.post(f"{server.url}{MESSAGES}", json=plain, timeout=PATIENCE)
    told = [event["type"] for event in chunks(response.text.splitlines())]
    begin, end = ["message_start", "content_block_start"], ["content_block_stop", "message_delta", "message_stop"]
    texts = told[len(begin) : -len(end)]
    assert told == begin + texts + end
    assert set(texts) == {"content_block_delta"}
    names = [line.removeprefix("event: ") for line in response.text.splitlines() if line.startswith("event: ")]
    assert names == told
    assert chunks(response.text.splitlines())[-2]["dualfocus"]["winner"] == whole.dualfocus["winner"]


def test_a_stream_tells_what_is_being_done_in_pings(server: Server) -> None:
    focus = {"progress": True}
    body = {"model": MODEL, "max_tokens": 8, "messages": about(fresh(6)), "stream": True, "dualfocus": focus}
    response = httpx.post(f"{server.url}{MESSAGES}", json=body, timeout=PATIENCE)
    pings = [event["dualfocus"] for event in chunks(response.text.splitlines()) if event["type"] == "ping"]
    assert [ping["progress"] for ping in pings] == ["waiting", "grounding", "macro", "micro"]


@pytest.mark.parametrize("stream", [False, True])
def test_what_has_no_image_is_vllms(claude: Anthropic, http: httpx.Client, stream: bool) -> None:
    greedy = {"temperature": 0}
    if stream:
        options: Any = {"messages": TEXT_ONLY, "extra_body": greedy}
        with claude.messages.stream(model=MODEL, max_tokens=8, **options) as events:
            answer: Any = events.get_final_message()
    else:
        answer = ask(claude, TEXT_ONLY, extra_body=greedy)
    same = http.post(CHAT, json={"model": MODEL, "messages": TEXT_ONLY, "max_tokens": 8} | greedy).json()
    assert answer.content[0].text == same["choices"][0]["message"]["content"]
    assert not hasattr(answer, "dualfocus")


def test_pictures_in_tools_results_are_looked_at_twice(claude: Anthropic) -> None:
    tools = [{"name": "look", "input_schema": {"type": "object", "properties": {}}}]
    call = {"type": "tool_use", "id": "1", "name": "look", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "1", "content": [block(fresh(7)), QUESTION]}
    messages = [
        {"role": "user", "content": "Look."},
        {"role": "assistant", "content": [call]},
        {"role": "user", "content": [result]},
    ]
    answer = ask(claude, messages, tools=tools)
    assert answer.stop_reason in ("max_tokens", "end_turn", "tool_use")
    assert answer.dualfocus["mode"] == "dual"


@pytest.mark.parametrize("content", ["a text", "an image"])
def test_tokens_are_counted_as_the_first_look_has_them(claude: Anthropic, content: str) -> None:
    messages = TEXT_ONLY if content == "a text" else about(fresh(8))
    counted = claude.messages.count_tokens(model=MODEL, messages=messages)  # type: ignore[arg-type]
    usage = ask(claude, messages, model=f"{MODEL}:macro").usage
    others = (usage.cache_read_input_tokens or 0) + (usage.cache_creation_input_tokens or 0)
    assert counted.input_tokens == usage.input_tokens + others > 0
    assert ask(claude, messages).stop_reason in ("max_tokens", "end_turn"), "counting left vLLM's image cache as it was"


def refusal(http: httpx.Client, path: str = MESSAGES, **fields: Any) -> dict[str, Any]:
    """Send what is refused; returns the error in Anthropic's shape."""
    body = {"model": MODEL, "max_tokens": 4, "messages": about(fresh(9))} | fields
    content = json.dumps({name: value for name, value in body.items() if value != "left out"}).encode()
    response = http.post(path, content=content, headers={"Content-Type": "application/json"})
    told = response.json()
    assert response.status_code in (400, 404), response.text
    assert set(told) == {"type", "error"}
    assert told["type"] == "error"
    error: dict[str, Any] = told["error"]
    assert set(error) == {"type", "message"}
    return error


def _with(source: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "image", "source": source}]}]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"messages": "left out"}, "at least one message"),
        ({"messages": []}, "at least one message"),
        ({"messages": [3]}, "at least one message"),
        ({"max_tokens": "left out"}, "max_tokens"),
        ({"max_tokens": 0}, "must be positive"),
        ({"model": "left out"}, "model"),
        ({"model": "nonesuch"}, "There is: "),
        ({"messages": [{"role": "robot", "content": "a"}]}, "'user', 'assistant' or 'system'"),
        ({"messages": [{"role": "user", "content": [{"type": "document"}]}]}, "type must be one of text, image, "),
        ({"messages": _with(None)}, "messages.0.content.0.source.type must be base64 or url"),
        ({"messages": _with({"type": "file", "file_id": "a"})}, "messages.0.content.0.source.type must be base64 or"),
        ({"messages": _with({"type": "base64", "data": 3})}, "messages.0.content.0.source.data must be a string"),
        ({"messages": _with({"type": "base64", "data": "x"})}, "not valid base64"),
        ({"messages": _with({"type": "url", "url": "http://127.0.0.1/a"})}, "not fetched from '127.0.0.1'"),
        ({"messages": _with({"type": "url", "url": "file:///etc/passwd"})}, "must be a data: URL"),
        ({"dualfocus": {"box": [1, 0, 0, 1]}}, "a box is"),
        ({"vllm_xargs": {"dualfocus_box": 1.5}}, "reserved"),
        ({"temperature": "warm"}, "temperature"),
        ({"stop_sequences": ["a"] * 1000}, "stop"),
        ({"top_p": 7}, "top_p"),
    ],
)
def test_what_is_wrong_is_said_in_anthropics_shape(http: httpx.Client, fields: dict[str, Any], message: str) -> None:
    assert message in refusal(http, **fields)["message"]
    if not {"max_tokens", "dualfocus", "vllm_xargs", "temperature", "stop_sequences", "top_p"} & set(fields):
        assert message in refusal(http, COUNT, **fields)["message"]


def test_errors_are_those_of_the_official_client(claude: Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError, match="There is: "):
        ask(claude, TEXT_ONLY, model="nonesuch")
    with pytest.raises(anthropic.BadRequestError, match="not valid base64"):
        ask(claude, _with({"type": "base64", "data": "x"}))


@pytest.mark.parametrize("path", [MESSAGES, COUNT])
def test_values_that_do_not_fit_end_nothing(http: httpx.Client, path: str) -> None:
    document = http.get("/openapi.json").json()
    schemas = document["components"]["schemas"]
    name = "MessagesRequest" if path == MESSAGES else "CountTokensRequest"

    def send(field: str, value: Any) -> None:
        body = {"model": MODEL, "max_tokens": 2, "messages": about(fresh(10)), field: value}
        answer = http.post(path, content=json.dumps(body).encode(), headers={"Content-Type": "application/json"})
        told = answer.json() if "json" in answer.headers["content-type"] else {}
        is_right = answer.status_code == 200 or (400 <= answer.status_code < 500 and set(told) == {"type", "error"})
        assert is_right, f"{answer.status_code} for {field}: {ascii(value)[:200]}: {answer.text[:300]}"
        check_ready(http)

    fields = schemas[name]["properties"].items()
    odd = [(field, value) for field, schema in fields for value in (*ODD, *bounds(schema, schemas))]
    assert not failures_of(lambda pair: send(*pair), odd)
