"""Errors in OpenAI's shape: `{"error": {"message", "type", "param", "code"}}`; on the Messages API in Anthropic's."""

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any

from dualfocus_engine import DualFocusError, EngineDead, ErrorKind
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.entrypoints.serve.exception_handling.error_response import create_error_response
from vllm.exceptions import VLLMError, VLLMValidationError
from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

from dualfocus_server.guards.http_errors import HttpError
from dualfocus_server.guards.json_limits import FieldError

logger = logging.getLogger(__name__)

# Where vLLM's messages name fields: at their head, and in backquotes.
_NAMED = re.compile(r"^\w+|(?<=`)\w+(?=`)")
_FIELDS = {*ChatCompletionRequest.model_fields, *CompletionRequest.model_fields}
# What pydantic says of its own classes.
_CLASSES = re.compile(r" or (?:instance of|object to extract) .*")
_STATUS = {
    ErrorKind.BAD_PICTURE: HTTPStatus.BAD_REQUEST,
    ErrorKind.BAD_QUESTION: HTTPStatus.BAD_REQUEST,
    ErrorKind.BAD_CONFIG: HTTPStatus.INTERNAL_SERVER_ERROR,
    ErrorKind.CONTEXT_FULL: HTTPStatus.BAD_REQUEST,
    ErrorKind.ENGINE_DEAD: HTTPStatus.SERVICE_UNAVAILABLE,
}
_TYPES: dict[int, str] = {
    HTTPStatus.BAD_REQUEST: "invalid_request_error",
    HTTPStatus.UNAUTHORIZED: "authentication_error",
    HTTPStatus.FORBIDDEN: "permission_error",
    HTTPStatus.NOT_FOUND: "not_found_error",
    HTTPStatus.TOO_MANY_REQUESTS: "rate_limit_error",
    HTTPStatus.SERVICE_UNAVAILABLE: "service_unavailable_error",
    HTTPStatus.GATEWAY_TIMEOUT: "timeout_error",
}

# Anthropic's, where they are others.
_ANTHROPIC_TYPES: dict[int, str] = {
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "request_too_large",
    HTTPStatus.FORBIDDEN: "permission_error",
    HTTPStatus.INTERNAL_SERVER_ERROR: "api_error",
    HTTPStatus.SERVICE_UNAVAILABLE: "overloaded_error",
}
_MESSAGES = "/v1/messages"


_CLIENTS, _SERVERS = "invalid_request_error", "server_error"
ERROR_TYPES = frozenset((*_TYPES.values(), _CLIENTS, _SERVERS))


def error_type(status: int) -> str:
    """Return OpenAI's type of an error for its status."""
    return _TYPES.get(status, _CLIENTS if status < HTTPStatus.INTERNAL_SERVER_ERROR else _SERVERS)


@dataclass(frozen=True, slots=True)
class ApiError:
    """An error as a client is told it."""

    status: int
    message: str
    param: str | None = None
    code: str | None = None
    headers: Mapping[str, str] | None = None

    def body(self) -> dict[str, Any]:
        """Return it as OpenAI writes errors; the type follows from the status."""
        kind = error_type(self.status)
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def anthropic_body(self) -> dict[str, Any]:
        """Return it as Anthropic writes errors; a message names the field that was wrong."""
        kind = _ANTHROPIC_TYPES.get(self.status, error_type(self.status))
        return {"type": "error", "error": {"type": kind, "message": self.message}}

    def response(self, scope: Scope) -> JSONResponse:
        """Return it as a response to a request, as its API writes errors."""
        is_anthropic = route_of(scope).startswith(_MESSAGES)
        body = self.anthropic_body() if is_anthropic else self.body()
        return JSONResponse(body, status_code=self.status, headers=self.headers)


def route_of(scope: Scope) -> str:
    """Return the path that routes are chosen by: without the prefix under which a proxy shows the server."""
    path, prefix = str(scope["path"]), str(scope.get("root_path", ""))
    return path.removeprefix(prefix) if path.startswith(f"{prefix}/") else path


class VllmResponseError(Exception):
    """vLLM answered with an error that is described already."""

    def __init__(self, problem: ApiError) -> None:
        super().__init__(problem.message)
        self.problem = problem


# What vLLM raises over values it does not take, besides its own classes; raised by our code they would be defects.
_UNTAKEN = (ValueError, TypeError, OverflowError, NotImplementedError)


@contextmanager
def as_client_errors() -> Iterator[None]:
    """Turn what vLLM raises over a client's values into the client's error."""
    try:
        yield
    except EngineGenerateError as error:
        if not isinstance(error.__cause__, _UNTAKEN):
            raise
        raise VLLMValidationError(f"The request can't be handed to the engine: {error.__cause__}.") from error
    except _UNTAKEN as error:
        raise VLLMValidationError(str(error)) from error


