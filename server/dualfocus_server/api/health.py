"""What probes and operators ask: `/health`, `/ready`, `/ping`, `/version`, `/load`, `/metrics`, and the like."""

from importlib.metadata import version
from typing import cast

import vllm
from fastapi import APIRouter, Request, Response
from fastapi.encoders import jsonable_encoder
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST

from dualfocus_server.answering.service import Service
from dualfocus_server.guards.api_errors import to_api_error
from dualfocus_server.guards.http_errors import Asleep

router = APIRouter()


@router.get("/health")
async def health() -> Response:
    """Say that the process is there."""
    return JSONResponse({"status": "ok"})


@router.get("/ready")
async def ready(raw_request: Request) -> Response:
    """Say whether new questions are taken and the engine answers."""
    service = cast("Service", raw_request.app.state.service)
    if service.admission.closed is not None:
        return to_api_error(service.admission.closed).response(raw_request.scope)
    if service.admission.places.is_asleep:
        raise Asleep
    await service.watchdog.check_ready()
    return JSONResponse({"status": "ready"})


@router.api_route("/ping", methods=["GET", "POST"])
async def ping(raw_request: Request) -> Response:
    """Say the same, where SageMaker asks."""
    return await ready(raw_request)


@router.get("/version")
async def versions() -> Response:
    """Name the versions of what is running."""
    return JSONResponse({"version": version("dualfocus"), "vllm": vllm.__version__})


@router.get("/load")
async def load(raw_request: Request) -> Response:
    """Say how many requests run or wait, as vLLM does with `--enable-server-load-tracking`; here they always count."""
    service = cast("Service", raw_request.app.state.service)
    return JSONResponse({"server_load": await service.admission.places.load()})


@router.get("/kv_event_sources")
async def kv_event_sources(raw_request: Request) -> Response:
    """Name where each data-parallel rank publishes events of its KV cache (`--kv-events-config`), as vLLM does."""
    service = cast("Service", raw_request.app.state.service)
    return JSONResponse(jsonable_encoder(service.focus.engine.llm.get_kv_event_sources()))


@router.get("/metrics/", include_in_schema=False)
@router.get(
    "/metrics", response_class=Response, responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}
)
async def metrics(raw_request: Request) -> Response:
    """Return all metrics in Prometheus's text format."""
    service = cast("Service", raw_request.app.state.service)
    return Response(await service.metrics(), media_type=CONTENT_TYPE_LATEST)
