"""DualFocus on Ray Serve: replicas across nodes, each picture's questions on one of them.

`serve run dualfocus_ray:build model=/models/llava-dualfocus-7b replicas=4` in this folder; `Options` has the rest.

    client ──► Ray's proxy ──► Entrance ── by the first picture's content ──► Replica ──► `dualfocus serve`

Leans on Ray 2.60: `ConsistentHashRouter` (experimental there), which goes by a handle's `session_id`.
"""

import asyncio
import contextlib
import hashlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import from_json
from ray import serve
from ray.exceptions import RayActorError
from ray.serve.config import RequestRouterConfig
from ray.serve.handle import DeploymentHandle
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

Headers = list[tuple[str, str]]

_ROUTER = "ray.serve.experimental.consistent_hash_router.ConsistentHashRouter"
REPLICA_HEADER = "x-dualfocus-replica"
# Of one connection, and written anew for the next; the request's id is Ray's to return.
_OWN = frozenset({"connection", "keep-alive", "transfer-encoding", "upgrade", "te", "trailer", "host", "expect"})
_OWN_ANSWERED = _OWN | {"content-length", "date", "server", "x-request-id"}
# The server refuses what is too much; Ray is to hand it everything.
_UNLIMITED = 1 << 16
# A question is asked again this often, so many seconds apart: a server that stops says so for a while before it ends.
_TRIES, _PAUSE = 30, 1.0
_UNAVAILABLE = 503
# A replica that ended over a question may have ended because of it: it is not handed on to one after the other.
_ENDED = ("replica_lost", "engine_dead")
_MOST_ENDED = 3
_READY = re.compile(r"DualFocus is ready on (\S+)\. ")
# Seconds that a replica gets for what it is asked when it is to stop: the server's own limit for a question.
_LONGEST = 120


class Options(BaseModel):
    """What `serve run dualfocus_ray:build name=value …` takes."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field("", description="a folder on every node, or a name on the hub; empty: the model that ships")
    flags: str = Field("", description="flags of `dualfocus serve`, as in a shell")
    replicas: int = Field(2, ge=1)
    gpus: float = Field(1, ge=0, description="GPUs of a replica; with several, flags need --tensor-parallel-size")
    cpus: float = Field(1, ge=0, description="CPU cores of a replica")
    entrances: int = Field(1, ge=1, description="processes that read requests and choose replicas")
    max_body_bytes: int = Field(64 << 20, ge=1)


@dataclass(frozen=True)
class Asked:
    """A request as it is handed on."""

    method: str
    target: str
    headers: Headers
    body: bytes


@dataclass(frozen=True)
class Head:
    """What an answer begins with."""

    status: int
    headers: Headers

    @property
    def is_stream(self) -> bool:
        """Whether the answer comes piece by piece."""
        return any(name == "content-type" and value.startswith("text/event-stream") for name, value in self.headers)


class ServerLost(Exception):
    """The replica's server ended before it had answered."""


class Replica:
    """A `dualfocus serve` of its own, and its end: Ray starts another where either ends."""

    def __init__(self, options: Options) -> None:
        self._name = serve.get_replica_context().replica_id.unique_id
        self._server = subprocess.Popen(
            _command(options),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        Thread(target=self._end_with_server, daemon=True).start()
        # A connection each: one that was kept may be closed by the server just as it is used again.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        self._http = httpx.AsyncClient(base_url=self._ready(), timeout=None, limits=limits, trust_env=False)
        Thread(target=self._watch, daemon=True).start()

    async def answer(self, asked: Asked) -> AsyncIterator[Head | bytes]:
        """Ask the server; first comes the answer's head, then its bytes. Raises ServerLost."""
        # httpx takes text for ASCII.
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in asked.headers]
        request = self._http.build_request(asked.method, asked.target, headers=headers, content=asked.body)
        try:
            response = await self._http.send(request, stream=True)
            try:
                yield Head(response.status_code, [*_without(response.headers, _OWN_ANSWERED), self._signature])
                async for piece in response.aiter_raw():
                    yield piece
            finally:
                await response.aclose()
        except httpx.TransportError as error:
            raise ServerLost(str(error)) from error

    @property
    def _signature(self) -> tuple[str, str]:
        return (REPLICA_HEADER, self._name)

    def _ready(self) -> str:
        """Return where the server listens, once it does."""
        for line in self._lines():
            if ready := _READY.search(line):
                return ready[1]
        raise RuntimeError("dualfocus serve ended before it was ready; what it said stands above.")

    def _end_with_server(self) -> None:
        """Kill what a server that was killed has left behind: its engine keeps the GPU, and the pipe that is read."""
        self._server.wait()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._server.pid, signal.SIGKILL)

    def _watch(self) -> None:
        for _ in self._lines():
            pass
        # Not an exception, which Ray would take for one question's.
        os._exit(1)

    def _lines(self) -> Iterator[str]:
        """Read the server's output, and write it to the replica's log."""
        assert self._server.stdout is not None  # it is a pipe
        for line in self._server.stdout:
            print(line, end="", flush=True)
            yield line


