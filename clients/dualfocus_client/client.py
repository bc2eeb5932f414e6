"""A small client: one image, one question, over HTTP. For everything else, OpenAI's own client works as it is."""

import base64
from pathlib import Path
from typing import Any

import httpx


class AskError(Exception):
    """The server refused or could not be reached; the message says which and why."""


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
    content = [
        {"type": "image_url", "image_url": {"url": image_url(image)}},
        {"type": "text", "text": question},
    ]
    given = {name: value for name, value in options.items() if value is not None}
    body = {"messages": [{"role": "user", "content": content}], "dualfocus": given}
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    try:
        response = httpx.post(f"{base_url}/v1/chat/completions", json=body, headers=headers, timeout=timeout)
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:  # UnicodeError: a host that can't be one
        raise AskError(f"{base_url} can't be reached: {error}") from error
    return _completion(response)


def image_url(image: str) -> str:
    """Return an image argument as a URL: a file's content as a data: URL, a URL as it is. Raises AskError."""
    if image.startswith(("http://", "https://", "data:")):
        return image
    try:
        data = Path(image).read_bytes()
    except OSError as error:
        raise AskError(f"{image}: {error.strerror}") from error
    except ValueError as error:  # a path with a NUL byte
        raise AskError(f"{image!r}: {error}") from error
    return f"data:application/octet-stream;base64,{base64.b64encode(data).decode()}"


def _completion(response: httpx.Response) -> dict[str, Any]:
    try:
        body = response.json()
    except ValueError as error:
        raise AskError(f"The server answered {response.status_code} and no JSON.") from error
    if response.is_success and isinstance(body, dict):
        return body
    raise AskError(f"{response.status_code}: {_complaint(body)}")


def _complaint(body: Any) -> str:
    """Return the message of an OpenAI error; of what isn't one, as much as there is."""
    error = body.get("error") if isinstance(body, dict) else None
    message = error.get("message") if isinstance(error, dict) else error
    return str(message or body)