def to_api_error(error: Exception) -> ApiError:
    """Describe any error: ours, vLLM's, the framework's, or one that nobody expected (which is logged)."""
    match error:
        case HttpError():
            wait = {"Retry-After": str(error.retry_after)} if error.retry_after is not None else None
            return ApiError(error.status, str(error), code=error.code, headers=wait)
        case VllmResponseError():
            return error.problem
        case DualFocusError():
            return ApiError(_STATUS[error.kind], str(error), getattr(error, "param", None), error.kind.value)
        case EngineDeadError():
            return to_api_error(EngineDead())
        case RequestValidationError():
            return _validation(error)
        case HTTPException():
            return ApiError(error.status_code, str(error.detail), headers=error.headers)
        case VLLMError() if not isinstance(error, EngineGenerateError):
            return api_error_from_vllm(create_error_response(error))
    logger.error("Unexpected error", exc_info=error)
    return ApiError(HTTPStatus.INTERNAL_SERVER_ERROR, "The server failed on this request; its log says why.")


def api_error_from_vllm(response: ErrorResponse) -> ApiError:
    """Describe an error that vLLM has described already."""
    if response.error.message == str(EngineDeadError()):
        return to_api_error(EngineDead())
    # What is asked for and not there is the client's to change.
    status = HTTPStatus.BAD_REQUEST if response.error.code == HTTPStatus.NOT_IMPLEMENTED else response.error.code
    return ApiError(status, response.error.message, response.error.param or _field_named_in(response.error.message))


def add_error_handlers(app: FastAPI) -> None:
    """Let every error of every route leave in its API's shape."""
    for kind in (HttpError, DualFocusError, RequestValidationError, HTTPException, VLLMError, VllmResponseError):
        app.add_exception_handler(kind, _respond)


class UnexpectedErrors:
    """ASGI middleware: answers what no handler took, unless an answer has begun.

    A handler for Exception would run outside all middleware, and the connection would be cut.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def note_begin(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, note_begin)
        except Exception as error:
            if begun or scope["type"] != "http":
                raise
            await to_api_error(error).response(scope)(scope, receive, send)


async def _respond(request: Request, error: Exception) -> JSONResponse:
    problem = to_api_error(error)
    if problem.status == HTTPStatus.NOT_FOUND and isinstance(error, HTTPException):
        asked = f"{problem.message}: {request.method} {request.url.path}"
        problem = replace(problem, message=f"{asked}. There is: {', '.join(_routes(request.app))}.")
    return problem.response(request.scope)


def _routes(app: FastAPI) -> Iterator[str]:
    """Name the routes of the API, those of the page aside."""
    for route in app.routes:
        if isinstance(route, APIRoute) and route.include_in_schema:
            yield f"{', '.join(sorted(route.methods))} {route.path_format}"


def _validation(error: RequestValidationError) -> ApiError:
    first = _likeliest(error.errors())
    if first["type"] == "json_invalid":
        return ApiError(HTTPStatus.BAD_REQUEST, f"The body is not valid JSON: {first['ctx']['error']}.")
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, FieldError):
        return ApiError(HTTPStatus.BAD_REQUEST, str(cause), param=cause.field)
    where = _field_of(error.body, first["loc"][1:], is_missing=first["type"] == "missing")
    message = _CLASSES.sub("", first["msg"].removeprefix("Value error, "))
    return ApiError(HTTPStatus.BAD_REQUEST, f"{where or 'the body'}: {message}", param=where or None)


def _likeliest(errors: Sequence[Any]) -> Any:
    """Return the first error that is not of a form whose role or type says already that another one was meant."""
    others = {error["loc"][:-1] for error in errors if error["type"] == "literal_error"}
    return next((error for error in errors if error["loc"][:-1] not in others), errors[0])


def _field_of(body: Any, place: Sequence[str | int], *, is_missing: bool) -> str:
    """Return the field that is at pydantic's place in a body, without the names of pydantic's own steps to it."""
    if place and isinstance(place[0], int):
        return "messages"  # what is in one, vLLM reads late, and pydantic knows no more where it stood
    found: list[str] = []
    for part in place:
        with suppress(LookupError, TypeError):
            body = body[part]
            found.append(str(part))
    return ".".join([*found, *map(str, place[-1:])] if is_missing else found)


def _field_named_in(message: str) -> str | None:
    """Return the field that a message of vLLM's is about."""
    return next((name for name in _NAMED.findall(message) if name in _FIELDS), None)
