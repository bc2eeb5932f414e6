"""The size of a body, judged while it is read."""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dualfocus_server.errors import problem_of
from dualfocus_server.refusals import TooLarge


class BodyLimit:
    """ASGI middleware: refuses bodies of more than `limit` bytes, whatever their header says."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = _Counted(receive, self._limit)
        announced = Headers(scope=scope).get("content-length", "0")
        if announced.isdigit() and int(announced) > self._limit:
            body.exceeded = True
        await self._answer(body, scope, send)

    async def _answer(self, body: "_Counted", scope: Scope, send: Send) -> None:
        if not body.exceeded:
            # The application sees an oversized body as a client that left; its answer is replaced.
            await self._app(scope, body.receive, body.unless_exceeded(send))
        if body.exceeded:
            await problem_of(TooLarge(self._limit)).response()(scope, body.receive, send)


class _Counted:
    """A request's body, counted as it is received."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive = receive
        self._left = limit
        self.exceeded = False

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._left -= len(message.get("body", b""))
            if self._left < 0:
                self.exceeded = True
                return {"type": "http.disconnect"}
        return message

    def unless_exceeded(self, send: Send) -> Send:
        async def forward(message: Message) -> None:
            if not self.exceeded:
                await send(message)

        return forward
