"""What an operator does to a running server: adapters, vLLM's profiler, and the routes of its development mode.

Each needs a key of `--admin-api-key`. What would take from running questions what they count on (a cache, the memory)
waits until none runs; those that come meanwhile wait for their places.

Leans on vLLM 0.32's `AsyncLLM` (`sleep`, `wake_up`, `release_kv_cache_memory`, `is_sleeping`, `reset_prefix_cache`,
`reset_mm_cache`, `reset_encoder_cache`, `vllm_config`), on `OpenAIServingModels`'s `load_lora_adapter` and
`unload_lora_adapter`, on its routes of `/collective_rpc` and of the profiler, and on `get_env_info`.
"""

import asyncio
import os
import re
from collections.abc import AsyncIterator, Iterator
from functools import cache
from typing import Annotated, Any, Literal, cast

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import TypeAdapter
from pydantic_core import to_json
from vllm import envs
from vllm.collect_env import get_env_info
from vllm.config import ProfilerConfig, VllmConfig
from vllm.entrypoints.serve.dev.rpc.api_router import router as rpc_router
from vllm.entrypoints.serve.dev.sleep.metrics import sleep_mode_operation_metrics
from vllm.entrypoints.serve.lora.protocol import LoadLoRAAdapterRequest, UnloadLoRAAdapterRequest
from vllm.entrypoints.serve.profile.api_router import router as profile_router
from vllm.v1.engine import PauseMode
from vllm.v1.engine.async_llm import AsyncLLM

from dualfocus_server.answering.service import Service
from dualfocus_server.guards.admission import Places
from dualfocus_server.guards.api_errors import as_client_errors
from dualfocus_server.guards.http_errors import Forbidden, Unauthorized

_lora_router, _dev_router = APIRouter(), APIRouter()
# Settings that are kept from who asks what is set, by their names; numbers among them are none.
_SECRET = re.compile(r"key|token|secret|passw|credential|auth|extra_config|additional_config", re.IGNORECASE)
_HIDDEN = "***"
_LEAST_SECRET = 6  # characters: less of one stands in other words too


