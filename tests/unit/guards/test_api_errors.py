"""Every error of every route leaves in OpenAI's shape."""

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from dualfocus_engine import BadPicture, BadQuestion, ContextFull, EngineDead, ErrorKind
from dualfocus_server.answering.protocol import FocusRequest
from dualfocus_server.guards.api_errors import (
    _STATUS,
    ApiError,
    UnexpectedErrors,
    VllmResponseError,
    add_error_handlers,
    api_error_from_vllm,
    as_client_errors,
)
from dualfocus_server.guards.http_errors import Draining, TimedOut, TooBusy, TooLarge, Unauthorized
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.testclient import TestClient
from vllm.entrypoints.serve.exception_handling.error_response import create_error_response
from vllm.exceptions import VLLMError, VLLMValidationError
from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

RAISED: dict[str, Exception] = {}


@pytest.fixture
def client() -> Iterator[httpx.AsyncClient]:
    app = FastAPI()
    add_error_handlers(app)
    app.add_middleware(UnexpectedErrors)

    @app.get("/raise")
    async def fail() -> None:
        raise RAISED["error"]

    @app.post("/chat")
    async def chat(request: FocusRequest) -> str:
        return "fine"

    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    yield httpx.AsyncClient(transport=transport, base_url="http://test")
    RAISED.clear()


def _error(response: httpx.Response) -> dict[str, Any]:
    body = response.json()
    assert list(body) == ["error"]
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["message"]
    error: dict[str, Any] = body["error"]
    return error


