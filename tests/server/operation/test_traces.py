"""Traces, what a collector is sent over OTLP about one question; and vLLM's flags about what its answers tell."""

import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from asking import About, ask
from openai import OpenAI
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from running_server import PATIENCE, start_server
from unit.local_web import body_of, respond, serving

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


collected: list[Any] = []
logs: list[Path] = []
# What `vllm serve` tells of an answer where it is asked to.
TELLING = ("--response-role", "narrator", "--enable-force-include-usage", "--enable-per-request-metrics")
TELLING += ("--enable-log-requests", "--enable-log-outputs")


def collect(request: BaseHTTPRequestHandler) -> None:
    """Take spans as OpenTelemetry's exporter sends them."""
    sent = ExportTraceServiceRequest.FromString(body_of(request))
    collected.extend(span for resource in sent.resource_spans for scope in resource.scope_spans for span in scope.spans)
    respond()(request)


@pytest.fixture(scope="module")
def telling(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenAI]:
    with serving({"/v1/traces": collect}) as collector, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf")
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")  # milliseconds between exports
        where = f"{collector.address}/v1/traces"
        running = start_server(tmp_path_factory.mktemp("traced") / "log", "--otlp-endpoint", where, *TELLING)
        logs.append(running.log)
        yield OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0)
        running.process.terminate()
        assert running.process.wait(PATIENCE) == 0


def spans_of(trace: str, turns: int) -> list[Any]:
    """The spans of a trace, once those of its question and its turns are there: they may come apart."""
    until = time.monotonic() + PATIENCE
    while True:
        found = [span for span in collected if span.trace_id.hex() == trace]
        names = sorted(span.name for span in found)
        if "question" in names and names.count("llm_request") == turns:
            return found
        assert time.monotonic() < until, names
        time.sleep(0.05)


@pytest.mark.parametrize("stream", [False, True])
def test_a_question_is_a_span_with_its_stages_and_vllms_turns(telling: OpenAI, about: About, stream: bool) -> None:
    trace = f"{'1' if stream else '2'}{TRACE[1:]}"
    headers = {"traceparent": f"00-{trace}-{PARENT}-01"}
    answer = telling.chat.completions.create(
        model="", messages=about("astronaut", "What is it?"), stream=stream, extra_headers=headers
    )
    pieces = [piece.model_dump() for piece in (answer if stream else [answer])]
    (focus,) = (piece["dualfocus"] for piece in pieces if piece.get("dualfocus"))
    spans = spans_of(trace, turns=3)
    names = {span.span_id: span.name for span in spans}
    (question,) = (span for span in spans if span.name == "question")
    assert question.parent_span_id.hex() == PARENT
    stages = {span.name: span for span in spans if names.get(span.parent_span_id) == "question"}
    assert {"queue", "fetch", "decode", "macro", "grounding", "crop", "micro", "select"} == stages.keys()
    turns = [span for span in spans if span.name == "llm_request"]
    assert sorted(names[turn.parent_span_id] for turn in turns) == ["grounding", "macro", "micro"]
    assert question.end_time_unix_nano >= max(stage.end_time_unix_nano for stage in stages.values())
    attributes = {attribute.key: attribute.value.string_value for attribute in question.attributes}
    # An untrained model's answers differ between machines: which of them wins, its client was told.
    assert focus["winner"] in ("macro", "micro")
    told = {name: attributes[f"dualfocus.{name}"] for name in ("winner", "selection")}
    assert told == {name: focus[name] for name in told}


def test_vllms_own_answer_is_below_the_question_too(telling: OpenAI, about: About) -> None:
    trace = f"3{TRACE[1:]}"
    headers = {"traceparent": f"00-{trace}-{PARENT}-01"}
    ask(telling, about("astronaut", "What is it?"), {"mode": "off"}, extra_headers=headers)
    spans = {span.name: span for span in spans_of(trace, turns=1)}
    assert spans["question"].parent_span_id.hex() == PARENT
    assert spans["llm_request"].parent_span_id == spans["question"].span_id


def _is_logged(line: str) -> None:
    """Logged before the answer was sent: nothing is waited for."""
    assert line in logs[0].read_text()


def _streamed(telling: OpenAI, messages: Any, **focus: Any) -> list[dict[str, Any]]:
    stream = telling.chat.completions.create(
        model="", messages=messages, stream=True, max_tokens=4, extra_body={"dualfocus": focus}
    )
    return [piece.model_dump() for piece in stream]


@pytest.mark.parametrize("mode", ["off", "macro", "dual"])
def test_vllms_flags_about_what_is_told_hold_for_two_looks_too(telling: OpenAI, about: About, mode: str) -> None:
    answer = ask(telling, about("astronaut", "What is it?"), {"mode": mode}, model="", max_tokens=4).model_dump()
    assert answer["choices"][0]["message"]["role"] == "narrator"
    times = answer["metrics"]
    assert set(times) == {
        *("time_to_first_token_ms", "generation_time_ms", "queue_time_ms", "mean_itl_ms", "tokens_per_second"),
        "speculative_decoding",
    }
    assert times["time_to_first_token_ms"] > 0
    assert answer["usage"]["prompt_tokens_details"]["multimodal_tokens"]["image"] > 0
    said, finish = answer["choices"][0]["message"]["content"], answer["choices"][0]["finish_reason"]
    _is_logged(f"Generated response {answer['id']}: output: {said!r}, finish_reason: {finish}")


@pytest.mark.parametrize("mode", ["off", "macro", "dual"])
def test_usage_is_in_each_piece_where_it_is_forced(telling: OpenAI, about: About, mode: str) -> None:
    *pieces, last = _streamed(telling, about("astronaut", "What is it?"), mode=mode)
    assert pieces[0]["choices"][0]["delta"]["role"] == "narrator"
    assert all(piece["usage"]["total_tokens"] is not None for piece in pieces)
    assert pieces[-1]["usage"]["completion_tokens"] == last["usage"]["completion_tokens"] > 0
    assert last["choices"] == []
    assert last["metrics"]["time_to_first_token_ms"] > 0
    _is_logged(f"Generated response {last['id']} (streaming complete)")


def test_one_image_is_as_many_tokens_for_vllm_as_for_the_first_look(telling: OpenAI, about: About) -> None:
    messages = about("astronaut", "What is it?")
    used = [ask(telling, messages, {"mode": mode}, model="", max_tokens=4).usage for mode in ("off", "macro")]
    vllms, ours = (usage.model_dump()["prompt_tokens_details"]["multimodal_tokens"] for usage in used)
    assert vllms == ours
