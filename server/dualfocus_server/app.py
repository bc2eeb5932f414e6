"""The server's routes, on running parts."""

import time
from importlib.metadata import version
from typing import cast

import vllm
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionResponse
from vllm.entrypoints.serve.utils.api_utils import with_cancellation

from dualfocus_server.api.chat import Service, answer
from dualfocus_server.api.protocol import MODES, FocusRequest, FocusResponse
from dualfocus_server.guards.body_limit import BodyLimit
from dualfocus_server.guards.errors import install_error_handlers, problem_of
from dualfocus_server.guards.json_body import JsonRoute
from dualfocus_server.guards.keys import KeyCheck, KeyRing
from dualfocus_server.playground import playground_routes
from dualfocus_server.settings import Settings
from dualfocus_server.startup.lifecycle import check_ready
from dualfocus_server.telemetry.logs import answered
from dualfocus_server.telemetry.metrics import CountFailures
from dualfocus_server.telemetry.request_ids import RequestIds

router = APIRouter(route_class=JsonRoute)
# Nobody is told: it stands in the log.
_CLIENT_LEFT = 499


def create_app(service: Service, settings: Settings, keys: KeyRing) -> FastAPI:
    """Return the server's application, to be given to `traced`. The outermost middleware is the one added last."""
    app = FastAPI(
        title="DualFocus", version=version("dualfocus"), docs_url=None, redoc_url=None, redirect_slashes=False
    )
    app.state.service = service
    app.state.engine_timeout = settings.engine_timeout
    app.include_router(router)
    page = playground_routes() if settings.playground else []
    app.router.routes.extend(page)
    app.add_middleware(BodyLimit, limit=settings.max_body_bytes, timeout=settings.body_timeout)
    open_routes = [*(route.path for route in page), *(["/metrics"] if settings.metrics_open else [])]
    app.add_middleware(KeyCheck, ring=keys, also_open=open_routes)
    install_error_handlers(app)
    return app


def traced(app: ASGIApp) -> ASGIApp:
    """Give every answer of an application an id and a log line, its middlewares' included, and count the failed."""
    return RequestIds(AccessLog(CountFailures(app)))


class AccessLog:
    """ASGI middleware: one log line for each request that was answered."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started, status = time.perf_counter(), 0

        async def noted(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            if scope["type"] == "http":
                answered(scope["method"], scope["path"], status, time.perf_counter() - started)


def _service(request: Request) -> Service:
    return cast("Service", request.app.state.service)


@router.post(
    "/v1/chat/completions", response_model=None, responses={200: {"model": FocusResponse | ChatCompletionResponse}}
)
async def chat_completions(request: FocusRequest, raw_request: Request) -> Response:
    """Answer a chat completion."""
    answered: Response | None = await _answer_unless_left(request, raw_request)
    return answered or Response(status_code=_CLIENT_LEFT)


@with_cancellation
async def _answer_unless_left(request: FocusRequest, raw_request: Request) -> Response:
    return await answer(_service(raw_request), request, raw_request)


@router.get("/v1/models")
async def models(raw_request: Request) -> Response:
    """List the served models; those that look twice also by the names that choose a mode."""
    chat = _service(raw_request).chat
    listed = (await chat.models()).model_dump()
    listed["data"] = [
        card | {"id": name} for card in listed["data"] for name in _names(card["id"], chat.is_base_model(card["id"]))
    ]
    return JSONResponse(listed)


def _names(model: str, takes_modes: bool) -> list[str]:
    return [model, *(f"{model}:{mode}" for mode in MODES if takes_modes)]


@router.get("/health")
async def health() -> Response:
    """Say that the process is there."""
    return JSONResponse({"status": "ok"})


@router.get("/ready")
async def ready(raw_request: Request) -> Response:
    """Say whether new questions are taken and the engine answers."""
    service = _service(raw_request)
    if service.admission.closed is not None:
        return problem_of(service.admission.closed).response()
    await check_ready(service.focus.engine, raw_request.app.state.engine_timeout)
    return JSONResponse({"status": "ready"})


@router.get("/version")
async def versions() -> Response:
    """Name the versions of what is running."""
    return JSONResponse({"version": version("dualfocus"), "vllm": vllm.__version__})


@router.get("/metrics")
async def metrics() -> Response:
    """Return all metrics in Prometheus's text format."""
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)
