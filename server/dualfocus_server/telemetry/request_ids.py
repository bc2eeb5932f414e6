"""A request's id: taken from `X-Request-Id` or made, returned, and in every log line."""

import re
import uuid
from contextvars import ContextVar

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADER = "X-Request-Id"
request_id: ContextVar[str | None] = ContextVar("request_id", default=None)

# What is safe in a header and in a log line; anything else is replaced by an id of ours.
_ACCEPTED = re.compile(r"[\w.:/+=@-]{1,128}")


def is_id(given: object) -> bool:
    """Whether a client's id can be a request's."""
    return isinstance(given, str) and _ACCEPTED.fullmatch(given) is not None


class RequestIds:
    """ASGI middleware: gives each request its id."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(HEADER, "")
        own = given if is_id(given) else uuid.uuid4().hex
        request_id.set(own)

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[HEADER] = own
            await send(message)

        await self._app(scope, receive, send_with_id)
