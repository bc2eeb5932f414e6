"""Administrators' routes: who is let in, what waits for whom, and that no secret is told."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
from dualfocus_engine.method.stages import Stages
from dualfocus_server.api import admin
from dualfocus_server.app import Admin, create_app, with_outer_middleware
from dualfocus_server.guards.admission import Admission
from dualfocus_server.guards.api_errors import VllmResponseError, api_error_from_vllm
from dualfocus_server.guards.keys import KeyRing
from dualfocus_server.settings import Settings
from fastapi import FastAPI
from pydantic import TypeAdapter
from vllm.config import ProfilerConfig
from vllm.entrypoints.serve.exception_handling.error_response import create_error_response

from ..fake_engine import WAIT
from .test_chat_service import FakeChat, service

ADMIN, ORDINARY = {"Authorization": "Bearer admins"}, {"Authorization": "Bearer good"}
ROUTES = {
    "/v1/load_lora_adapter": "POST",
    "/v1/unload_lora_adapter": "POST",
    "/start_profile": "POST",
    "/stop_profile": "POST",
    "/sleep": "POST",
    "/release_kv_cache_memory": "POST",
    "/wake_up": "POST",
    "/is_sleeping": "GET",
    "/reset_prefix_cache": "POST",
    "/reset_mm_cache": "POST",
    "/reset_encoder_cache": "POST",
    "/server_info": "GET",
    "/collective_rpc": "POST",
}
ASKED = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1", "VLLM_SERVER_DEV_MODE": "1"}
PROFILER = ProfilerConfig(profiler="torch", torch_profiler_dir="/tmp")


class Engine:
    """vLLM's engine: notes what it is asked, and fails where `fails` names it."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.fails: str | None = None
        self.vllm_config = SimpleNamespace(model_config=SimpleNamespace(hf_token="hub-secret"))

    def __getattr__(self, name: str) -> Any:
        async def call(*given: Any, **named: Any) -> Any:
            self.asked.append(name)
            if name == self.fails:
                raise ValueError(f"{name} can't be done")
            return True

        return call


class Chat(FakeChat):
    """vLLM's list of models, without an adapter."""

    async def load_adapter(self, request: Any) -> str:
        return f"loaded {request.lora_name}"

    async def unload_adapter(self, request: Any) -> str:
        raise VllmResponseError(api_error_from_vllm(create_error_response("no such adapter")))


@pytest.fixture
def asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ASKED.items():
        monkeypatch.setenv(name, value)


def application(keys: KeyRing | None = None, admins: KeyRing | None = None) -> FastAPI:
    served = service(chat=Chat())
    cast("Any", served.focus.engine).llm = Engine()
    admins = KeyRing(["admins"]) if admins is None else admins
    offered = Admin(admins, admin.offered_routers(PROFILER).values())
    return create_app(served, Settings(playground=False), keys or KeyRing(["good"]), offered)


def engine_of(app: FastAPI) -> Engine:
    engine: Engine = app.state.service.focus.engine.llm
    return engine


