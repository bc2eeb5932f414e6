"""Traces: what a collector is sent over OTLP about one question."""

import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from asking import About, ask
from openai import OpenAI
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from running_server import PATIENCE, start_server
from unit.local_web import body_of, respond, serving

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


collected: list[Any] = []


def collect(request: BaseHTTPRequestHandler) -> None:
    """Take spans as OpenTelemetry's exporter sends them."""
    sent = ExportTraceServiceRequest.FromString(body_of(request))
    collected.extend(span for resource in sent.resource_spans for scope in resource.scope_spans for span in scope.spans)
    respond()(request)


@pytest.fixture(scope="module")
def with_outer_middleware(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenAI]:
    with serving({"/v1/traces": collect}) as collector, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf")
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")  # milliseconds between exports
        where = f"{collector.address}/v1/traces"
        running = start_server(tmp_path_factory.mktemp("traced") / "log", "--otlp-endpoint", where)
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
def test_a_question_is_a_span_with_its_stages_and_vllms_turns(
    with_outer_middleware: OpenAI, about: About, stream: bool
) -> None:
    trace = f"{'1' if stream else '2'}{TRACE[1:]}"
    headers = {"traceparent": f"00-{trace}-{PARENT}-01"}
    answer = with_outer_middleware.chat.completions.create(
        model="", messages=about("astronaut", "What is it?"), stream=stream, extra_headers=headers
    )
    if stream:
        list(answer)
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
    assert attributes["dualfocus.winner"] in ("macro", "micro")
    assert attributes["dualfocus.selection"] == "lower_perplexity"


def test_vllms_own_answer_is_below_the_question_too(with_outer_middleware: OpenAI, about: About) -> None:
    trace = f"3{TRACE[1:]}"
    headers = {"traceparent": f"00-{trace}-{PARENT}-01"}
    ask(with_outer_middleware, about("astronaut", "What is it?"), {"mode": "off"}, extra_headers=headers)
    spans = {span.name: span for span in spans_of(trace, turns=1)}
    assert spans["question"].parent_span_id.hex() == PARENT
    assert spans["llm_request"].parent_span_id == spans["question"].span_id