@pytest.mark.parametrize(
    ("raised", "status", "kind", "code"),
    [
        (BadPicture("The image is damaged."), 400, "invalid_request_error", "invalid_image"),
        (BadQuestion("No question."), 400, "invalid_request_error", "invalid_value"),
        (ContextFull(5000, 4096), 400, "invalid_request_error", "context_length_exceeded"),
        (EngineDead(), 503, "service_unavailable_error", "engine_dead"),
        (VLLMValidationError("bad", parameter="temperature"), 400, "invalid_request_error", None),
        (VllmResponseError(ApiError(404, "No such model.")), 404, "not_found_error", None),
        (ValueError("ours"), 500, "server_error", None),
        (TypeError("ours"), 500, "server_error", None),
        (NotImplementedError("ours"), 500, "server_error", None),
        (EngineGenerateError("vLLM's"), 500, "server_error", None),
        (HTTPException(401, "Unauthorized"), 401, "authentication_error", None),
        (HTTPException(429, "Slow down"), 429, "rate_limit_error", None),
        (HTTPException(418, "teapot"), 418, "invalid_request_error", None),
        (Unauthorized(), 401, "authentication_error", "invalid_api_key"),
        (TooLarge(9), 413, "invalid_request_error", "body_too_large"),
        (TooBusy("All places are taken"), 429, "rate_limit_error", "too_busy"),
        (TimedOut(9), 504, "timeout_error", "timeout"),
        (Draining(), 503, "service_unavailable_error", "shutting_down"),
        (EngineDeadError(), 503, "service_unavailable_error", "engine_dead"),
        (RuntimeError("secret path /root"), 500, "server_error", None),
        (KeyError("type"), 500, "server_error", None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
async def test_error_has_its_status_type_and_code(
    client: httpx.AsyncClient, raised: Exception, status: int, kind: str, code: str | None
) -> None:
    RAISED["error"] = raised
    response = await client.get("/raise")
    error = _error(response)
    assert (response.status_code, error["type"], error["code"]) == (status, kind, code)


@pytest.mark.parametrize(
    ("raised", "seconds"), [(TooBusy("Full"), "1"), (Draining(), "5"), (TimedOut(9), None), (BadPicture("x"), None)]
)
async def test_retry_after_is_said_where_it_helps(
    client: httpx.AsyncClient, raised: Exception, seconds: str | None
) -> None:
    RAISED["error"] = raised
    assert (await client.get("/raise")).headers.get("retry-after") == seconds


async def test_our_errors_say_what_they_say(client: httpx.AsyncClient) -> None:
    RAISED["error"] = BadPicture("The image is damaged.")
    assert _error(await client.get("/raise"))["message"] == "The image is damaged."


async def test_vllms_errors_name_their_parameter(client: httpx.AsyncClient) -> None:
    RAISED["error"] = VLLMValidationError("bad", parameter="temperature")
    assert _error(await client.get("/raise"))["param"] == "temperature"


@pytest.mark.parametrize("kind", [ValueError, TypeError, OverflowError, NotImplementedError, UnicodeError])
@pytest.mark.parametrize("within_generate", [False, True])
async def test_what_vllm_raises_over_a_value_is_the_clients_error(
    client: httpx.AsyncClient, kind: type[Exception], within_generate: bool
) -> None:
    def refuse() -> None:
        try:
            raise kind("no such value")
        except Exception as error:
            if not within_generate:
                raise
            raise EngineGenerateError from error

    with pytest.raises(VLLMError) as judged, as_client_errors():
        refuse()
    RAISED["error"] = judged.value
    response = await client.get("/raise")
    assert response.status_code == 400
    assert "no such value" in _error(response)["message"]


async def test_a_questions_error_names_its_parameter(client: httpx.AsyncClient) -> None:
    RAISED["error"] = BadQuestion("Too hot.", "temperature")
    assert _error(await client.get("/raise"))["param"] == "temperature"


@pytest.mark.parametrize(("error", "status"), [(EngineDeadError(), 503), (NotImplementedError("x"), 400)])
def test_errors_that_vllm_has_described_have_our_status(error: Exception, status: int) -> None:
    assert api_error_from_vllm(create_error_response(error)).status == status


async def test_unexpected_error_tells_the_client_nothing_and_the_log_all(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    RAISED["error"] = RuntimeError("secret path /root")
    assert "secret" not in (await client.get("/raise")).text
    assert "secret path /root" in caplog.text


@pytest.mark.parametrize(
    ("body", "param", "part"),
    [
        (
            {"dualfocus": {"mode": "both"}},
            "dualfocus.mode",
            "'dual', 'regions', 'search', 'adaptive', 'macro', 'micro' or 'off'",
        ),
        ({"dualfocus": {"box": [1, 1, 0, 0]}}, "dualfocus.box", "dualfocus.box: a box is x1"),
        ({"dualfocus": {"zoom": 2}}, "dualfocus.zoom", "not permitted"),
        ({"temperature": "hot"}, "temperature", "number"),
    ],
)
async def test_bad_field_is_named(client: httpx.AsyncClient, body: dict[str, Any], param: str, part: str) -> None:
    response = await client.post("/chat", json={"messages": [{"role": "user", "content": "x"}]} | body)
    error = _error(response)
    assert (response.status_code, error["type"], error["param"]) == (400, "invalid_request_error", param)
    assert part in error["message"]


def _says(content: Any, **message: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content} | message]}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": ["hi"]}, "messages"),
        (_says("x", role=3), "messages.0.role"),
        (_says(5), "messages.0.content"),
        (_says({"type": "text", "text": "x"}), "messages.0.content"),
        (_says([5]), "messages.0.content"),
        (_says([{"type": "nonesuch"}]), "messages.0.content"),
        (_says([{"type": "image_url"}]), "messages.0.content"),
        (_says("x", name=3), "messages.0.name"),
        (_says("x", role="assistant", tool_calls=3), "messages"),
        (_says("x", role="assistant", tool_calls=[{"id": 3}]), "messages"),
        (_says("x") | {"seed": 2**65}, "seed"),
        (_says("x") | {"audio": {"seed": 2**65}}, "audio"),
        (_says("x") | {"user": "\ud800"}, "user"),
        (_says("x") | {"n": 1000}, "n"),
        (_says("x") | {"stop": 3}, "stop"),
        (_says("x") | {"stop": [1]}, "stop"),
        (_says("x") | {"logit_bias": {"1": "much"}}, "logit_bias.1"),
        (_says("x") | {"response_format": 3}, "response_format"),
        (_says("x") | {"response_format": {"type": "json"}}, "response_format.type"),
        (_says("x") | {"response_format": {"type": "json_schema"}}, "response_format"),
        (
            _says("x") | {"response_format": {"type": "json_schema", "json_schema": {}}},
            "response_format.json_schema.name",
        ),
        (_says("x") | {"tools": [{"type": "function"}]}, "tools.0.function"),
        (_says("x") | {"tool_choice": "required"}, "tool_choice"),
        (_says("x") | {"structured_outputs": "[0-9]"}, "structured_outputs"),
        (_says("x") | {"structured_outputs": {}}, "structured_outputs"),
        (_says("x") | {"repetition_detection": {"max_pattern_size": -1}}, "repetition_detection"),
        (_says("x") | {"continue_final_message": True, "add_generation_prompt": True}, "continue_final_message"),
        (_says("x") | {"dualfocus": {"box": [0, 0]}}, "dualfocus.box.2"),
    ],
)
async def test_a_wrong_field_is_named_as_the_client_wrote_it(
    client: httpx.AsyncClient, body: dict[str, Any], param: str
) -> None:
    written = json.dumps(body)  # as surrogates travel
    response = await client.post("/chat", content=written, headers={"Content-Type": "application/json"})
    error = _error(response)
    assert (response.status_code, error["param"]) == (400, param)
    assert not re.search(r"function-|Param\b|instance of|Message", error["message"])


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ("top_k must be 0 (disable), or at least 1, got -3.", "top_k"),
        ("structured_outputs.regex must not contain a NUL character", "structured_outputs"),
        ("Cannot set both `continue_final_message` and `add_generation_prompt` to True.", "continue_final_message"),
        ("The model's user can't stop.", None),
    ],
)
def test_what_vllm_says_of_a_field_names_it(message: str, param: str | None) -> None:
    assert api_error_from_vllm(create_error_response(VLLMValidationError(message))).param == param


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'"text"', b"{}", b"\xff"])
async def test_body_that_is_no_request_is_a_400(client: httpx.AsyncClient, content: bytes) -> None:
    response = await client.post("/chat", content=content, headers={"Content-Type": "application/json"})
    assert response.status_code == 400
    assert _error(response)["type"] == "invalid_request_error"


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/absent", 404), ("GET", "/chat", 405)])
async def test_unknown_route_has_the_same_shape(client: httpx.AsyncClient, method: str, path: str, status: int) -> None:
    response = await client.request(method, path)
    assert response.status_code == status
    error = _error(response)
    if status == 404:
        assert error["type"] == "not_found_error"
        assert "GET /absent" in error["message"]


