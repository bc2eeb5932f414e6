"""OpenAI's Responses API on the running server, by its official client: two looks where there is an image."""

import asyncio
import json
from typing import Any

import httpx
import pytest
from asking import MODEL, SOON, chunks, until_unfinished
from hostile_images import data_url, png
from odd_values import ODD, bounds, check, check_ready, failures_of
from openai import BadRequestError, NotFoundError, OpenAI
from pydantic import BaseModel
from running_server import PATIENCE, Server, frozen_engine

RESPONSES = "/v1/responses"
QUESTION = {"type": "input_text", "text": "What is it?"}
SIDES = {
    "type": "object",
    "properties": {"side": {"enum": ["left", "right"]}},
    "required": ["side"],
    "additionalProperties": False,
}
TOOL = {"type": "function", "name": "look", "parameters": SIDES, "strict": True}
CALL = {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"}
# Tokens: tab, line feed, carriage return, space; and what closes an answer.
WHITESPACE, END = ("201", "202", "205", "224"), "1"
LASTING = {"logit_bias": {END: -100}}


class Seen(BaseModel):
    """What the model is to say."""

    anything: bool


def fresh(shade: int) -> str:
    """An image that no other test asks about; all are of one size."""
    return data_url(png(90, 60, rows=bytes([0, *[12 * shade] * 90]) * 60))


def image(url: str) -> dict[str, Any]:
    """An image as OpenAI's clients send it."""
    return {"type": "input_image", "image_url": url, "detail": "auto"}


def about(url: str, text: str = "What is it?") -> list[dict[str, Any]]:
    """A conversation of one message: an image and a question."""
    return [{"role": "user", "content": [image(url), {"type": "input_text", "text": text}]}]


def as_chat(url: str) -> Any:
    """The same as a chat completion's."""
    parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "What is it?"}]
    return [{"role": "user", "content": parts}]


def ask(client: OpenAI, asked: Any, model: str = MODEL, **options: Any) -> Any:
    """Ask through the official client."""
    return client.responses.create(**{"model": model, "max_output_tokens": 8, "input": asked} | options)


def test_an_image_is_looked_at_twice(client: OpenAI) -> None:
    answer = ask(client, about(fresh(1)))
    focus = answer.dualfocus
    assert (answer.object, answer.model, answer.status) == ("response", MODEL, "incomplete")
    assert answer.incomplete_details.reason == "max_output_tokens"
    assert [item.type for item in answer.output] == ["message"]
    assert answer.output_text == focus[focus["winner"]]["text"]
    assert set(focus["turns"]) == {"macro", "grounding", "micro"}


def test_it_costs_what_the_same_question_costs_as_a_chat_completion(client: OpenAI) -> None:
    by_responses = ask(client, about(fresh(2))).dualfocus["turns"]
    chat: Any = client.chat.completions.create(model=MODEL, messages=as_chat(fresh(3)), max_tokens=8)
    for counted in ("prompt_tokens", "image_tokens", "computed_tokens", "encoder_runs"):
        spent = [sum(turn[counted] for turn in turns.values()) for turns in (by_responses, chat.dualfocus["turns"])]
        assert spent[0] == spent[1] > 0, counted


def test_answers_are_those_of_chat_completions(client: OpenAI) -> None:
    answer = ask(client, about(fresh(4)), instructions="Be brief.", temperature=0, extra_body={"stop": ["zzz"]})
    messages = [{"role": "system", "content": "Be brief."}, *as_chat(fresh(4))]
    same: Any = client.chat.completions.create(
        model=MODEL, messages=messages, max_tokens=8, temperature=0, stop=["zzz"]
    )
    assert answer.instructions == "Be brief."
    assert answer.output_text == same.choices[0].message.content
    usage, told = same.usage, answer.usage
    assert (told.input_tokens, told.output_tokens) == (usage.prompt_tokens, usage.completion_tokens)
    assert told.output_tokens_details.reasoning_tokens == usage.completion_tokens_details.reasoning_tokens > 0


def test_log_probabilities_are_those_of_chat_completions(client: OpenAI) -> None:
    wish = {"top_logprobs": 2, "include": ["message.output_text.logprobs"]}
    answer = ask(client, about(fresh(4)), **wish)
    same: Any = client.chat.completions.create(
        model=MODEL, messages=as_chat(fresh(4)), max_tokens=8, logprobs=True, top_logprobs=2
    )
    *_, last = ask(client, about(fresh(4)), stream=True, **wish)
    told = answer.output[0].content[0].logprobs
    for others in (same.choices[0].logprobs.content, last.response.output[0].content[0].logprobs):
        assert [set(token.model_dump()) for token in others] == [set(token.model_dump()) for token in told]
        assert [token.token for token in others] == [token.token for token in told]
        assert likely(others) == pytest.approx(likely(told), abs=1e-3)


