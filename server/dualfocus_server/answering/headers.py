"""What the headers of a request tell vLLM, and what one of an answer tells of the engine.

Leans on vLLM 0.32's `_get_priority` with the header that it reads, and on `metrics_header`.
"""

from collections.abc import Mapping

from dualfocus_engine import BadQuestion
from fastapi import Request
from opentelemetry.propagate import inject
from starlette.datastructures import MutableHeaders
from vllm.entrypoints.generate.base.serving import PRIORITY_HEADER, GenerateBaseServing
from vllm.entrypoints.openai.chat_completion.api_router import ENDPOINT_LOAD_METRICS_FORMAT_HEADER_LABEL
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.entrypoints.serve.utils.orca_metrics import metrics_header

from dualfocus_server.guards.json_limits import LARGEST
from dualfocus_server.telemetry.request_ids import HEADER, request_id


def load_header(raw_request: Request) -> Mapping[str, str]:
    """Return the header that tells the engine's load (ORCA's), where a client asks for it as text or JSON."""
    asked = raw_request.headers.get(ENDPOINT_LOAD_METRICS_FORMAT_HEADER_LABEL, "")
    # Of other formats vLLM warns in the log, each time.
    return (asked.lower() in ("text", "json") and metrics_header(asked)) or {}


def take_headers(request: ChatCompletionRequest | CompletionRequest, raw_request: Request) -> None:
    """Give a request the id and the priority that vLLM answers it with: those of the headers, where they are given.

    The id is the checked one. Raises BadQuestion over a priority that the engine can't be handed.
    """
    request.priority = GenerateBaseServing._get_priority(request, raw_request)
    if abs(request.priority) > LARGEST:
        raise BadQuestion(f"{PRIORITY_HEADER} has a number of more than 64 bits.")
    if HEADER in raw_request.headers:
        request.request_id = request_id.get() or request.request_id


def as_ours(raw_request: Request) -> Request:
    """Return the request with the checked id, which vLLM's answers carry, and the current span, which its go under."""
    headers = MutableHeaders(raw=list(raw_request.scope["headers"]))
    if HEADER in headers:
        headers[HEADER] = str(request_id.get())
    inject(headers)
    return Request({**raw_request.scope, "headers": headers.raw}, raw_request.receive)
