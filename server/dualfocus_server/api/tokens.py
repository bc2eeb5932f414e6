"""vLLM's `/tokenize` and `/detokenize`: no step of the engine is made for them, and images are opened by our rules.

Leans on vLLM 0.32's `ServingTokenization`, which leaves its image cache as it is.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, Self, cast

from dualfocus_engine.method.stages import Stages
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import Discriminator, Tag, model_validator
from vllm.entrypoints.serve.tokenize.protocol import (
    DetokenizeRequest,
    DetokenizeResponse,
    TokenizeChatRequest,
    TokenizeCompletionRequest,
    TokenizeResponse,
    TokenizerInfoResponse,
)

from dualfocus_server.answering.answer import unless_left
from dualfocus_server.answering.contents import TEXT, parts_of
from dualfocus_server.answering.intake import image_parts, inlined_images, model_and_mode
from dualfocus_server.answering.protocol import Conversation, Readable
from dualfocus_server.answering.service import Service
from dualfocus_server.guards.json_body import JsonRoute
from dualfocus_server.guards.json_limits import FieldError
from dualfocus_server.guards.keys import client_of

router = APIRouter(route_class=JsonRoute)
# A second's work.
_MAX_CHARACTERS = 1_000_000
# `--enable-tokenizer-info-endpoint`, as in vLLM: it tells the chat template.
info_router = APIRouter()


class TokenizeConversation(Conversation, TokenizeChatRequest):
    """A conversation to be tokenized; its images count as their placeholders."""

    @model_validator(mode="after")
    def _is_not_too_long(self) -> Self:
        parts = [part for message in self.messages for part in parts_of(message) if part["type"] == TEXT]
        _check_length("messages", sum(len(part[TEXT]) for part in parts))
        return self


class TokenizeText(Readable, TokenizeCompletionRequest):
    """A text to be tokenized."""

    @model_validator(mode="after")
    def _is_not_too_long(self) -> Self:
        _check_length("prompt", len(self.prompt))
        return self


class Detokenize(Readable, DetokenizeRequest):
    """Tokens to be written out."""


def _check_length(field: str, found: int) -> None:
    """Raise FieldError over what keeps the one thread that tokenizes for all from the questions."""
    if found > _MAX_CHARACTERS:
        raise FieldError(f"{field} has {found:,} characters; {_MAX_CHARACTERS:,} are the most at a time", field)


def _kind(body: Any) -> str:
    return "conversation" if isinstance(body, dict) and "messages" in body else "text"


Tokenize = Annotated[
    Annotated[TokenizeConversation, Tag("conversation")] | Annotated[TokenizeText, Tag("text")], Discriminator(_kind)
]


@router.post("/tokenize", responses={200: {"model": TokenizeResponse}})
async def tokenize(request: Tokenize, raw_request: Request) -> Response:
    """Tokenize a text, or a conversation as it is put to the model."""
    return await unless_left(raw_request, _tokenize(request, raw_request))


async def _tokenize(request: TokenizeConversation | TokenizeText, raw_request: Request) -> Response:
    return JSONResponse(await tokenized(request, raw_request))


async def tokenized(request: TokenizeConversation | TokenizeText, raw_request: Request) -> dict[str, Any]:
    """Return what vLLM answers. Raises HttpError, BadPicture, VllmResponseError and vLLM's errors."""
    async with _admitted(request, raw_request) as service:
        if isinstance(request, TokenizeText):
            return await service.chat.tokenize(request, raw_request)
        service.images.check_number(len(list(image_parts(request))))
        async with inlined_images(request, service.focus, service.images.of(client_of(raw_request))):
            return await service.chat.tokenize(request, raw_request)


@router.post("/detokenize", responses={200: {"model": DetokenizeResponse}})
async def detokenize(request: Detokenize, raw_request: Request) -> Response:
    """Write tokens out as text."""
    return await unless_left(raw_request, _detokenize(request, raw_request))


async def _detokenize(request: Detokenize, raw_request: Request) -> Response:
    async with _admitted(request, raw_request) as service:
        return JSONResponse(await service.chat.detokenize(request, raw_request))


@info_router.get("/tokenizer_info", responses={200: {"model": TokenizerInfoResponse}})
async def tokenizer_info(raw_request: Request) -> Response:
    """Describe the tokenizer."""
    service = cast("Service", raw_request.app.state.service)
    return JSONResponse(await service.chat.tokenizer_info())


@asynccontextmanager
async def _admitted(request: Any, raw_request: Request) -> AsyncIterator[Service]:
    """Hold a question's place and time limit; a name that chooses a mode is its model's."""
    service = cast("Service", raw_request.app.state.service)
    request.model, _ = model_and_mode(request.model, service.chat.is_served)
    with await service.admission.admit(client_of(raw_request), Stages()) as slot:
        async with service.until(service.deadline()):
            await slot.acquire()
            yield service
