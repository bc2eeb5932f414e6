"""`POST /v1/completions`: vLLM's, for texts. There is no second look at a text.

Leans on vLLM 0.32's `CompletionRequest`, `CompletionResponse` and `CompletionStreamResponse`.
"""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Self, cast

from fastapi import APIRouter, Request, Response
from pydantic import model_validator
from vllm.config import ModelConfig
from vllm.entrypoints.openai.completion.protocol import (
    CompletionRequest,
    CompletionResponse,
    CompletionResponseStreamChoice,
    CompletionStreamResponse,
)
from vllm.renderers.params import TokenizeParams

from dualfocus_server.answering.answer import answer_by_vllm, unless_left
from dualfocus_server.answering.headers import take_headers
from dualfocus_server.answering.intake import model_and_mode, prompts_into_words
from dualfocus_server.answering.protocol import Counting, Readable
from dualfocus_server.answering.sampled import Sampled
from dualfocus_server.answering.service import Service
from dualfocus_server.api.pieces import error_events
from dualfocus_server.guards.api_errors import ApiError
from dualfocus_server.guards.json_body import JsonRoute
from dualfocus_server.guards.json_limits import FieldError

router = APIRouter(route_class=JsonRoute)
# Of one request, which takes one place: as many as vLLM takes prompts.
_MAX_TEXTS = 1_024
_ANSWER = {
    "model": CompletionResponse,
    "description": "The texts; where `stream` is true, their pieces as server-sent events.",
    "content": {"text/event-stream": {}},
}


class Completion(Readable, Sampled, CompletionRequest):
    """A completion request as vLLM takes it."""

    def build_tok_params(self, model_config: ModelConfig) -> TokenizeParams:
        """Return how vLLM's own serving tokenizes the prompt."""
        return Counting(**vars(super().build_tok_params(model_config)))

    @model_validator(mode="after")
    def _asks_for_few_texts(self) -> Self:
        texts = (self.n or 1) * (_number(self.prompt) + _number(self.prompt_embeds))
        if texts > _MAX_TEXTS:
            raise FieldError(f"n for each prompt makes {texts:,} texts; {_MAX_TEXTS:,} are the most", "n")
        return self


def _number(prompts: Any) -> int:
    """Count prompts; a list of numbers is one."""
    if prompts is None:
        return 0
    return len(prompts) if isinstance(prompts, list) and not isinstance(next(iter(prompts), 0), int) else 1


@router.post("/v1/completions", response_model=None, responses={200: _ANSWER})
async def completions(request: Completion, raw_request: Request) -> Response:
    """Continue a text, or several."""
    service = cast("Service", raw_request.app.state.service)
    return await unless_left(raw_request, complete(service, request, raw_request))


async def complete(service: Service, request: Completion, raw_request: Request) -> Response:
    """Answer one completion request. Raises HttpError, BadQuestion, VllmResponseError and vLLM's errors."""
    asked_model = request.model
    request.model, _ = model_and_mode(request.model, service.chat.is_served)
    prompts_into_words(request, service.focus)
    take_headers(request, raw_request)
    wire = CompletionWire(service, request, raw_request, asked_model or service.chat.model_name)
    streamed = bool(request.stream)
    return await answer_by_vllm(service, raw_request, wire, is_streamed=streamed, interval=request.stream_interval)


class CompletionWire:
    """A completion request, answered by vLLM."""

    def __init__(self, service: Service, request: Completion, raw_request: Request, model: str) -> None:
        self._service = service
        self._request = request
        self._raw_request = raw_request
        self._model = model

    async def vllm_body(self) -> dict[str, Any]:
        """Have vLLM answer."""
        return dict((await self._service.chat.complete(self._request, self._raw_request)).model_dump())

    async def vllm_events(self) -> AsyncGenerator[str, None]:
        """Have vLLM answer as events."""
        async with aclosing(await self._service.chat.stream_text(self._request, self._raw_request)) as pieces:
            async for piece in pieces:
                yield piece

    def begins_answer(self, event: str) -> bool:
        """Whether the engine has taken the request: every event says some of the text."""
        return True

    def silence(self) -> str:
        """Return a piece without text."""
        piece = CompletionStreamResponse(
            id=f"cmpl-{self._request.request_id}",
            object="text_completion",
            created=int(time.time()),
            model=self._model,
            choices=[CompletionResponseStreamChoice(index=0, text="", logprobs=None, finish_reason=None)],
        )
        return f"data: {piece.model_dump_json(exclude_unset=True)}\n\n"

    def failure(self, problem: ApiError) -> list[str]:
        """Return the error as OpenAI's streams tell it."""
        return error_events(problem)
