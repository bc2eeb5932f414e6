"""The application's middlewares: which routes need a key, and that every answer has an id and a log line."""

import asyncio
import logging
import re
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from dualfocus_server.app import create_app, with_outer_middleware
from dualfocus_server.guards.admission import Admission
from dualfocus_server.guards.http_errors import Draining
from dualfocus_server.guards.keys import KeyRing
from dualfocus_server.guards.places import OwnPlaces
from dualfocus_server.guards.watchdog import Watchdog
from dualfocus_server.settings import Settings
from dualfocus_server.telemetry.metrics import own_metrics
from dualfocus_server.telemetry.request_ids import request_id
from fastapi import FastAPI, Request, Response
from fastapi.routing import APIRoute
from prometheus_client import REGISTRY
from starlette.responses import StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

KEY = {"Authorization": "Bearer good"}
OPEN = ("/health", "/ready", "/ping")
PAGE = "https://app.example"
STREAMED = (
    *("/v1/chat/completions", "/v1/completions", "/v1/messages"),
    *("/v1/responses", "/v1/responses/{response_id}", "/v1/responses/{response_id}/cancel"),
)


class Engine:
    """Idle, and it answers."""

    is_dead, unfinished, busy_ranks = False, 0, frozenset[int]()

    async def check_health(self) -> None:
        """Nothing is wrong."""


def application(**settings: Any) -> FastAPI:
    engine: Any = Engine()
    watchdog = Watchdog(engine, 60)
    service: Any = SimpleNamespace(admission=Admission(OwnPlaces(1, 1)), watchdog=watchdog, metrics=own_metrics)
    cors = {"allow_origins": [PAGE], "allow_credentials": False, "allow_methods": ["*"], "allow_headers": ["*"]}
    return create_app(service, Settings(cors=cors, **settings), KeyRing(["good"]))


