"""Lines of OpenAI's batch API, which `vllm run-batch` takes too: whole requests of any of the APIs, whole responses."""

from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import httpx
from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_core import from_json

from dualfocus_client.client import CHAT, MODES, AskError, answer_body
from dualfocus_client.line_formats.line_format import Kept, Question, fingerprint_of

_NAMES = ("custom_id", "method", "url", "body")
# The routes whose requests have a `dualfocus` field.
_TWO_LOOKS = (CHAT, "/v1/responses", "/v1/messages")
# A model's name may name the mode too.
_MODE_ENDINGS = tuple(f":{mode}" for mode in MODES)


def is_openais(text: bytes) -> bool:
    """Return whether a line has one of the format's names, and no image, which each of our own lines has."""
    with suppress(ValueError):
        line = from_json(text)
        return isinstance(line, dict) and "image" not in line and any(name in line for name in _NAMES)
    return False


@dataclass(frozen=True)
class OpenAILines:
    """`mode` and `model`, where given, are for bodies that name none. Each custom_id's line is held in memory."""

    mode: str | None
    model: str | None
    accepted: ClassVar[str] = (
        "accepted are lines of OpenAI's batch API, as the first one is: "
        '{"custom_id": a text that no other line has, "method": "POST", "url": a route, "body": its request}'
    )
    _lines: dict[str, int] = field(default_factory=dict)

    def question(self, number: int, text: bytes) -> Question:
        """Read a request. Raises ValueError, also where an earlier line has its custom_id."""
        line = _Line.model_validate_json(text)
        first = self._lines.setdefault(line.custom_id, number)
        if first != number:
            raise ValueError(f"custom_id: {line.custom_id!r} is that of line {first} too")
        body = self._completed(line)
        return _Question(number, line.url, fingerprint_of(line.custom_id, line.url, body), line.custom_id, body)

    def _completed(self, line: "_Line") -> dict[str, Any]:
        body = line.body if self.model is None else {"model": self.model, **line.body}
        names_mode = str(body.get("model")).endswith(_MODE_ENDINGS)
        if self.mode is None or names_mode or line.url not in _TWO_LOOKS:
            return body
        return {**body, "dualfocus": {"mode": self.mode, **(body.get("dualfocus") or {})}}

    def kept(self, text: bytes) -> Kept:
        """Read an answer. Raises ValueError where its id is none that a batch of ours wrote."""
        answer = _Answer.model_validate_json(text)
        line, fingerprint = answer.id.split("_")[2:]
        return Kept(int(line), fingerprint, None if answer.error is None else answer.error.message)


class _Line(BaseModel):
    model_config = ConfigDict(strict=True)

    custom_id: str
    method: Literal["POST"]
    url: Literal["/v1/chat/completions", "/v1/responses", "/v1/messages", "/v1/completions"]
    body: dict[str, Any]

    @field_validator("body")
    @classmethod
    def _check(cls, body: dict[str, Any]) -> dict[str, Any]:
        for name in ("stream", "background"):
            if body.get(name):
                raise ValueError(f"{name}: answers of a batch come whole; leave it out")
        if not isinstance(body.get("dualfocus"), dict | None):
            raise ValueError("dualfocus: an object is expected")
        return body


class _Error(BaseModel):
    message: str


class _Answer(BaseModel):
    model_config = ConfigDict(strict=True)

    # Readers take any id; it holds the line and the fingerprint of what was asked, for which there is no other room.
    id: str = Field(pattern="^batch_req_[1-9][0-9]*_[0-9a-f]{16}$")
    error: _Error | None


@dataclass(frozen=True)
class _Question(Question):
    custom_id: str
    request: dict[str, Any]
    # A wrong key; the model and the route are the line's own.
    refusals_of_all = (401, 403)

    def fault(self) -> str | None:
        return None

    def body(self) -> dict[str, Any]:
        return self.request

    def answer(self, response: httpx.Response) -> dict[str, Any]:
        return {"response": _as_openai_response(response, answer_body(response)), "error": None}

    def failure(self, error: AskError) -> dict[str, Any]:
        response = None if error.response is None else _as_openai_response(error.response, error.response.json())
        return {"response": response, "error": {"code": _code(error), "message": str(error)}}

    def told(self, found: dict[str, Any]) -> dict[str, Any]:
        return {"id": f"batch_req_{self.line}_{self.fingerprint}", "custom_id": self.custom_id, **found}


def _as_openai_response(response: httpx.Response, body: Any) -> dict[str, Any]:
    request_id = response.headers.get("X-Request-Id", "")
    return {"status_code": response.status_code, "request_id": request_id, "body": body}


def _code(error: AskError) -> str:
    if isinstance(error.__cause__, httpx.TimeoutException):
        return "request_timeout"  # OpenAI's own code
    return "connection_error" if error.status is None else str(error.status)