def offered_routers(profiler: ProfilerConfig | None) -> dict[str, APIRouter]:
    """Return the routes that flags and environment ask for, by what asks for them."""
    found = {}
    if envs.VLLM_ALLOW_RUNTIME_LORA_UPDATING:
        found["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = _lora_router
    if profiler is not None and profiler.profiler is not None:
        found["--profiler-config"] = profile_router
    if envs.VLLM_SERVER_DEV_MODE:
        found["VLLM_SERVER_DEV_MODE"] = _dev_router
    return found


async def admin_only(raw_request: Request) -> AsyncIterator[None]:
    """Let in who has an administrator's key, and tell what vLLM does not take as the client's error."""
    if not raw_request.scope.get("is_admin"):
        if {"authorization", "x-api-key"} & set(raw_request.headers):
            raise Forbidden
        raise Unauthorized(" This route takes one of --admin-api-key.")
    with as_client_errors():
        yield


@_lora_router.post("/v1/load_lora_adapter")
async def load_lora_adapter(request: LoadLoRAAdapterRequest, raw_request: Request) -> Response:
    """Load an adapter, which is then served under its name."""
    return Response(await _service(raw_request).chat.load_adapter(request), media_type="text/plain")


@_lora_router.post("/v1/unload_lora_adapter")
async def unload_lora_adapter(request: UnloadLoRAAdapterRequest, raw_request: Request) -> Response:
    """Serve an adapter no longer."""
    return Response(await _service(raw_request).chat.unload_adapter(request), media_type="text/plain")


@_dev_router.post("/sleep")
async def sleep(
    raw_request: Request, level: Annotated[int, Query(ge=0, le=2)] = 1, mode: PauseMode = "abort"
) -> Response:
    """Give the engine's memory back; questions wait until it is awake again."""
    places, llm = _places(raw_request), _llm(raw_request)
    async with places.alone():
        with sleep_mode_operation_metrics().record("sleep"):
            try:
                await llm.sleep(level, mode)
            except Exception:
                await llm.wake_up()  # it would take no question otherwise
                raise
        places.is_asleep = True
    return JSONResponse({"status": "sleeping", "level": level})


@_dev_router.post("/release_kv_cache_memory")
async def release_kv_cache_memory(raw_request: Request) -> Response:
    """Give the KV cache's memory back, once the engine sleeps at level 0."""
    async with _places(raw_request).alone():
        with sleep_mode_operation_metrics().record("release_kv_cache_memory"):
            await _llm(raw_request).release_kv_cache_memory()
    return JSONResponse({"status": "kv_cache_released"})


@_dev_router.post("/wake_up")
async def wake_up(raw_request: Request, tags: Annotated[list[str] | None, Query()] = None) -> Response:
    """Take memory again, all of it or what `tags` name."""
    places = _places(raw_request)
    async with places.alone():
        with sleep_mode_operation_metrics().record("wake"):
            is_awake = await _llm(raw_request).wake_up(tags)
        places.is_asleep = not is_awake
    return JSONResponse({"status": "awake" if is_awake else "sleeping", "tags": tags})


@_dev_router.get("/is_sleeping")
async def is_sleeping(raw_request: Request) -> Response:
    """Say whether the engine sleeps."""
    return JSONResponse({"is_sleeping": await _llm(raw_request).is_sleeping()})


@_dev_router.post("/reset_prefix_cache")
async def reset_prefix_cache(
    raw_request: Request, reset_running_requests: bool = False, reset_external: bool = False
) -> Response:
    """Forget the prefixes of earlier prompts."""
    async with _places(raw_request).alone():
        success = await _llm(raw_request).reset_prefix_cache(reset_running_requests, reset_external)
    return JSONResponse({"success": bool(success)})


@_dev_router.post("/reset_mm_cache")
async def reset_mm_cache(raw_request: Request) -> Response:
    """Forget processed pictures, in each process that answers requests and in the engine's."""
    async with _places(raw_request).alone():
        await (_service(raw_request).reset_mm_caches or _llm(raw_request).reset_mm_cache)()
    return Response()


@_dev_router.post("/reset_encoder_cache")
async def reset_encoder_cache(raw_request: Request) -> Response:
    """Forget the vision encoder's outputs."""
    async with _places(raw_request).alone():
        await _llm(raw_request).reset_encoder_cache()
    return Response()


@_dev_router.get("/server_info")
async def server_info(raw_request: Request, config_format: Literal["text", "json"] = "text") -> Response:
    """Tell vLLM's settings and what it runs on, without the environment and whatever may be secret."""
    config = _llm(raw_request).vllm_config
    told = (
        str(config)
        if config_format == "text"
        else TypeAdapter(VllmConfig).dump_python(config, mode="json", fallback=str)
    )
    body = to_json({"vllm_config": _without_secrets(told), "system_env": await asyncio.to_thread(_system)})
    for secret in _secrets(config):
        body = body.replace(to_json(secret)[1:-1], _HIDDEN.encode())
    return Response(body, media_type="application/json")


_dev_router.include_router(rpc_router)


@cache
def _system() -> dict[str, Any]:
    return {name: value for name, value in get_env_info()._asdict().items() if name != "env_vars"}


def _without_secrets(told: Any) -> Any:
    if isinstance(told, list):
        return [_without_secrets(inner) for inner in told]
    if not isinstance(told, dict):
        return told
    return {
        name: _HIDDEN if isinstance(value, str | list | dict) and _SECRET.search(str(name)) else _without_secrets(value)
        for name, value in told.items()
    }


def _secrets(config: VllmConfig) -> Iterator[str]:
    """Yield what is secret wherever it stands: what the environment names so, and the hub's token."""
    named = [value for name, value in os.environ.items() if _SECRET.search(name)]
    yield from (value for value in (*named, getattr(config.model_config, "hf_token", "")) if _is_secret(value))


def _is_secret(value: Any) -> bool:
    return isinstance(value, str) and len(value) >= _LEAST_SECRET


def _service(raw_request: Request) -> Service:
    return cast("Service", raw_request.app.state.service)


def _places(raw_request: Request) -> Places:
    return _service(raw_request).admission.places


def _llm(raw_request: Request) -> AsyncLLM:
    return _service(raw_request).focus.engine.llm
