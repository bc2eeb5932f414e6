"""Requests to a grounder's server: few connections, short answers, no redirects."""

import base64
import io
import os
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
from dualfocus_engine import ConfigError
from PIL import Image
from pydantic import BaseModel, ValidationError

_KEY_VARIABLE = "DUALFOCUS_GROUNDER_API_KEY"
# Questions that are asked at once; others wait for a connection, within their time.
MAX_CONNECTIONS = 16
MAX_ANSWER_BYTES = 64 << 10
_JPEG_QUALITY = 95

Answer = TypeVar("Answer", bound=BaseModel)


class GrounderAnswerError(Exception):
    """The server's answer is not one that a grounder gives."""


class BoundedHttp:
    """Asks one server. The caller limits the time; a request that is cancelled is closed.

    The key in DUALFOCUS_GROUNDER_API_KEY, where there is one, is sent as a bearer token.
    """

    def __init__(self) -> None:
        key = os.environ.get(_KEY_VARIABLE)
        self._client = httpx.AsyncClient(
            # Packed answers could be short ones of gigabytes.
            headers={"Accept-Encoding": "identity"} | ({"Authorization": f"Bearer {key}"} if key else {}),
            limits=httpx.Limits(max_connections=MAX_CONNECTIONS),
            timeout=None,
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def ask(self, kind: type[Answer], method: str, url: str, body: Any = None) -> Answer:
        """Send JSON and return what is answered. Raises GrounderAnswerError and httpx's errors."""
        answer = await self._answer(method, url, body)
        try:
            return kind.model_validate_json(answer)
        except ValidationError as error:
            # In one line of the log, without a word of the answer.
            first = error.errors(include_input=False)[0]
            where = ".".join(map(str, first["loc"])) or "it"
            raise GrounderAnswerError(
                f"{shown(url)} answered otherwise than expected: {where}: {first['msg']}"
            ) from error

    async def _answer(self, method: str, url: str, body: Any) -> bytes:
        async with self._client.stream(method, url, json=body) as response:
            if response.status_code != httpx.codes.OK:
                raise GrounderAnswerError(f"{shown(url)} answered {response.status_code}")
            answer = b""
            async for piece in response.aiter_raw():
                answer += piece
                if len(answer) > MAX_ANSWER_BYTES:
                    raise GrounderAnswerError(f"{shown(url)} answered more than {MAX_ANSWER_BYTES:,} bytes")
            return answer


class GrounderOverHttp:
    """What asks a server, until it is left: an async context manager that closes all connections."""

    def __init__(self) -> None:
        self._http = BoundedHttp()

    async def __aenter__(self) -> Self:
        """Return it: nothing is asked yet."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close all connections."""
        await self._http.close()


def shown(url: str) -> str:
    """Return a URL, or a grounder's name that holds one, as logs may have it: a query may be a key."""
    address, mark, _ = url.partition("?")
    return f"{address}?…" if mark else address


def checked_url(flag: str, url: str) -> str:
    """Return an http(s) URL. Raises ConfigError naming the flag that it stands in."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ConfigError(f"--grounder {flag}: {error}") from error
    if parsed.userinfo:
        raise ConfigError(f"--grounder {flag}:URL: a URL has no key in it here; {_KEY_VARIABLE} takes one.")
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ConfigError(
            f"--grounder {flag}:{url} has no URL: expected {flag}:http://HOST/… or {flag}:https://HOST/…."
        )
    return url


def as_data_url(picture: Image.Image) -> str:
    """Return a picture as a data: URL of a JPEG; work for a thread."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=_JPEG_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
