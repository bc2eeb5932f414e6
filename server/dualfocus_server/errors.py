"""Errors in OpenAI's shape, for everything: `{"error": {"message", "type", "param", "code"}}`."""

import logging
from http import HTTPStatus
from typing import Any

from dualfocus_engine import DualFocusError, ErrorKind
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.entrypoints.serve.exception_handling.error_response import create_error_response
from vllm.exceptions import VLLMError

logger = logging.getLogger(__name__)

_STATUS = {
    ErrorKind.BAD_PICTURE: HTTPStatus.BAD_REQUEST,
    ErrorKind.BAD_QUESTION: HTTPStatus.BAD_REQUEST,
    ErrorKind.CONTEXT_FULL: HTTPStatus.BAD_REQUEST,
    ErrorKind.ENGINE_DEAD: HTTPStatus.SERVICE_UNAVAILABLE,
}
_TYPES = {
    HTTPStatus.BAD_REQUEST: "invalid_request_error",
    HTTPStatus.UNAUTHORIZED: "authentication_error",
    HTTPStatus.NOT_FOUND: "not_found_error",
    HTTPStatus.TOO_MANY_REQUESTS: "rate_limit_error",
    HTTPStatus.SERVICE_UNAVAILABLE: "service_unavailable_error",
}


def error_response(status: int, message: str, param: str | None = None, code: str | None = None) -> JSONResponse:
    """Return an error as OpenAI writes it; the type follows from the status."""
    kind = _TYPES.get(HTTPStatus(status), "invalid_request_error" if status < 500 else "server_error")
    body = {"error": {"message": message, "type": kind, "param": param, "code": code}}
    return JSONResponse(body, status_code=status)


def from_vllm(response: ErrorResponse) -> JSONResponse:
    """Return vLLM's own error in the same shape."""
    return error_response(response.error.code, response.error.message, response.error.param)


def install_error_handlers(app: FastAPI) -> None:
    """Let every error of every route leave in OpenAI's shape."""
    app.add_exception_handler(DualFocusError, _ours)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(HTTPException, _http)
    for kind in (VLLMError, ValueError, TypeError, OverflowError, NotImplementedError):
        app.add_exception_handler(kind, _vllms)
    app.add_exception_handler(Exception, _unexpected)


async def _ours(request: Request, error: Any) -> JSONResponse:
    return error_response(_STATUS[error.kind], str(error), code=error.kind.value)


async def _validation(request: Request, error: Any) -> JSONResponse:
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return error_response(HTTPStatus.BAD_REQUEST, f"The body is not valid JSON: {first['ctx']['error']}.")
    where = ".".join(str(part) for part in first["loc"] if part != "body")
    message = first["msg"].removeprefix("Value error, ")
    return error_response(HTTPStatus.BAD_REQUEST, f"{where}: {message}" if where else message, param=where or None)


async def _http(request: Request, error: Any) -> JSONResponse:
    message = f"{error.detail}: {request.method} {request.url.path}" if error.status_code == 404 else error.detail
    return error_response(error.status_code, message)


async def _vllms(request: Request, error: Any) -> JSONResponse:
    return from_vllm(create_error_response(error))


async def _unexpected(request: Request, error: Any) -> JSONResponse:
    logger.error("Unexpected error", exc_info=error)
    return error_response(HTTPStatus.INTERNAL_SERVER_ERROR, "The server failed on this request; its log says why.")