def test_wrong_method_names_the_right_ones() -> None:
    """RFC 9110: a 405 carries `Allow`."""
    app = FastAPI()
    add_error_handlers(app)
    app.add_middleware(UnexpectedErrors)
    app.post("/chat")(lambda: "fine")
    assert TestClient(app).get("/chat").headers.get("allow") == "POST"


def test_every_kind_of_error_has_a_status() -> None:
    assert set(_STATUS) == set(ErrorKind)


@pytest.mark.parametrize("status", [400, 404, 499, 500, 503, 520])
def test_any_status_can_be_answered(status: int) -> None:
    response = ApiError(status, "message", "param", "code").response({"path": "/v1/models"})
    assert response.status_code == status
    assert json.loads(bytes(response.body))["error"]["param"] == "param"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (404, "not_found_error"),
        (413, "request_too_large"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (503, "overloaded_error"),
        (504, "timeout_error"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens", "/prefix/v1/messages"])
def test_the_messages_api_has_anthropics_errors(status: int, kind: str, path: str) -> None:
    scope = {"path": path, "root_path": "/prefix"}
    response = ApiError(status, "message", "param", "code", {"Retry-After": "1"}).response(scope)
    assert json.loads(bytes(response.body)) == {"type": "error", "error": {"type": kind, "message": "message"}}
    assert (response.status_code, response.headers["Retry-After"]) == (status, "1")
