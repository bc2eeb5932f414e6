"""Where a question's milliseconds go between its stages: `python -m loadtests.timeline [--questions N]`.

The model that ships is asked one question at a time, each about a picture that no cache knows, and its traces
(`--otlp-endpoint`) are collected. Prints a table for docs/performance.md: what lies between two spans, and how long the
spans are that the model has no part in.
"""

import argparse
import os
import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from loadtests.asking.questions import asked
from loadtests.asking.servers import Servers
from loadtests.plan import small_model
from loadtests.results.figures import quantile

_FIRST, _WARMING = 7_000, 5
# Until the last spans have come.
_EXPORTED_S, _EVERY_MS = 3.0, "100"
_MS = 1e6
# Each: what is between, where it begins and where it ends, as (span, whether its end).
_Moment = tuple[str, bool]
_BETWEEN: tuple[tuple[str, _Moment, _Moment], ...] = (
    ("sent → the question begins", ("client", False), ("question", False)),
    ("… → `queue`", ("question", False), ("queue", False)),
    ("`queue` → `fetch`", ("queue", True), ("fetch", False)),
    ("`fetch`, the picture in the request", ("fetch", False), ("fetch", True)),
    ("`decode`", ("decode", False), ("decode", True)),
    ("`decode` → `macro`", ("decode", True), ("macro", False)),
    ("`decode` → `grounding`: its prompt", ("decode", True), ("grounding", False)),
    ("`macro` → its turn in vLLM: prompt and picture", ("macro", False), ("macro's turn", False)),
    ("`grounding` → its turn in vLLM", ("grounding", False), ("grounding's turn", False)),
    ("grounding's turn → `grounding` ends", ("grounding's turn", True), ("grounding", True)),
    ("`grounding` → `crop`: the box is read", ("grounding", True), ("crop", False)),
    ("`crop`", ("crop", False), ("crop", True)),
    ("`crop` → `micro`", ("crop", True), ("micro", False)),
    ("`micro` → its turn in vLLM: prompt and crop", ("micro", False), ("micro's turn", False)),
    ("micro's turn → `micro` ends", ("micro's turn", True), ("micro", True)),
    ("`select`", ("select", False), ("select", True)),
    ("`select` → the question ends", ("select", True), ("question", True)),
    ("the question ends → received", ("question", True), ("client", True)),
)


class _Collector(BaseHTTPRequestHandler):
    """Takes spans as OpenTelemetry's exporter sends them."""

    spans: list[Any]

    def do_POST(self) -> None:
        sent = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["Content-Length"])))
        self.spans += [span for part in sent.resource_spans for scope in part.scope_spans for span in scope.spans]
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing of each request."""


@contextmanager
def _collecting(spans: list[Any]) -> Iterator[str]:
    """Yield where spans are to be sent."""
    handler = type("Collector", (_Collector,), {"spans": spans})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1/traces"
    finally:
        server.shutdown()
        server.server_close()


def _ask_all(url: str, questions: int) -> dict[str, tuple[int, int]]:
    """Ask one after the other; returns when each was sent and its answer received, by its trace, in nanoseconds."""
    times = {}
    with httpx.Client(base_url=url, timeout=60) as http:
        for number in range(questions):
            question, trace = asked(_FIRST + number), f"{number + 1:032x}"
            parts = [{"type": "image_url", "image_url": {"url": question.url}}, {"type": "text", "text": question.text}]
            sent = http.build_request(
                "POST",
                "/v1/chat/completions",
                json={"messages": [{"role": "user", "content": parts}]},
                headers={"traceparent": f"00-{trace}-{'1' * 16}-01"},
            )
            began = time.time_ns()
            http.send(sent).raise_for_status()
            times[trace] = (began, time.time_ns())
    return times


def spans_by_name(spans: list[Any]) -> dict[str, tuple[int, int]]:
    """Return when each span of one question begins and ends; vLLM's are named by the stage that they are below."""
    names = {span.span_id: span.name for span in spans}
    return {
        f"{names.get(span.parent_span_id)}'s turn" if span.name == "llm_request" else span.name: (
            span.start_time_unix_nano,
            span.end_time_unix_nano,
        )
        for span in spans
    }


def gaps(found: Mapping[str, tuple[int, int]]) -> dict[str, float]:
    """Return the milliseconds of everything that is looked at, of one question that had both looks."""
    return {
        what: (found[end][is_end] - found[start][is_start_end]) / _MS
        for what, (start, is_start_end), (end, is_end) in _BETWEEN
    }


def _print(taken: Mapping[str, list[float]]) -> None:
    print("| between | median ms | least | of ten nine under |\n| --- | --: | --: | --: |")
    for what, values in taken.items():
        print(f"| {what} | {statistics.median(values):.1f} | {min(values):.1f} | {quantile(values, 0.9):.1f} |")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.timeline", description="Say where milliseconds go.")
    parser.add_argument("--questions", type=int, default=40)
    questions = _WARMING + parser.parse_args().questions
    os.environ |= {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf", "OTEL_BSP_SCHEDULE_DELAY": _EVERY_MS}
    subject, spans = small_model(), list[Any]()
    with _collecting(spans) as collector, TemporaryDirectory() as logs:
        flags = {"all": (*subject.flags["all"], "--otlp-endpoint", collector)}
        servers = Servers(str(subject.folder), subject.key, flags, Path(logs))
        try:
            servers.need(["plain"])
            times = _ask_all(servers.urls["plain"], questions)
            time.sleep(_EXPORTED_S)
        finally:
            servers.stop_all()
    taken: dict[str, list[float]] = defaultdict(list)
    for trace, client in list(times.items())[_WARMING:]:
        found = spans_by_name([span for span in spans if span.trace_id.hex() == trace]) | {"client": client}
        if "micro's turn" in found:
            for what, milliseconds in gaps(found).items():
                taken[what].append(milliseconds)
    _print(taken)


if __name__ == "__main__":
    main()
