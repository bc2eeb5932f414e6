"""Responses on a scripted engine, whole and streamed, by two looks and by vLLM."""

import asyncio
import json
from typing import Any, cast

import pytest
from dualfocus_engine import BadQuestion, Turn
from dualfocus_engine.method.stages import Stages
from dualfocus_server.api.responses.store import ResponseStore
from dualfocus_server.guards.api_errors import ApiError, VllmResponseError
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter
from vllm.entrypoints.generate.base.protocol import FunctionCall
from vllm.entrypoints.openai.chat_completion.protocol import (
    ChatCompletionLogProb,
    ChatCompletionLogProbs,
    ChatCompletionLogProbsContent,
)
from vllm.entrypoints.openai.responses.protocol import (
    ResponseCompletedEvent,
    ResponseCreatedEvent,
    ResponseInProgressEvent,
)

from ...builders import turn
from ..test_answer_records import keeping
from ..test_chat_service import REFUSED, service
from .asking import ABOUT_AN_IMAGE, Vllm, body_of, events_of, of_vllm, responded

OPENAIS: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
CUT = {"macro": turn("macro answer", finish_reason="length"), "micro": turn("micro", 0.5, finish_reason="length")}
IN_ORDER = [
    "response.created",
    "response.in_progress",
    "response.output_item.added",
    "response.content_part.added",
    "response.output_text.delta",
    "response.output_text.delta",
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
    "response.completed",
]


def begun(request: Any) -> Any:
    response = of_vllm(request, "in_progress").model_dump(mode="json", by_alias=True)
    return ResponseCreatedEvent(type="response.created", sequence_number=0, response=response)


def going_on(request: Any) -> Any:
    return ResponseInProgressEvent(type="response.in_progress", sequence_number=1, response=of_vllm(request))


def ended(request: Any) -> Any:
    return ResponseCompletedEvent(type="response.completed", sequence_number=2, response=of_vllm(request))


def fails(request: Any) -> Exception:
    return VllmResponseError(ApiError(400, "The engine could not finish the answer"))


async def test_two_looks_are_a_response_as_openai_writes_it() -> None:
    body = await body_of(
        service(), ABOUT_AN_IMAGE, model="model", instructions="Be brief.", metadata={"a": "b"}, max_output_tokens=9
    )
    read = Response.model_validate(body)
    assert (read.output_text, read.status, read.incomplete_details) == ("micro answer", "completed", None)
    assert read.usage is not None
    assert (read.usage.input_tokens, read.usage.output_tokens, read.usage.total_tokens) == (30, 31, 61)
    assert read.usage.output_tokens_details.reasoning_tokens == 28, "the box and the losing answer"
    assert body["id"].startswith("resp_")
    assert (body["model"], body["instructions"], body["metadata"]) == ("model", "Be brief.", {"a": "b"})
    assert (body["max_output_tokens"], body["background"], body["previous_response_id"]) == (9, False, None)
    assert (body["dualfocus"]["winner"], body["dualfocus"]["mode"]) == ("micro", "dual")


