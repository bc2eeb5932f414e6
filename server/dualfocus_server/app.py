"""The server's routes on running parts, behind its middleware.

A request passes, outermost first:

    RequestIds       takes or makes its id
    AccessLog        one log line when it is answered
    RecordFailures   counts questions that are answered with an error
    --middleware     the operator's own, in the order of vLLM's server
    Instrumentator   vLLM's metrics of HTTP: `http_requests_total` and the like
    CORS             answers other origins' pages, where the operator names some
    UnexpectedErrors what no handler took becomes a 500 in OpenAI's shape
    KeyCheck         no key, no answer
    BodyLimit        size, time and encoding of its body

and then its route. The first three see every answer, those of the other middleware too.
"""

import inspect
from argparse import Namespace
from collections.abc import Iterable, Set
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, Depends, FastAPI
from prometheus_fastapi_instrumentator import Instrumentator
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp
from vllm.entrypoints.serve.instrumentator import offline_docs

from dualfocus_server.answering.protocol import ErrorBody
from dualfocus_server.answering.report import BOX_HEADER, SELECTION_HEADER, WINNER_HEADER
from dualfocus_server.answering.service import Service
from dualfocus_server.api import admin, chat, chat_batch, completions, health, invocations, models, tokens
from dualfocus_server.api.messages import routes as messages
from dualfocus_server.api.responses import routes as responses
from dualfocus_server.api.responses.store import ResponseStore
from dualfocus_server.guards.api_errors import UnexpectedErrors, add_error_handlers
from dualfocus_server.guards.body_limit import BodyLimit
from dualfocus_server.guards.keys import KeyCheck, KeyRing
from dualfocus_server.playground import playground_routes
from dualfocus_server.settings import Settings
from dualfocus_server.telemetry.logs import AccessLog
from dualfocus_server.telemetry.metrics import UNCOUNTED_PATHS, RecordFailures, record_request
from dualfocus_server.telemetry.request_ids import HEADER, RequestIds

_ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorBody, "description": "The request is refused, or was wrong."},
    "5XX": {"model": ErrorBody, "description": "The server can't answer, or not in time."},
}
# What other origins' pages may read of an answer's headers.
_EXPOSED = [HEADER, WINNER_HEADER, SELECTION_HEADER, BOX_HEADER]


@dataclass(frozen=True, slots=True)
class Admin:
    """The routes for administrators, who have keys of their own; without one they are not there."""

    keys: KeyRing = field(default_factory=KeyRing)
    routers: Iterable[APIRouter] = ()


def create_app(service: Service, settings: Settings, keys: KeyRing, admins: Admin | None = None) -> FastAPI:
    """Return the server's application with its inner middleware: CORS and what is below it."""
    app = FastAPI(
        title="DualFocus",
        version=version("dualfocus"),
        root_path=settings.root_path,
        responses=_ERRORS,
        openapi_url="/openapi.json" if settings.docs else None,  # without it there are no /docs and /redoc either
        docs_url=None if settings.offline_docs else "/docs",
        redoc_url=None if settings.offline_docs else "/redoc",
        redirect_slashes=False,
    )
    app.state.service = service
    app.state.response_store = ResponseStore() if settings.store_responses else None
    if settings.docs and settings.offline_docs:
        app.state.args = Namespace(enable_offline_docs=True)
        offline_docs.attach_router(app)
    app.include_router(chat.router)
    app.include_router(chat_batch.router)
    app.include_router(messages.router)
    app.include_router(responses.router)
    app.include_router(completions.router)
    app.include_router(invocations.router)
    app.include_router(models.router)
    app.include_router(tokens.router)
    if settings.tokenizer_info:
        app.include_router(tokens.info_router)
    app.include_router(health.router)
    admins = admins or Admin()
    if admins.keys.is_needed and admins.routers:
        app.state.engine_client = service.focus.engine.llm  # where vLLM's own routes look for it
        for router in admins.routers:
            app.include_router(router, dependencies=[Depends(admin.admin_only)])
    page = playground_routes() if settings.playground else []
    app.router.routes.extend(page)
    add_error_handlers(app)
    keyless = [*(route.path for route in page), *(["/metrics", "/metrics/"] if settings.metrics_open else [])]
    _add_inner_middleware(app, settings, keys, admins.keys, keyless)
    return app


def with_outer_middleware(app: ASGIApp, unlogged: Set[str] = frozenset()) -> ASGIApp:
    """Return the application behind the three that see every answer; requests of `unlogged` paths have no log line."""
    return RequestIds(AccessLog(RecordFailures(app), unlogged))


def _add_inner_middleware(app: FastAPI, settings: Settings, keys: KeyRing, admins: KeyRing, keyless: list[str]) -> None:
    # Starlette puts what is added last outermost.
    together = settings.max_body_bytes * (settings.max_questions + settings.max_queued)
    app.add_middleware(BodyLimit, limit=settings.max_body_bytes, timeout=settings.body_timeout, together=together)
    app.add_middleware(KeyCheck, ring=keys, admins=admins, also_open=keyless)
    app.add_middleware(UnexpectedErrors)
    if settings.cors is not None:
        app.add_middleware(CORSMiddleware, **settings.cors, expose_headers=_EXPOSED)
    Instrumentator(excluded_handlers=UNCOUNTED_PATHS).add(record_request).instrument(app)
    for middleware in settings.middleware:
        if inspect.iscoroutinefunction(middleware):
            app.middleware("http")(middleware)
        else:
            app.add_middleware(middleware)