def likely(tokens: Any) -> list[float]:
    """Log-probabilities of tokens and of the likeliest: their last bits differ where a step has other company."""
    return [one.logprob for token in tokens for one in (token, *token.top_logprobs)]


@pytest.mark.parametrize("mode", ["dual", "macro"])
def test_a_stream_has_openais_events_in_their_order(client: OpenAI, mode: str) -> None:
    whole = ask(client, about(fresh(5)), model=f"{MODEL}:{mode}")
    events = list(ask(client, about(fresh(5)), model=f"{MODEL}:{mode}", stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type.removeprefix("response.") for event in events]
    deltas = kinds.count("output_text.delta")
    assert deltas  # vLLM joins what a busy machine has not fetched yet
    assert kinds == [
        *("created", "in_progress", "output_item.added", "content_part.added"),
        *["output_text.delta"] * deltas,
        *("output_text.done", "content_part.done", "output_item.done", "incomplete"),
    ]
    assert "".join(event.delta for event in events if event.type.endswith("delta")) == whole.output_text
    final = events[-1].response
    assert (final.output_text, final.usage.output_tokens) == (whole.output_text, whole.usage.output_tokens)
    assert final.dualfocus["winner"] == whole.dualfocus["winner"]
    assert set(final.dualfocus["turns"]) == set(whole.dualfocus["turns"])


def test_the_clients_own_reading_of_a_stream(client: OpenAI) -> None:
    with client.responses.stream(model=MODEL, input=about(fresh(5)), extra_body={"stop": [" ", "e"]}) as stream:  # type: ignore[arg-type]
        texts = [event.delta for event in stream if event.type == "response.output_text.delta"]
        final: Any = stream.get_final_response()
    assert final.status == "completed"
    assert "".join(texts) == final.output_text == final.dualfocus[final.dualfocus["winner"]]["text"]


@pytest.mark.parametrize("asked", [about(fresh(6)), "Is anything there?"], ids=["image", "text"])
def test_a_class_is_filled_in(client: OpenAI, asked: Any) -> None:
    extra = {"logit_bias": dict.fromkeys(WHITESPACE, -100)}
    answer: Any = client.responses.parse(model=MODEL, input=asked, text_format=Seen, extra_body=extra)
    assert isinstance(answer.output_parsed.anything, bool)
    if asked != "Is anything there?":
        assert answer.dualfocus["macro"]["rescored"] is True


def test_a_conversation_goes_on_from_what_is_kept(client: OpenAI) -> None:
    first = ask(client, about(fresh(7)), instructions="Be brief.")
    second = ask(client, "Where is it?", previous_response_id=first.id)
    said = {"role": "assistant", "content": first.output_text}
    whole = ask(client, [*about(fresh(7)), said, {"role": "user", "content": "Where is it?"}], store=False)
    assert second.previous_response_id == first.id
    for name in ("macro", "grounding", "micro"):
        told = [answer.dualfocus["turns"][name]["prompt_tokens"] for answer in (second, whole)]
        assert told[0] == told[1], name
    assert client.responses.retrieve(second.id).output_text == second.output_text
    with pytest.raises(NotFoundError):
        client.responses.retrieve(whole.id)


def test_what_has_no_image_is_vllms(client: OpenAI) -> None:
    answer = ask(client, "Hello", temperature=0)
    same = client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "Hello"}], max_tokens=8, temperature=0
    )
    assert answer.output_text == same.choices[0].message.content
    assert not hasattr(answer, "dualfocus")
    events = list(ask(client, "Hello", temperature=0, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[-1].response.output_text == answer.output_text
    assert client.responses.retrieve(answer.id).output_text == answer.output_text


@pytest.mark.parametrize("stream", [False, True])
def test_pictures_in_tools_outputs_are_looked_at_twice(client: OpenAI, stream: bool) -> None:
    output = {"type": "function_call_output", "call_id": "c1", "output": [image(fresh(8)), QUESTION]}
    asked = [*about(fresh(9), "Look at an <image> closely."), CALL, output]
    answer = ask(client, asked, tools=[TOOL], stream=stream)
    final = list(answer)[-1].response if stream else answer
    assert final.usage.input_tokens > 100
    assert final.dualfocus["mode"] == "dual"


@pytest.mark.parametrize("stream", [False, True])
def test_a_tool_is_called(client: OpenAI, stream: bool) -> None:
    # Without whitespace, and closed as soon as it may be: an untrained model would go on.
    bias = dict.fromkeys(WHITESPACE, -100) | {END: 100}
    wish = {"tools": [TOOL], "tool_choice": "required", "max_output_tokens": 100, "extra_body": {"logit_bias": bias}}
    answer = ask(client, about(fresh(9)), stream=stream, **wish)
    (call,) = (list(answer)[-1].response if stream else answer).output
    assert (call.type, call.name) == ("function_call", "look")
    assert json.loads(call.arguments)["side"] in ("left", "right")


@pytest.mark.parametrize("mode", ["dual", "off"])
@pytest.mark.parametrize("stream", [False, True])
def test_an_image_of_a_refused_question_can_be_asked_about(client: OpenAI, mode: str, stream: bool) -> None:
    """vLLM takes it for sent to its engine, which it was not."""
    asked = about(fresh(10 + 2 * (mode == "off") + stream))
    focus = {"dualfocus": {"mode": mode}}
    with pytest.raises(BadRequestError, match="out-of-vocab"):
        ask(client, asked, stream=stream, extra_body=focus | {"logit_bias": {"99999": 1}})
    assert ask(client, asked, extra_body=focus).status in ("completed", "incomplete")


def test_in_the_background(client: OpenAI) -> None:
    queued = ask(client, about(fresh(14)), background=True)
    assert (queued.status, queued.output) == ("queued", [])
    events: list[Any] = list(client.responses.retrieve(queued.id, stream=True))
    final = client.responses.retrieve(queued.id)
    assert final.status == events[-1].response.status == events[-1].type.removeprefix("response.")
    assert final.output_text == events[-1].response.output_text == ask(client, about(fresh(14))).output_text
    later = list(client.responses.retrieve(queued.id, stream=True, starting_after=4))
    assert later == events[5:]
    assert client.responses.cancel(queued.id).status == final.status, "it had ended"
    streamed = list(ask(client, about(fresh(14)), background=True, stream=True))
    assert [event.type for event in streamed] == [event.type for event in events]


@pytest.mark.parametrize("asked", [about(fresh(15)), "Hello"], ids=["two looks", "vLLM"])
async def test_cancelling_ends_the_turns(server: Server, asked: Any) -> None:
    with frozen_engine(server):
        async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE) as http:
            body = {"model": MODEL, "input": asked, "background": True, **LASTING}
            queued = (await http.post(RESPONSES, json=body)).json()
            await until_unfinished(http, lambda turns: turns > 0)
            cancelled = (await http.post(f"{RESPONSES}/{queued['id']}/cancel")).json()
            assert cancelled["status"] == "cancelled"
            assert await until_unfinished(http, lambda turns: turns == 0) <= SOON
            assert (await http.get(f"{RESPONSES}/{queued['id']}")).json()["status"] == "cancelled"


async def test_who_leaves_ends_the_turns(server: Server) -> None:
    with frozen_engine(server):
        async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE) as http:
            asking = asyncio.create_task(http.post(RESPONSES, json={"model": MODEL, "input": about(fresh(16))}))
            await until_unfinished(http, lambda turns: turns > 0)
            asking.cancel()
            await asyncio.wait({asking})
            assert await until_unfinished(http, lambda turns: turns == 0) <= SOON