def client(app: FastAPI) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(with_outer_middleware(app), raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://server")


@pytest.mark.usefixtures("asked_for")
async def test_each_needs_an_administrators_key() -> None:
    app = application()
    assert set(ROUTES) <= {route.path for route in app.routes if hasattr(route, "path")}
    async with client(app) as http:
        for path, method in ROUTES.items():
            told = [await http.request(method, path, headers=headers) for headers in ({}, ORDINARY)]
            assert [answer.status_code for answer in told] == [401, 403], path
            assert "--admin-api-key" in told[1].json()["error"]["message"]
            assert told[1].json()["error"]["type"] == "permission_error"
        assert engine_of(app).asked == []
        assert (await http.get("/v1/chat/completions", headers=ADMIN)).status_code == 405, "it is a key like others too"


@pytest.mark.usefixtures("asked_for")
async def test_where_the_server_is_open_they_are_not() -> None:
    app = application(keys=KeyRing())
    async with client(app) as http:
        statuses = [
            (await http.post("/reset_mm_cache", headers=headers)).status_code for headers in ({}, ORDINARY, ADMIN)
        ]
    assert statuses == [401, 403, 200]


@pytest.mark.usefixtures("asked_for")
async def test_without_such_a_key_there_are_none() -> None:
    async with client(application(admins=KeyRing())) as http:
        for path, method in ROUTES.items():
            assert (await http.request(method, path, headers=ORDINARY)).status_code == 404


async def test_there_are_none_that_nobody_asked_for() -> None:
    assert admin.offered_routers(None) == {}
    assert list(admin.offered_routers(PROFILER)) == ["--profiler-config"]


@pytest.mark.usefixtures("asked_for")
async def test_they_do_what_vllms_do() -> None:
    app = application()
    async with client(app) as http:
        for path, body in (
            ("/reset_prefix_cache?reset_external=true", {"success": True}),
            ("/sleep?level=0&mode=wait", {"status": "sleeping", "level": 0}),
            ("/release_kv_cache_memory", {"status": "kv_cache_released"}),
            ("/wake_up?tags=weights&tags=kv_cache", {"status": "awake", "tags": ["weights", "kv_cache"]}),
        ):
            assert (await http.post(path, headers=ADMIN)).json() == body
        assert (await http.get("/is_sleeping", headers=ADMIN)).json() == {"is_sleeping": True}
        for path in ("/start_profile", "/stop_profile", "/reset_encoder_cache"):
            assert (await http.post(path, headers=ADMIN)).status_code == 200
        loaded = await http.post("/v1/load_lora_adapter", headers=ADMIN, json={"lora_name": "a", "lora_path": "/a"})
        missing = await http.post("/v1/unload_lora_adapter", headers=ADMIN, json={"lora_name": "a"})
        wrong = [
            await http.post("/v1/load_lora_adapter", headers=ADMIN, json={"lora_name": "a"}),
            await http.post("/sleep?level=9", headers=ADMIN),
            await http.post("/collective_rpc", headers=ADMIN, content=b"{"),
        ]
    assert (loaded.text, missing.json()["error"]["message"]) == ("loaded a", "no such adapter")
    assert [answer.status_code for answer in wrong] == [400, 400, 400]
    assert [set(answer.json()["error"]) for answer in wrong] == [{"message", "type", "param", "code"}] * 3
    assert engine_of(app).asked == [
        *("reset_prefix_cache", "sleep", "release_kv_cache_memory", "wake_up", "is_sleeping"),
        *("start_profile", "stop_profile", "reset_encoder_cache"),
    ]


@pytest.mark.usefixtures("asked_for")
async def test_what_the_engine_does_not_take_is_the_clients_error_and_it_goes_on() -> None:
    app = application()
    engine_of(app).fails = "sleep"
    async with client(app) as http:
        answer = await http.post("/sleep", headers=ADMIN)
    assert (answer.status_code, answer.json()["error"]["message"]) == (400, "sleep can't be done")
    assert engine_of(app).asked == ["sleep", "wake_up"], "its scheduler may be paused already"
    assert not app.state.service.admission.places.is_asleep


@pytest.mark.usefixtures("asked_for")
@pytest.mark.parametrize("path", ["/reset_mm_cache", "/reset_encoder_cache", "/reset_prefix_cache", "/sleep"])
async def test_a_cache_is_reset_once_no_question_runs_and_none_begins_meanwhile(path: str) -> None:
    app = application()
    admission: Admission = app.state.service.admission
    async with asyncio.timeout(WAIT), client(app) as http:
        with await admission.admit("a", Stages()) as slot:
            await slot.acquire()
            resetting = asyncio.create_task(http.post(path, headers=ADMIN))
            while not admission.places._alone.locked():  # noqa: ASYNC110 (it is no event)
                await asyncio.sleep(0)
            with await admission.admit("b", Stages()) as later:
                waiting = asyncio.create_task(later.acquire())
                await asyncio.sleep(0)
                assert engine_of(app).asked == []
                assert not waiting.done()
                slot.release()
                assert (await resetting).status_code == 200
                if path == "/sleep":
                    await asyncio.sleep(0)
                    assert not waiting.done()
                    assert (await http.post("/wake_up", headers=ADMIN)).status_code == 200
                await waiting
    assert (await admission.places.load(), admission.admitted) == (0, 0)


@pytest.mark.usefixtures("asked_for")
@pytest.mark.parametrize("form", ["text", "json"])
async def test_no_secret_is_told(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, Any] = {
        "model": "small",
        "hf_token": "hub-secret",
        "max_num_batched_tokens": 2048,
        "nested": [{"api_key": "a", "kv_connector_extra_config": {"password": "b"}, "path": "/x?sig=hunter2hunter2"}],
    }
    monkeypatch.setenv("SOME_PASSWORD", "hunter2hunter2")
    monkeypatch.setenv("OTHER", "environment-value")
    monkeypatch.setattr(TypeAdapter, "dump_python", lambda *given, **named: told)
    monkeypatch.setattr(admin, "get_env_info", lambda: SimpleNamespace(_asdict=lambda: {"os": "x", "env_vars": "y"}))
    admin._system.cache_clear()
    app = application()
    engine_of(app).vllm_config = type(
        "Config", (), {"model_config": SimpleNamespace(hf_token="hub-secret"), "__str__": lambda self: str(told)}
    )()
    async with client(app) as http:
        answer = await http.get(f"/server_info?config_format={form}", headers=ADMIN)
    admin._system.cache_clear()
    assert answer.status_code == 200, answer.text
    assert "small" in answer.text
    assert "2048" in answer.text
    assert answer.json()["system_env"] == {"os": "x"}
    for secret in ("hub-secret", "hunter2", "environment-value"):
        assert secret not in answer.text
    if form == "json":
        assert answer.json()["vllm_config"]["nested"] == [
            {"api_key": "***", "kv_connector_extra_config": "***", "path": "/x?sig=***"}
        ]
