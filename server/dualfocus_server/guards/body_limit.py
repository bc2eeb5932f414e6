"""The size of a body, judged while it is read, the time it takes, and whether it is packed."""

import asyncio
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dualfocus_server.guards.api_errors import to_api_error
from dualfocus_server.guards.http_errors import Encoded, HttpError, TooBusy, TooLarge, TooSlow


class BodyLimit:
    """ASGI middleware: refuses bodies of more than `limit` bytes, whatever their header says, slow and packed ones.

    `timeout` is seconds for the whole body (0: no limit). All that are here have at most `together` bytes: bodies are
    read before it is known whether there is a place for the question.
    """

    def __init__(self, app: ASGIApp, limit: int, timeout: float, together: int) -> None:
        self._app = app
        self._limit = limit
        self._timeout = timeout
        self._together = self._left = together

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = _Counted(receive, self._limit, self._timeout, self._take)
        body.refusal = self._judge_headers(Headers(scope=scope))
        try:
            await self._answer(body, scope, send)
        finally:
            self._left += body.taken

    def _take(self, size: int) -> HttpError | None:
        """Count bytes of a body among those that are here, or say why there is no room for them."""
        if size > self._left:
            most = f"{self._together} bytes (--max-body-bytes times the sum of --max-questions and --max-queued)"
            return TooBusy(f"The bodies of all requests may have {most}, and those that are here take them")
        self._left -= size
        return None

    def _judge_headers(self, headers: Headers) -> HttpError | None:
        """Judge a body by what is announced of it."""
        encoding = headers.get("content-encoding", "")
        if encoding.lower() not in ("", "identity"):
            return Encoded(encoding)
        announced = headers.get("content-length", "0")
        if announced.isdigit() and int(announced) > self._limit:
            return TooLarge(self._limit)
        return None

    async def _answer(self, body: "_Counted", scope: Scope, send: Send) -> None:
        try:
            if body.refusal is None:
                # The application sees a body that is refused as a client that left; its answer is replaced.
                await self._app(scope, body.receive, body.unless_refused(send))
        except Exception:
            if body.refusal is None:
                raise
        if body.refusal is not None:
            await to_api_error(body.refusal).response(scope)(scope, body.receive, send)


class _Counted:
    """A request's body, counted and timed as it is received; `taken` are the bytes that are here."""

    def __init__(self, receive: Receive, limit: int, timeout: float, take: Callable[[int], HttpError | None]) -> None:
        self._receive = receive
        self._limit = limit
        self._take = take
        self.taken = 0
        self._timeout = timeout
        self._deadline = asyncio.get_running_loop().time() + timeout if timeout else None
        self._is_whole = False
        self.refusal: HttpError | None = None

    async def receive(self) -> Message:
        """Return the next message, a disconnect once the body is refused."""
        try:
            # What comes after the body is the client's leaving, and may take as long as it likes.
            async with asyncio.timeout_at(None if self._is_whole else self._deadline):
                message = await self._receive()
        except TimeoutError:
            return self._refuse(TooSlow(self._timeout))
        if message["type"] == "http.request":
            self._is_whole = not message.get("more_body", False)
            size = len(message.get("body", b""))
            why = TooLarge(self._limit) if self.taken + size > self._limit else self._take(size)
            if why is not None:
                return self._refuse(why)
            self.taken += size
        return message

    def _refuse(self, why: HttpError) -> Message:
        self.refusal = why
        return {"type": "http.disconnect"}

    def unless_refused(self, send: Send) -> Send:
        """Return `send`, silent once the body is refused."""

        async def forward(message: Message) -> None:
            if self.refusal is None:
                await send(message)

        return forward
