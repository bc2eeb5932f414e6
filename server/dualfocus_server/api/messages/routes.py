"""`POST /v1/messages` and `/v1/messages/count_tokens`."""

from typing import Any, cast

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from vllm.entrypoints.anthropic.protocol import (
    AnthropicCountTokensResponse,
    AnthropicErrorResponse,
    AnthropicMessagesResponse,
)

from dualfocus_server.answering.answer import answer, unless_left
from dualfocus_server.answering.headers import take_headers
from dualfocus_server.answering.intake import take_mode
from dualfocus_server.answering.service import Service
from dualfocus_server.api.messages.protocol import CountTokensRequest, MessagesRequest, MessagesResponse
from dualfocus_server.api.messages.reading import chat_request, tokenize_request
from dualfocus_server.api.messages.wire import MessagesWire
from dualfocus_server.api.tokens import tokenized
from dualfocus_server.guards.json_body import JsonRoute

_ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": AnthropicErrorResponse},
    "5XX": {"model": AnthropicErrorResponse},
}
_ANSWER = {
    "model": MessagesResponse | AnthropicMessagesResponse,
    "description": "The answer; where `stream` is true, its events as server-sent events.",
    "content": {"text/event-stream": {}},
}
router = APIRouter(route_class=JsonRoute, responses=_ERRORS)


@router.post("/v1/messages", response_model=None, responses={200: _ANSWER})
async def messages(request: MessagesRequest, raw_request: Request) -> Response:
    """Answer a message."""
    return await unless_left(raw_request, answer_message(request, raw_request))


async def answer_message(asked: MessagesRequest, raw_request: Request) -> Response:
    """Answer one request.

    Raises HttpError, DualFocusError, RequestValidationError, VllmResponseError and vLLM's errors.
    """
    service = cast("Service", raw_request.app.state.service)
    request = await chat_request(asked, service.chat.messages)
    take_mode(request, service.chat.is_served, service.mode)
    take_headers(request, raw_request)
    service.chat.check_tools(request)
    wire = MessagesWire(service, service.chat.messages, request, raw_request, asked.model)
    return await answer(service, request, raw_request, wire)


@router.post("/v1/messages/count_tokens", responses={200: {"model": AnthropicCountTokensResponse}})
async def count_tokens(request: CountTokensRequest, raw_request: Request) -> Response:
    """Count the tokens of a conversation, as the first look at it has them."""
    return await unless_left(raw_request, _count_tokens(request, raw_request))


async def _count_tokens(request: CountTokensRequest, raw_request: Request) -> Response:
    service = cast("Service", raw_request.app.state.service)
    conversation = await tokenize_request(request, service.chat.messages)
    count = (await tokenized(conversation, raw_request))["count"]
    return JSONResponse({"input_tokens": count, "context_management": {"original_input_tokens": count}})