async def test_an_answer_that_is_cut_is_incomplete() -> None:
    body = await body_of(service(**CUT), ABOUT_AN_IMAGE)
    assert (body["status"], body["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    events = await events_of(await responded(service(**CUT), ABOUT_AN_IMAGE, stream=True))
    assert (events[-1]["type"], events[-1]["response"]["status"]) == ("response.incomplete", "incomplete")


async def test_the_winner_is_in_the_headers() -> None:
    found = (await responded(service(), ABOUT_AN_IMAGE)).headers
    assert (found["X-DualFocus-Winner"], found["X-DualFocus-Selection"]) == ("micro", "lower_perplexity")


@pytest.mark.parametrize(("model", "mode"), [("model:macro", "macro"), ("model", "dual"), (None, "dual")])
async def test_the_models_name_chooses_the_mode_and_signs(model: str | None, mode: str) -> None:
    body = await body_of(service(), ABOUT_AN_IMAGE, model=model)
    assert (body["model"], body["dualfocus"]["mode"]) == (model or "model", mode)


async def test_without_a_limit_the_contexts_is_told() -> None:
    on = service()
    cast("Any", on.focus.engine).default_max_tokens = None
    assert (await body_of(on, ABOUT_AN_IMAGE))["max_output_tokens"] == 4096


async def test_events_come_in_openais_order_without_gaps() -> None:
    events = await events_of(await responded(service(), ABOUT_AN_IMAGE, stream=True, dualfocus={"mode": "macro"}))
    assert [event["type"] for event in events] == IN_ORDER
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    for event in events:
        OPENAIS.validate_python(event)
    *_, text, part, item, last = events
    assert "".join(event["delta"] for event in events if "delta" in event) == text["text"] == part["part"]["text"]
    assert last["response"]["output"] == [item["item"]]
    assert {event["item_id"] for event in events if "item_id" in event} == {item["item"]["id"]}
    assert events[0]["response"]["id"] == last["response"]["id"]
    assert (events[0]["response"]["status"], events[0]["response"]["output"]) == ("in_progress", [])
    assert [index for index, event in enumerate(events) if "dualfocus" in event.get("response", {})] == [9]
    assert last["response"]["dualfocus"]["winner"] == "macro"


async def test_a_stream_says_what_a_whole_response_says() -> None:
    whole = await body_of(service(), ABOUT_AN_IMAGE)
    streamed = (await events_of(await responded(service(), ABOUT_AN_IMAGE, stream=True)))[-1]["response"]
    for body in (whole, streamed):
        for name in ("id", "created_at"):
            del body[name]
        for name in ("seconds", "stages"):
            del body["dualfocus"][name]
        del body["output"][0]["id"]
    assert streamed == whole


async def test_an_empty_answer_has_its_message() -> None:
    empty = {"macro": turn(""), "micro": turn("")}
    body = await body_of(service(**empty), ABOUT_AN_IMAGE)
    assert Response.model_validate(body).output_text == ""
    events = await events_of(await responded(service(**empty), ABOUT_AN_IMAGE, stream=True))
    assert [event["type"] for event in events] == [kind for kind in IN_ORDER if not kind.endswith("delta")]


@pytest.mark.parametrize("stream", [False, True])
async def test_log_probabilities_are_there_where_they_are_asked_for(stream: bool) -> None:
    on = service()
    token = ChatCompletionLogProb(token="m", logprob=-0.5, bytes=[109])
    content = [ChatCompletionLogProbsContent(**token.model_dump(), top_logprobs=[token])]
    cast("Any", on.chat).logprobs = lambda turn, request: (
        ChatCompletionLogProbs(content=content) if request.logprobs and request.top_logprobs == 1 else None
    )
    fields = {"include": ["message.output_text.logprobs"], "top_logprobs": 1}
    if stream:
        events = await events_of(await responded(on, ABOUT_AN_IMAGE, stream=True, **fields))
        body = events[-1]["response"]
        (told,) = [event["logprobs"] for event in events if event["type"].endswith("delta") and event["logprobs"]]
        assert told == [{"token": "m", "logprob": -0.5, "top_logprobs": [{"token": "m", "logprob": -0.5}]}]
    else:
        body = await body_of(on, ABOUT_AN_IMAGE, **fields)
        assert (await body_of(on, ABOUT_AN_IMAGE))["output"][0]["content"][0]["logprobs"] is None
    one = {"token": "m", "logprob": -0.5, "bytes": [109]}
    assert body["output"][0]["content"][0]["logprobs"] == [one | {"top_logprobs": [one]}]


@pytest.mark.parametrize("is_asked", [False, True])
async def test_progress_is_told_where_it_is_asked_for(is_asked: bool) -> None:
    response = await responded(service(), ABOUT_AN_IMAGE, stream=True, dualfocus={"progress": is_asked})
    events = await events_of(response)
    told = [event["dualfocus"]["progress"] for event in events if "dualfocus" in event]
    assert told == (["waiting", "grounding", "macro", "micro"] if is_asked else [])
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert {event["type"] for event in events if "dualfocus" in event} <= {"response.in_progress"}


async def test_silence_is_broken_by_an_event_with_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dualfocus_server.answering.streaming._LONGEST_SILENCE_S", 2.0**-10)
    on = service()
    with await on.admission.admit("other", Stages()) as place:
        await place.acquire()
        response = await responded(on, ABOUT_AN_IMAGE, stream=True)
        lines = response.body_iterator
        found = [json.loads(str(await anext(lines)).partition("data: ")[2]) for _ in range(4)]
        response._events.stop()
    assert [event["type"] for event in found] == ["response.created", *["response.in_progress"] * 3]
    assert [event["sequence_number"] for event in found] == [0, 1, 2, 3]


async def test_silence_in_vllms_own_events_is_a_comment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dualfocus_server.answering.streaming._LONGEST_SILENCE_S", 2.0**-10)
    on = service(chat=Vllm())
    with await on.admission.admit("other", Stages()) as place:
        await place.acquire()
        response = await responded(on, "What?", stream=True, dualfocus={"progress": True})
        lines = response.body_iterator
        assert {str(await anext(lines)) for _ in range(3)} == {": keep-alive\n\n"}
        response._events.stop()


@pytest.mark.parametrize("mode", ["dual", "micro"])
async def test_what_the_engine_refuses_has_its_status_also_as_a_stream(mode: str) -> None:
    with pytest.raises(BadQuestion, match="out-of-vocab"):
        await responded(service(macro=REFUSED, micro=REFUSED), ABOUT_AN_IMAGE, stream=True, dualfocus={"mode": mode})


async def test_an_error_in_a_stream_that_has_begun_is_an_event() -> None:
    is_read = asyncio.Event()

    async def failing() -> Turn:
        await is_read.wait()
        raise RuntimeError("broken")

    response = await responded(service(macro=failing), ABOUT_AN_IMAGE, stream=True)
    is_read.set()
    events = await events_of(response)
    assert [event["type"] for event in events] == ["response.created", "response.in_progress", "error"]
    error = OPENAIS.validate_python(events[-1])
    assert (error.code, error.param, error.sequence_number) == ("server_error", None, 2)
    assert "its log says why" in error.message


async def test_text_is_vllms_and_is_told_nothing_of_what_is_kept() -> None:
    chat, store = Vllm(), ResponseStore()
    first = await body_of(service(), ABOUT_AN_IMAGE, store)
    fields = {"instructions": "Be brief.", "previous_response_id": first["id"], "dualfocus": {"mode": "off"}}
    body = await body_of(service(chat=chat), "What?", store, **fields)
    ((given, _),) = chat.given
    assert (given.store, given.background, given.previous_response_id) == (False, False, None)
    assert len(given.input) == 3
    assert (body["previous_response_id"], body["instructions"]) == (first["id"], "Be brief.")
    assert "dualfocus" not in body
    assert store.get(body["id"], "").response == body


async def test_vllms_events_are_handed_on_and_what_goes_wrong_has_the_next_number() -> None:
    chat = Vllm(begun, going_on, ended)
    events = await events_of(await responded(service(chat=chat), "What?", stream=True, instructions="Be brief."))
    assert [event["type"] for event in events] == ["response.created", "response.in_progress", "response.completed"]
    assert {event["response"]["instructions"] for event in events} == {"Be brief."}
    chat = Vllm(begun, going_on, ended, fails)
    response = await responded(service(chat=chat), "What?", stream=True)
    chat.is_read.set()
    events = await events_of(response)
    assert (events[-1]["type"], events[-1]["sequence_number"]) == ("error", 3)


async def test_what_keeps_a_picture_from_its_second_look_is_in_the_response() -> None:
    told = {"mode": "off", "because": "tools"}
    tools = [{"type": "web_search"}]
    store = ResponseStore()
    body = await body_of(service(chat=Vllm()), ABOUT_AN_IMAGE, store, tools=tools)
    assert body["dualfocus"] == store.get(body["id"], "").response["dualfocus"] == told
    on = service(chat=Vllm(begun, going_on, ended))
    events = await events_of(await responded(on, ABOUT_AN_IMAGE, store, tools=tools, stream=True))
    assert [event["response"].get("dualfocus") for event in events] == [None, None, told]
    assert store.get(events[0]["response"]["id"], "").response["dualfocus"] == told


async def test_what_vllm_refuses_behind_its_first_events_has_its_status() -> None:
    """It says them before it has asked the engine."""
    with pytest.raises(VllmResponseError, match="could not finish"):
        await responded(service(chat=Vllm(begun, going_on, fails)), "What?", stream=True)


@pytest.mark.parametrize(("store", "kept"), [(True, 1), (None, 1), (False, 0)])
async def test_the_answers_log_names_the_response(store: bool | None, kept: int) -> None:
    on, records = keeping()
    body = await body_of(on, ABOUT_AN_IMAGE, store=store)
    assert [record["id"] for record in records] == [body["id"]] * kept


async def test_too_many_images_are_refused() -> None:
    with pytest.raises(BadQuestion, match="has 3 images"):
        await responded(service(), ABOUT_AN_IMAGE * 3)


async def test_metrics_of_the_answer_are_there_where_the_flag_asks_for_them() -> None:
    on = service()
    assert "metrics" not in await body_of(on, ABOUT_AN_IMAGE)
    cast("Any", on.chat).metrics = lambda turn: {"time_to_first_token_ms": 3.0}
    assert (await body_of(on, ABOUT_AN_IMAGE))["metrics"]["time_to_first_token_ms"] == 3.0


LOOK = {"type": "function", "name": "look", "parameters": {"type": "object"}, "strict": False}
CALLS = (FunctionCall(name="look", arguments='{"side": "left"}'), FunctionCall(name="look", arguments="{}"))


@pytest.mark.parametrize(
    ("macro", "kinds"),
    [
        (turn("Red.", 0.1, reasoning="Hm.", thought_tokens=1), ["reasoning", "message"]),
        (turn("So.", reasoning="Hm.", tool_calls=CALLS), ["reasoning", "message", "function_call", "function_call"]),
        (turn("", tool_calls=CALLS[:1]), ["function_call"]),
    ],
)
async def test_thoughts_and_calls_are_items_of_their_own(macro: Turn, kinds: list[str]) -> None:
    on = service(macro=macro, micro=turn("micro", 9.0))
    whole = await body_of(on, ABOUT_AN_IMAGE, tools=[LOOK])
    assert [item["type"] for item in whole["output"]] == kinds
    assert Response.model_validate(whole).output_text == macro.text
    events = await events_of(await responded(on, ABOUT_AN_IMAGE, tools=[LOOK], stream=True))
    for event in events:
        OPENAIS.validate_python(event)
    streamed = events[-1]["response"]["output"]
    assert [without_ids(item) for item in streamed] == [without_ids(item) for item in whole["output"]]
    arguments = "".join(event["delta"] for event in events if event["type"].endswith("arguments.delta"))
    assert arguments == "".join(call.arguments for call in macro.tool_calls)


def without_ids(item: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in item.items() if name not in ("id", "call_id")}


async def test_a_forced_tool_is_called_with_the_answer() -> None:
    named = {"tools": [LOOK], "tool_choice": {"type": "function", "name": "look"}}
    on = service(macro=turn('{"side": "left"}', 0.1), micro=turn("{}", 9.0))
    (item,) = (await body_of(on, ABOUT_AN_IMAGE, **named))["output"]
    assert (item["type"], item["name"], item["arguments"]) == ("function_call", "look", '{"side": "left"}')
    sampling = cast("Any", on.focus.engine).samplings["macro"]
    assert sampling.structured_outputs.json == {"type": "object"}
