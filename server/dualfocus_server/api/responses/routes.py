"""`/v1/responses`: answering, and what is kept of it."""

from http import HTTPStatus
from typing import Annotated, Any, cast

from fastapi import APIRouter, Query, Request, Response
from pydantic_core import to_json
from vllm.entrypoints.openai.responses.protocol import ResponsesResponse

from dualfocus_server.answering.answer import answer, unless_left
from dualfocus_server.answering.headers import take_headers
from dualfocus_server.answering.intake import take_mode
from dualfocus_server.answering.service import Service
from dualfocus_server.api.responses.background import begin, cancel, replayed
from dualfocus_server.api.responses.protocol import FocusedResponse, ResponseRequest
from dualfocus_server.api.responses.reading import question_of_response
from dualfocus_server.api.responses.store import ResponseStore, Stored, not_found
from dualfocus_server.api.responses.wire import ResponsesWire
from dualfocus_server.guards.api_errors import ApiError, VllmResponseError
from dualfocus_server.guards.json_body import JsonRoute
from dualfocus_server.guards.keys import client_of

router = APIRouter(route_class=JsonRoute)
_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {
        "model": FocusedResponse | ResponsesResponse,
        "description": "The response; where `stream` is true, its events as server-sent events.",
        "content": {"text/event-stream": {}},
    }
}


@router.post("/v1/responses", response_model=None, responses=_ANSWER)
async def create_response(request: ResponseRequest, raw_request: Request) -> Response:
    """Answer a request for a response."""
    service, store = cast("Service", raw_request.app.state.service), raw_request.app.state.response_store
    return await unless_left(raw_request, respond(service, store, request, raw_request))


@router.get("/v1/responses/{response_id}", response_model=None, responses=_ANSWER)
async def retrieve_response(
    response_id: str,
    raw_request: Request,
    stream: bool = False,
    starting_after: Annotated[int | None, Query(ge=0)] = None,
) -> Response:
    """Return a response that is kept; with `stream`, the events of one that is made in the background."""
    stored = _stored(raw_request, response_id)
    if stream:
        number = 0 if starting_after is None else starting_after + 1
        return replayed(stored, number, cast("Service", raw_request.app.state.service))
    return _as_json(stored)


@router.post("/v1/responses/{response_id}/cancel", response_model=None, responses=_ANSWER)
async def cancel_response(response_id: str, raw_request: Request) -> Response:
    """Stop a response that is made in the background."""
    stored = _stored(raw_request, response_id)
    await cancel(stored)
    return _as_json(stored)


async def respond(
    service: Service, store: ResponseStore | None, asked: ResponseRequest, raw_request: Request
) -> Response:
    """Answer one request for a response. Raises HttpError, DualFocusError, VllmResponseError and vLLM's errors."""
    owner, model, is_streamed = client_of(raw_request), asked.model, bool(asked.stream)
    _recall(asked, store, owner)
    if asked.background:
        _check_background(store)
        asked.stream = True  # so that its events are there to be read
    question = question_of_response(asked)
    take_mode(question, service.chat.is_served, service.mode)
    take_headers(question, raw_request)
    asked.model = question.model
    stored = Stored(store, asked.request_id, owner, list(asked.input)) if store is not None and asked.store else None
    wire = ResponsesWire(service, question, raw_request, model, stored)
    if stored is None or not asked.background:
        return await answer(service, question, raw_request, wire)
    stored.response = wire.unanswered("queued")
    await begin(answer(service, question, raw_request, wire), wire, stored)
    return replayed(stored, 0, service) if is_streamed else _as_json(stored)


def _recall(asked: ResponseRequest, store: ResponseStore | None, owner: str) -> None:
    """Put the conversation that a request goes on with before its input. Raises VllmResponseError."""
    if asked.previous_response_id is None:
        return
    if store is None:
        raise not_found(asked.previous_response_id, "previous_response_id")
    before = store.get(asked.previous_response_id, owner, "previous_response_id")
    if not before.is_ended:
        message = f"The response {before.id!r} is not there yet: it is {before.response['status']}."
        raise VllmResponseError(ApiError(HTTPStatus.BAD_REQUEST, message, "previous_response_id"))
    asked.input = [*before.items, *asked.input]


def _check_background(store: ResponseStore | None) -> None:
    if store is None:
        message = "background needs a store of responses, which VLLM_ENABLE_RESPONSES_API_STORE=1 turns on."
        raise VllmResponseError(ApiError(HTTPStatus.BAD_REQUEST, message, "background"))


def _stored(raw_request: Request, response_id: str) -> Stored:
    store: ResponseStore | None = raw_request.app.state.response_store
    if store is None:
        raise not_found(response_id)
    return store.get(response_id, client_of(raw_request))


def _as_json(stored: Stored) -> Response:
    return Response(to_json(stored.response), media_type="application/json")
