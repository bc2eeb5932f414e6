"""`POST /v1/chat/completions`.

Leans on vLLM 0.32's streams: the first pieces say the role.
"""

from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Any, cast

from fastapi import APIRouter, Request, Response
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionResponse

from dualfocus_server.answering.answer import answer, unless_left
from dualfocus_server.answering.headers import take_headers
from dualfocus_server.answering.intake import inlined_images, take_mode
from dualfocus_server.answering.protocol import FocusRequest, FocusResponse
from dualfocus_server.answering.service import Service
from dualfocus_server.answering.streaming import Events
from dualfocus_server.answering.vllm_serving.answer_reader import DeltaParser
from dualfocus_server.api.pieces import FocusWriter, Pieces, error_events, with_field
from dualfocus_server.guards.api_errors import ApiError
from dualfocus_server.guards.json_body import JsonRoute
from dualfocus_server.guards.keys import client_of

router = APIRouter(route_class=JsonRoute)
# In the last piece of each choice; within a text its quotation marks are escaped.
_FINISH = '"finish_reason":"'
# vLLM's streams say the role as soon as the engine says anything, were it that it has failed.
_ROLE = '"delta":{"role":'
_ANSWER = {
    "model": FocusResponse | ChatCompletionResponse,
    "description": "The answer; where `stream` is true, its pieces as server-sent events.",
    "content": {"text/event-stream": {}},
}


@router.post("/v1/chat/completions/", include_in_schema=False)  # some clients' base URLs end so
@router.post("/v1/chat/completions", response_model=None, responses={200: _ANSWER})
async def chat_completions(request: FocusRequest, raw_request: Request) -> Response:
    """Answer a chat completion."""
    service = cast("Service", raw_request.app.state.service)
    return await unless_left(raw_request, answer_chat(service, request, raw_request))


async def answer_chat(service: Service, request: FocusRequest, raw_request: Request) -> Response:
    """Answer one chat completion request. Raises HttpError, DualFocusError, VllmResponseError and vLLM's errors."""
    asked_model = request.model
    take_mode(request, service.chat.is_served, service.mode)
    take_headers(request, raw_request)
    service.chat.check_tools(request)
    return await answer(service, request, raw_request, ChatWire(service, request, raw_request, asked_model))


class ChatWire:
    """A chat completion request: its answers are written as they are."""

    def __init__(self, service: Service, request: FocusRequest, raw_request: Request, model: str | None) -> None:
        self._service = service
        self._request = request
        self._raw_request = raw_request
        self._model = model or service.chat.model_name
        self._pieces = self._pieces_of(service.chat.signature(request))

    @property
    def model(self) -> str:
        """The name as the client wrote it."""
        return self._model

    def body(self, response: FocusResponse) -> dict[str, Any]:
        """Return a whole answer of two looks."""
        return dict(response.model_dump())

    def writer(self, events: Events, parse_delta: DeltaParser) -> FocusWriter:
        """Return what writes an answer of two looks as pieces."""
        self._pieces = self._pieces_of(self._model)
        usage = self._service.chat.usage_in_stream(self._request.stream_options)
        return FocusWriter(events, parse_delta, self._pieces, self._request.dualfocus.progress, usage)

    def _pieces_of(self, model: str) -> Pieces:
        return Pieces(self._request.answer_id, model, self._service.chat.role)

    async def vllm_body(self) -> dict[str, Any]:
        """Have vLLM answer."""
        async with self._inlined_images():
            return dict((await self._service.chat.answer(self._request, self._raw_request)).model_dump())

    async def vllm_events(self) -> AsyncGenerator[str, None]:
        """Have vLLM answer as events."""
        async with (
            self._inlined_images(),
            aclosing(await self._service.chat.stream(self._request, self._raw_request)) as pieces,
        ):
            async for piece in pieces:
                yield piece

    def _inlined_images(self) -> AbstractAsyncContextManager[None]:
        images = self._service.images.of(client_of(self._raw_request))
        return inlined_images(self._request, self._service.focus, images)

    def with_field(self, event: str, field: Mapping[str, str]) -> str:
        """Return an event of vLLM's with the answer's `dualfocus` field, where it says why the answer ends."""
        return with_field(event, field) if _FINISH in event else event

    def begins_answer(self, event: str) -> bool:
        """Whether an event of vLLM's says more than the role: the engine has taken the request."""
        return _ROLE not in event

    def progress(self, doing: str) -> str:
        """Return a piece that tells what is being done."""
        return self._pieces.progress(doing)

    def silence(self) -> str:
        """Return a piece without text."""
        return self._pieces.nothing()

    def failure(self, problem: ApiError) -> list[str]:
        """Return the error as OpenAI's streams tell it."""
        return error_events(problem)
