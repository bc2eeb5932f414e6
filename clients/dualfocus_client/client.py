"""A small client: one image, one question, over HTTP. For everything else, OpenAI's own client works as it is."""

import base64
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import httpx

MODES = ("dual", "regions", "search", "adaptive", "macro", "micro", "off")
CHAT = "/v1/chat/completions"
URL_SCHEMES = ("http://", "https://", "data:")
# A day, in seconds: what waits longer waits for nothing.
LONGEST_WAIT = 86_400


class AskError(Exception):
    """The server refused or could not be reached, or the image can't be read; the message says which and why.

    `status` is the server's, None without one; `retry_after` the seconds it asked to be left alone, None without.
    `response` is what it said as JSON, None where it did not.
    """

    def __init__(
        self,
        message: str,
        status: int | None = None,
        retry_after: float | None = None,
        response: httpx.Response | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after
        self.response = response


class Unanswered(AskError):
    """No answer came; `reached` says whether there was a connection at all."""

    def __init__(self, message: str, reached: bool) -> None:
        super().__init__(message)
        self.reached = reached


def ask(
    image: str,
    question: str,
    base_url: str = "http://127.0.0.1:8000",
    api_key: str | None = None,
    timeout: float = 120.0,
    **options: Any,
) -> dict[str, Any]:
    """Ask one question about one image (a file or a URL) and return the whole chat completion.

    `options` are the request's `dualfocus` field: mode, question, box. Raises AskError.
    """
    body = chat_body(image_url(image), question, {name: value for name, value in options.items() if value is not None})
    url, headers = f"{server_address(base_url)}{CHAT}", authorization(api_key)
    with raise_unanswered(base_url):
        response = httpx.post(url, json=body, headers=headers, timeout=timeout)
    return answer_body(response)


def server_address(base_url: str) -> str:
    """Return a server's address without `/v1`, which base URLs of OpenAI's clients end with, and closing slashes."""
    return re.sub(r"(?<!/)(/v1)?/*$", "", base_url)  # `//v1` is a host


def chat_body(url: str, question: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return the request of one question; `options` are its `dualfocus` field."""
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": question}]
    return {"messages": [{"role": "user", "content": content}], "dualfocus": options}


def authorization(api_key: str | None) -> dict[str, str]:
    """Return the header that carries a key; none without a key. Raises AskError where no header can carry it."""
    if api_key and not api_key.isascii():
        raise AskError("The API key holds a character that is not ASCII, which no header carries. Was it pasted whole?")
    return {"Authorization": f"Bearer {api_key}"} if api_key else {}


def image_url(image: str) -> str:
    """Return an image argument as a URL: a file's content as a data: URL, a URL as it is. Raises AskError."""
    if image.startswith(URL_SCHEMES):
        return image
    return data_url(read_file(image))


def data_url(content: bytes) -> str:
    """Return a file's content as a data: URL."""
    return f"data:application/octet-stream;base64,{base64.b64encode(content).decode()}"


def read_file(path: str) -> bytes:
    """Return a file's content. Raises AskError that names it."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise AskError(f"{path}: {error.strerror}") from error
    except ValueError as error:  # a path with a NUL byte
        raise AskError(f"{path!r}: {error}") from error


@contextmanager
def raise_unanswered(base_url: str) -> Iterator[None]:
    """Hold a call to a server: whatever keeps its answer from coming is raised as Unanswered."""
    try:
        yield
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:  # UnicodeError: a host that can't be one
        reached = isinstance(error, httpx.TransportError) and not isinstance(error, _NO_CONNECTION)
        what = "gave no answer" if reached else "can't be reached"
        raise Unanswered(f"{base_url} {what}: {str(error) or type(error).__name__}", reached) from error


_NO_CONNECTION = (httpx.ConnectError, httpx.ConnectTimeout, httpx.UnsupportedProtocol, httpx.ProxyError)


def answer_body(response: httpx.Response) -> dict[str, Any]:
    """Return the JSON object that a response answers with. Raises AskError where it is a refusal or none."""
    status, wait = response.status_code, _retry_after(response.headers.get("Retry-After"))
    try:
        body = response.json()
    except ValueError as error:
        raise AskError(f"The server answered {status} and no JSON.", status, wait) from error
    if response.is_success and isinstance(body, dict):
        return body
    raise AskError(f"{status}: {_complaint(body)}", status, wait, response)


def _complaint(body: Any) -> str:
    """Return the message of an OpenAI error; of what isn't one, as much as there is."""
    error = body.get("error") if isinstance(body, dict) else None
    message = error.get("message") if isinstance(error, dict) else error
    return str(message or body)


def _retry_after(text: str | None) -> float | None:
    """Read the header: seconds, or a date."""
    if text is None:
        return None
    try:
        seconds = int(text) if text.isdecimal() else (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError):  # TypeError: a date without a zone
        return None
    return float(min(max(seconds, 0), LONGEST_WAIT))
