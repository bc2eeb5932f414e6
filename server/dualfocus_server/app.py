"""The server: its routes, on a running engine."""

import asyncio
from dataclasses import dataclass
from importlib.metadata import version
from typing import cast

import vllm
from dualfocus_engine import DualFocus, EngineDead, Mode
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionResponse
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.entrypoints.serve.utils.api_utils import with_cancellation

from dualfocus_server.errors import error_response, from_vllm, install_error_handlers
from dualfocus_server.intake import concerns_focus, inline_images, question_of
from dualfocus_server.media import ImageSource
from dualfocus_server.protocol import FocusRequest, FocusResponse
from dualfocus_server.report import completion
from dualfocus_server.vllm_chat import VllmChat

router = APIRouter()
_READY_TIMEOUT = 2.0


@dataclass(frozen=True, slots=True)
class Service:
    """What the routes work with."""

    focus: DualFocus
    chat: VllmChat
    images: ImageSource


def create_app(service: Service) -> FastAPI:
    """Return the server's application on running parts."""
    app = FastAPI(title="DualFocus", version=version("dualfocus"), docs_url=None, redoc_url=None)
    app.state.service = service
    app.include_router(router)
    install_error_handlers(app)
    return app


def _service(request: Request) -> Service:
    return cast("Service", request.app.state.service)


@router.post("/v1/chat/completions", response_model=FocusResponse | ChatCompletionResponse)
@with_cancellation
async def chat_completions(request: FocusRequest, raw_request: Request) -> Response:
    """Answer a chat completion: by two looks where it asks about an image, by vLLM's own serving otherwise."""
    service = _service(raw_request)
    if concerns_focus(request) and service.chat.is_base_model(request.model):
        return await _focus(service, request)
    return await _vllm(service, request, raw_request)


async def _focus(service: Service, request: FocusRequest) -> Response:
    question = await question_of(request, service.focus, service.images)
    result = await service.focus.answer(question)
    model = request.model or service.chat.model_name
    logprobs = service.chat.logprobs(result.answer, request)
    answer = completion(result, Mode(request.dualfocus.mode), model, request.request_id, logprobs)
    return JSONResponse(answer.model_dump())


async def _vllm(service: Service, request: FocusRequest, raw_request: Request) -> Response:
    await inline_images(request, service.images)
    answer = await service.chat.answer(request, raw_request)
    if isinstance(answer, ErrorResponse):
        return from_vllm(answer)
    if isinstance(answer, ChatCompletionResponse):
        answer.ec_transfer_params = None  # the engine's own count of encoder runs, no transfer
        return JSONResponse(answer.model_dump())
    return StreamingResponse(answer, media_type="text/event-stream")


@router.get("/v1/models")
async def models(raw_request: Request) -> Response:
    """List the served models."""
    return JSONResponse((await _service(raw_request).chat.models()).model_dump())


@router.get("/health")
async def health() -> Response:
    """Say that the process is there."""
    return JSONResponse({"status": "ok"})


@router.get("/ready")
async def ready(raw_request: Request) -> Response:
    """Say whether the engine answers."""
    engine = _service(raw_request).focus.engine
    try:
        async with asyncio.timeout(_READY_TIMEOUT):
            await engine.check_health()
    except (EngineDead, TimeoutError):
        return error_response(503, "The engine does not answer.")
    return JSONResponse({"status": "ready"})


@router.get("/version")
async def versions() -> Response:
    """Name the versions of what is running."""
    return JSONResponse({"version": version("dualfocus"), "vllm": vllm.__version__})


@router.get("/metrics")
async def metrics() -> Response:
    """Return all metrics in Prometheus's text format."""
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)
