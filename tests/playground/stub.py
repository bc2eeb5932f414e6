"""A server that has the page and no model: it gives the answers it is told to."""

import asyncio
import contextlib
import copy
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import uvicorn
from dualfocus_server.playground import playground_routes
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route

# As the shipped model answered about the sample (what is the same in every answer of vLLM left out).
Completion = dict[str, Any]
RECORDED: dict[str, Completion] = json.loads((Path(__file__).parent / "answers.json").read_text())
PREFIX = "/behind/a/proxy"


class Stub:
    """What is answered, and what was asked."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.reset()

    def reset(self) -> None:
        """Answer as the shipped model did, at once."""
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.models_need_key = False
        self.is_held = False
        self.held_at: str | None = None
        self.left = threading.Event()
        self.answer: Response | Completion = RECORDED["dual"]

    def answer_with(self, mode: str = "dual", /, **changed: Any) -> None:
        """Answer with a recorded answer, parts of its `dualfocus` field changed."""
        self.answer = copy.deepcopy(RECORDED[mode])
        self.answer["dualfocus"].update(changed)

    def refuse(self, status: int, message: str, code: str | None) -> None:
        """Answer with an error in OpenAI's shape."""
        self.answer = JSONResponse({"error": {"message": message, "type": "", "param": None, "code": code}}, status)

    async def chat(self, request: Request) -> Response:
        self.keys.append(request.headers.get("authorization"))
        self.asked.append(await request.json())
        while self.is_held:
            if await request.is_disconnected():
                self.left.set()
                raise ClientDisconnect
            await asyncio.sleep(0.01)
        if isinstance(self.answer, Response):
            return self.answer
        if not self.asked[-1].get("stream"):
            return JSONResponse(self.answer)
        return StreamingResponse(self._paced(pieces_of(self.answer)), media_type="text/event-stream")

    async def _paced(self, pieces: list[Any]) -> AsyncIterator[str]:
        """Send a stream; it is held behind the piece that tells what `held_at` names."""
        yield ": keep-alive\n\n"
        for piece in pieces:
            yield f"data: {json.dumps(piece)}\n\n"
            doing = piece.get("dualfocus", {}).get("progress")
            while doing is not None and self.held_at == doing:  # noqa: ASYNC110 (set by another thread)
                await asyncio.sleep(0.01)
        yield "data: [DONE]\n\n"

    async def models(self, request: Request) -> Response:
        if self.models_need_key and "authorization" not in request.headers:
            return JSONResponse({"error": {"message": "Give a valid API key.", "code": "invalid_api_key"}}, 401)
        return JSONResponse(RECORDED["models"])


def pieces_of(answer: Completion) -> list[Any]:
    """An answer as the server streams it, with what it does told."""
    (choice,), found = answer["choices"], answer.get("dualfocus")
    doing = ("waiting", *(name for name in ("grounding", "macro", "micro") if found and found[name]))
    text = choice["message"]["content"]
    return [
        _piece(answer, role="assistant"),
        *(_piece(answer) | {"dualfocus": {"progress": name}} for name in doing),
        _piece(answer, text[:1]),
        _piece(answer, text[1:]) | ({"dualfocus": found} if found else {}),
        _piece(answer, reason=choice["finish_reason"]),
        {"model": answer["model"], "choices": [], "usage": answer["usage"]},
    ]


def _piece(answer: Completion, content: str = "", reason: str | None = None, **delta: str) -> Completion:
    choice = {"index": 0, "delta": {"content": content, **delta}, "logprobs": None, "finish_reason": reason}
    return {"model": answer["model"], "choices": [choice]}


@contextlib.contextmanager
def stub_server() -> Iterator[Stub]:
    """Run it in a thread of this process."""
    listener = socket.create_server(("127.0.0.1", 0))
    stub = Stub(f"http://127.0.0.1:{listener.getsockname()[1]}")
    routes = [
        *playground_routes(),
        Route("/v1/chat/completions", stub.chat, methods=["POST"]),
        Route("/v1/models", stub.models),
    ]
    app = Starlette(routes=[Mount(PREFIX, routes=routes), *routes])
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield stub
    finally:
        stub.is_held, stub.held_at = False, None
        server.should_exit = True
        thread.join()
