"""One span for each question, joined to the client's trace; its stages and vLLM's spans are below it.

Without `--otlp-endpoint` nothing is recorded: vLLM sets the exporter up, for itself and for us.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from dualfocus_engine import FocusResult
from fastapi import Request
from opentelemetry import trace
from opentelemetry.propagate import extract

from dualfocus_server.telemetry.request_ids import request_id

_tracer = trace.get_tracer("dualfocus")


@contextmanager
def question_span(raw_request: Request, held: ExitStack) -> Iterator[None]:
    """Make a span the current one within; it ends with what is `held`, which may be later."""
    attributes = {"dualfocus.request_id": str(request_id.get())}
    span = _tracer.start_span(
        "question", extract(raw_request.headers), trace.SpanKind.SERVER, attributes, record_exception=False
    )
    held.callback(span.end)
    with trace.use_span(span):
        yield


def record_on_span(result: FocusResult) -> None:
    """Write on the current span how the question ended."""
    trace.get_current_span().set_attributes(
        {"dualfocus.winner": result.winner, "dualfocus.selection": result.selection.value}
    )