class Entrance:
    """Reads requests, and hands each to the replica that its picture names; asks again what was lost with one."""

    def __init__(self, replicas: DeploymentHandle, max_body_bytes: int) -> None:
        self._replicas = replicas.options(stream=True)
        self._max_body_bytes = max_body_bytes

    async def __call__(self, request: Request) -> Response:
        """Answer a request."""
        body = await self._body(request)
        if body is None:
            return _error(413, f"The body is larger than the {self._max_body_bytes} bytes taken.", "body_too_large")
        target = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        asked = Asked(request.method, target, _without(request.headers, _OWN), body)
        key = await asyncio.to_thread(picture_key, body)
        ended = 0
        for _ in range(_TRIES):
            answer = await self._ask(asked, key)
            ended += _code(answer) in _ENDED
            if answer.status_code != _UNAVAILABLE or ended == _MOST_ENDED:
                break
            await asyncio.sleep(_PAUSE)
        return answer

    async def _ask(self, asked: Asked, key: str) -> Response:
        """Return a replica's answer, or 503 where it ended before it had one."""
        pieces = self._replicas.options(session_id=key).answer.remote(asked)
        try:
            head = await anext(pieces)
            whole = None if head.is_stream else b"".join([piece async for piece in pieces])
        except (RayActorError, ServerLost):
            return _lost()
        answer = StreamingResponse(_to_its_end(pieces), head.status) if whole is None else Response(whole, head.status)
        answer.raw_headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in head.headers] + [
            header for header in answer.raw_headers if header[0] == b"content-length"
        ]
        return answer

    async def _body(self, request: Request) -> bytes | None:
        """Return the request's body; None where it is too large."""
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > self._max_body_bytes:
                return None
        return bytes(body)


def build(options: Options) -> serve.Application:
    """Return the application (Ray calls this with what follows it on the command line)."""
    replica = serve.deployment(
        num_replicas=options.replicas,
        ray_actor_options={"num_gpus": options.gpus, "num_cpus": options.cpus},
        max_ongoing_requests=_UNLIMITED,
        graceful_shutdown_timeout_s=_LONGEST,
        request_router_config=RequestRouterConfig(request_router_class=_ROUTER),
    )(Replica)
    entrance = serve.deployment(
        num_replicas=options.entrances,
        ray_actor_options={"num_cpus": 0},
        max_ongoing_requests=_UNLIMITED,
        graceful_shutdown_timeout_s=_LONGEST,  # every answer goes through it
    )(Entrance)
    return entrance.bind(replica.bind(options), options.max_body_bytes)


def picture_key(body: bytes) -> str:
    """Return what names the first picture of a conversation (chat, Messages, Responses); nothing where there is none.

    The first, so that a conversation that shows more pictures later stays where its prefix is cached.
    """
    try:
        asked = from_json(body)
        messages = asked.get("messages") or asked["input"]
        parts = (part for message in messages for part in message.get("content") or ())
        name = next(name for part in parts for name in _names(part))
    except (ValueError, TypeError, KeyError, AttributeError, StopIteration):
        return ""  # no question about a picture, or one that the server refuses
    return hashlib.sha256(name.encode()).hexdigest()


def _names(part: Any) -> list[str]:
    """Return the name of a message's part if it is an image: its `uuid`, else its URL or bytes as they are written.

    By its `uuid` first: later questions may show the picture by that alone.
    """
    if not isinstance(part, dict):
        return []
    image = part.get("image_url") or part.get("source")
    said = [part.get("uuid"), *(map(image.get, ("url", "data")) if isinstance(image, dict) else [image])]
    return [name for name in said if name and isinstance(name, str)][:1]


def _command(options: Options) -> list[str]:
    """Return the command that serves, on a port that the system chooses, and is told to stop when the replica ends.

    A shell stands between the two. Ray kills what a replica has started when it stops one: a server that was killed
    would leave its engine on the GPU, one whose shell was is told to stop.
    """
    program = Path(sys.executable).parent / "dualfocus"
    model = [options.model] if options.model else []
    where = ["--host", "127.0.0.1", "--port", "0"]
    serving = ["setpriv", "--pdeathsig", "TERM", str(program), "serve", *model, *where, *shlex.split(options.flags)]
    return ["setpriv", "--pdeathsig", "KILL", "sh", "-c", '"$@" & wait $!', "sh", *serving]


def _without(headers: Any, names: frozenset[str]) -> Headers:
    pairs = headers.multi_items() if isinstance(headers, httpx.Headers) else headers.items()
    return [(name.lower(), value) for name, value in pairs if name.lower() not in names]


async def _to_its_end(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Pass a stream on; what was told can't be taken back, so a lost one ends with an error."""
    try:
        async for piece in pieces:
            yield piece
    except (RayActorError, ServerLost):
        yield b"\n\ndata: " + bytes(_lost().body) + b"\n\ndata: [DONE]\n\n"


def _code(answer: Response) -> str | None:
    """Return an error's code; None of what is no error of the server's."""
    if answer.status_code != _UNAVAILABLE:
        return None
    try:
        return str(from_json(bytes(answer.body))["error"]["code"])
    except (ValueError, TypeError, KeyError):
        return None


def _lost() -> Response:
    return _error(_UNAVAILABLE, "The replica stopped before it had answered. Ask again.", "replica_lost")


def _error(status: int, message: str, code: str) -> Response:
    """Return an error as the server writes them."""
    kind = "service_unavailable_error" if status == _UNAVAILABLE else "invalid_request_error"
    error = {"message": message, "type": kind, "param": None, "code": code}
    return Response(json.dumps({"error": error}), status, media_type="application/json")