@pytest.mark.parametrize("path", ["nonesuch", "nonesuch?stream=true", "nonesuch/cancel"])
def test_what_is_not_kept_is_not_found(http: httpx.Client, path: str) -> None:
    answer = http.request("POST" if path.endswith("cancel") else "GET", f"{RESPONSES}/{path}")
    assert answer.status_code == 404
    assert answer.json()["error"]["param"] == "response_id"


def test_errors_are_those_of_the_official_client(client: OpenAI) -> None:
    with pytest.raises(NotFoundError, match="There is: "):
        ask(client, "Hello", model="nonesuch")
    with pytest.raises(BadRequestError, match=r"input\.0\.content\.0\.file_id can't be used"):
        ask(
            client, [{"role": "user", "content": [{"type": "input_image", "file_id": "f", "detail": "auto"}, QUESTION]}]
        )
    with pytest.raises(BadRequestError, match=r"not fetched from '127\.0\.0\.1'"):
        ask(client, about("http://127.0.0.1/a.png"))
    with pytest.raises(BadRequestError, match=r"greater than 0|at least 1"):
        ask(client, about(fresh(4)), max_output_tokens=-1)


@pytest.mark.parametrize("mode", ["dual", "off"])
def test_values_that_do_not_fit_end_nothing(http: httpx.Client, mode: str) -> None:
    schemas = http.get("/openapi.json").json()["components"]["schemas"]
    fields = schemas["ResponseRequest"]["properties"]
    assert len(fields) > 50

    def send(field: str, value: Any) -> None:
        focus = {"dualfocus": {"mode": mode}}
        body = {"model": MODEL, "max_output_tokens": 2, "input": about(fresh(17))} | focus | {field: value}
        answer = http.post(RESPONSES, content=json.dumps(body).encode(), headers={"Content-Type": "application/json"})
        check(answer, {field: value})
        for event in chunks(answer.text.splitlines()):
            assert event.get("code") != "server_error", f"{field}: {value!a}: {event}"
        check_ready(http)

    odd = [(field, value) for field, schema in fields.items() for value in (*ODD, *bounds(schema, schemas))]
    assert not failures_of(lambda pair: send(*pair), odd)