def client(app: FastAPI) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(with_outer_middleware(app), raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://server")


def paths_of(app: FastAPI) -> list[str]:
    return [route.path for route in app.routes if isinstance(route, Route)]


async def test_every_route_but_the_probes_needs_a_key() -> None:
    app = application(playground=False)
    assert {"/v1/chat/completions", "/v1/models", "/metrics", "/openapi.json", *OPEN} <= set(paths_of(app))
    async with client(app) as http:
        for path in paths_of(app):
            for method in ("GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "TRACE"):
                answer = await http.request(method, path)
                assert (answer.status_code == 401) is (path not in OPEN), (method, path)


async def test_a_slash_behind_the_path_of_questions_changes_nothing() -> None:
    async with client(application()) as http:
        answers = [await http.post(f"/v1/chat/completions{end}", json={}, headers=KEY) for end in ("", "/")]
        keyless = await http.post("/v1/chat/completions/", json={})
    assert [answer.status_code for answer in answers] == [400, 400]
    assert answers[0].json() == answers[1].json()
    assert keyless.status_code == 401


@pytest.mark.parametrize(
    "path", ["/health/", "//health", "/HEALTH", "/health/../version", "/health;", "/health%00", "/ready/", "/nothing"]
)
async def test_what_only_looks_like_a_probe_needs_one(path: str) -> None:
    async with client(application()) as http:
        answer = await http.get(path)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("is_open", [True, False])
async def test_metrics_are_open_where_the_operator_says_so(is_open: bool) -> None:
    async with client(application(metrics_open=is_open)) as http:
        found = [await http.get(path) for path in ("/metrics", "/metrics/")]
        version = await http.get("/version")
    assert [answer.status_code for answer in found] == [200 if is_open else 401] * 2
    assert is_open or "--metrics-open" in found[0].json()["error"]["message"]
    assert version.status_code == 401
    assert "--metrics-open" not in version.text


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json"])
async def test_docs_are_there_behind_the_key_unless_they_are_turned_off(path: str) -> None:
    async with client(application()) as http:
        assert (await http.get(path)).status_code == 401
        assert (await http.get(path, headers=KEY)).status_code == 200
    async with client(application(docs=False)) as http:
        assert (await http.get(path, headers=KEY)).status_code == 404


def test_the_document_says_what_comes() -> None:
    document = application().openapi()
    for path, operations in document["paths"].items():
        for operation in operations.values():
            answers = {status: told.get("content", {}) for status, told in operation["responses"].items()}
            assert set(answers) == {"200", "4XX", "5XX"}, path
            name = "AnthropicErrorResponse" if path.startswith("/v1/messages") else "ErrorBody"
            error = {"schema": {"$ref": f"#/components/schemas/{name}"}}
            assert answers["4XX"] == answers["5XX"] == {"application/json": error}, path
            kinds = {"text/plain"} if path == "/metrics" else {"application/json"}
            assert set(answers["200"]) == kinds | ({"text/event-stream"} if path in STREAMED else set())


@pytest.mark.parametrize(
    ("path", "status"), [("/api/health", 200), ("/api/ready", 200), ("/api/version", 401), ("/api/api/health", 401)]
)
async def test_probes_need_no_key_under_a_proxys_prefix(path: str, status: int) -> None:
    async with client(application(root_path="/api")) as http:
        assert (await http.get(path)).status_code == status


async def test_the_tokenizer_is_described_where_its_flag_is_given() -> None:
    assert "/tokenizer_info" not in paths_of(application())
    assert "/tokenizer_info" in paths_of(application(tokenizer_info=True))


async def test_every_route_is_there_with_and_without_the_prefix() -> None:
    """A proxy may strip it (`--root-path`) or leave it."""
    app = application(root_path="/llm")
    async with client(app) as http:
        routes = {route.path: min(route.methods) for route in app.routes if isinstance(route, APIRoute)}
        for path, method in routes.items():
            if "{" in path:  # which is a 404 of its own about most names
                continue
            bare, prefixed = [await http.request(method, at, headers=KEY) for at in (path, f"/llm{path}")]
            assert bare.status_code == prefixed.status_code not in (404, 405), path


class Signed:
    """The operator's middleware, as a class."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def signed(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-by", b"class")]
            await send(message)

        await self._app(scope, receive, signed)


async def stamped(request: Request, call_next: Any) -> Response:
    """The same, as a function."""
    response: Response = await call_next(request)
    response.headers["X-And"] = "function"
    return response


async def test_the_operators_middleware_sees_every_request() -> None:
    async with client(application(middleware=(Signed, stamped))) as http:
        answers = [await http.get("/health"), await http.get("/version"), await http.get("/nothing", headers=KEY)]
    assert [answer.status_code for answer in answers] == [200, 401, 404]
    assert [(answer.headers["X-By"], answer.headers["X-And"]) for answer in answers] == [("class", "function")] * 3


async def test_requests_of_some_paths_have_no_log_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "dualfocus.access")
    transport = httpx.ASGITransport(with_outer_middleware(application(), {"/health"}))
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as http:
        for path in ("/health?a=b", "/version", "/health"):
            await http.get(path)
    lines = [record.getMessage() for record in caplog.records if record.name == "dualfocus.access"]
    assert [line.split()[1] for line in lines] == ["/version"]


async def test_docs_can_be_read_where_there_is_no_internet() -> None:
    async with client(application(offline_docs=True)) as http:
        page = await http.get("/docs", headers=KEY)
        for script in ("/static/swagger-ui-bundle.js", "/static/swagger-ui.css"):
            assert script in page.text
            assert (await http.get(script, headers=KEY)).status_code == 200
        assert (await http.get("/redoc", headers=KEY)).status_code == 404
    async with client(application(offline_docs=True, docs=False)) as http:
        assert (await http.get("/docs", headers=KEY)).status_code == 404


def counted(**labels: str) -> float:
    return REGISTRY.get_sample_value("http_requests_total", labels) or 0


async def test_requests_are_counted_as_vllm_does() -> None:
    wrong = {"handler": "/v1/chat/completions", "method": "POST", "status": "4xx"}
    missing = {"handler": "none", "method": "GET", "status": "4xx"}
    made_up = {"handler": "none", "method": "other", "status": "4xx"}
    before = [counted(**labels) for labels in (wrong, missing, made_up)]
    async with client(application(root_path="/llm")) as http:
        await http.post("/llm/v1/chat/completions", content=b"{", headers=KEY)
        await http.post("/v1/chat/completions")  # no key
        await http.get("/nothing", headers=KEY)
        for method in ("A", "B"):
            await http.request(method, "/nothing", headers=KEY)
        for path in ("/metrics", "/ping"):
            await http.get(path, headers=KEY)
        text = (await http.get("/metrics/", headers=KEY)).text
    after = [counted(**labels) for labels in (wrong, missing, made_up)]
    assert [now - then for now, then in zip(after, before, strict=True)] == [2, 1, 2]
    assert not re.search(r'handler="/(metrics|ping)', text)
    sizes = ("http_request_size_bytes_sum", "http_response_size_bytes_sum")
    for name in (*sizes, "http_request_duration_seconds_bucket", "http_request_duration_highr_seconds_bucket"):
        assert name in text


async def test_ready_says_that_the_engine_sleeps() -> None:
    app = application()
    app.state.service.admission.places.is_asleep = True
    async with client(app) as http:
        answer, alive = await http.get("/ready"), await http.get("/health")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "asleep")
    assert alive.status_code == 200


async def test_ready_says_that_the_server_drains() -> None:
    app = application()
    app.state.service.admission.close(Draining())
    async with client(app) as http:
        answer = await http.get("/ready")
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "shutting_down"
    assert answer.headers["Retry-After"] == "5"


async def test_an_answer_to_a_page_shows_its_id_and_how_it_was_found() -> None:
    asks = {"Origin": PAGE, "X-Request-Id": "mine"}
    wish = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    async with client(application()) as http:
        preflight = await http.options("/v1/chat/completions", headers=asks | wish)
        answer = await http.get("/health", headers=asks)
    assert preflight.status_code == 200
    assert preflight.headers["X-Request-Id"] == answer.headers["X-Request-Id"] == "mine"
    exposed = {name.strip() for name in answer.headers["Access-Control-Expose-Headers"].split(",")}
    assert exposed == {"X-Request-Id", "X-DualFocus-Winner", "X-DualFocus-Selection", "X-DualFocus-Box"}


async def test_a_middleware_that_fails_is_answered_with_an_id_and_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*given: object) -> None:
        raise RuntimeError("the ring broke")

    monkeypatch.setattr(KeyRing, "authenticate", fail)
    with caplog.at_level(logging.INFO):
        async with client(application()) as http:
            answer = await http.get("/version", headers=KEY | {"X-Request-Id": "mine", "Origin": PAGE})
    assert answer.status_code == 500
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert answer.headers["X-Request-Id"] == "mine"
    assert answer.headers["Access-Control-Allow-Origin"] == PAGE
    assert "GET /version 500" in caplog.text


async def test_an_application_that_breaks_off_is_logged_too(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(*given: object) -> None:
        raise RuntimeError

    transport = httpx.ASGITransport(with_outer_middleware(fail))
    with caplog.at_level(logging.INFO), pytest.raises(RuntimeError):
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as http:
            await http.get("/broken")
    assert "GET /broken 0 in" in caplog.text


async def test_an_unexpected_error_is_logged_without_the_question(caplog: pytest.LogCaptureFixture) -> None:
    body = {"messages": [{"role": "user", "content": "What is the secret word xyzzy?"}]}
    with caplog.at_level(logging.DEBUG):
        async with client(application()) as http:
            answer = await http.post("/v1/chat/completions", json=body, headers=KEY)
    assert answer.status_code == 500, "the stub can answer no question"
    assert "Traceback" in caplog.text
    assert "xyzzy" not in caplog.text
    assert "Bearer" not in caplog.text


async def test_lines_from_inside_a_stream_have_its_id() -> None:
    seen: list[str | None] = []

    async def events() -> AsyncIterator[str]:
        yield "one"
        await asyncio.create_task(turn())

    async def turn() -> None:
        seen.append(request_id.get())

    transport = httpx.ASGITransport(with_outer_middleware(StreamingResponse(events())))
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as http:
        await http.get("/", headers={"X-Request-Id": "mine"})
    assert seen == ["mine"]
