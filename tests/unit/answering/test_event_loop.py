"""The event loop is never held for long, whatever is done to a photo of twelve million pixels.

Long is judged beside what the same thread takes to decode the photo: a busy machine is slow at both.
"""

import asyncio
import io
import json
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from dualfocus_engine.machine import pool
from dualfocus_server.answering.service import Service
from dualfocus_server.answering.vllm_serving.chat import VllmChat
from dualfocus_server.app import create_app, with_outer_middleware
from dualfocus_server.guards.keys import KeyRing
from dualfocus_server.settings import Settings
from PIL import Image
from starlette.types import ASGIApp, Message, Scope

from ..api.test_chat_service import FakeChat, service
from ..builders import data_url, encoded
from ..fake_engine import FakeEngine, focus_on

Ask = Callable[[], Awaitable[Any]]
Prepared = Callable[[], Awaitable[Ask]]
# What one thing done by the event loop may take, as a share of what decoding the photo takes.
HELD_AT_MOST = 0.4
TRIES = 5
# What a socket gives at once.
PIECE = 64 << 10
FACTS = {"http_version": "1.1", "query_string": b"", "root_path": "", "client": ("here", 1), "server": ("here", 1)}
POST: Scope = FACTS | {
    "type": "http",
    "method": "POST",
    "path": "/v1/chat/completions",
    "headers": [(b"content-type", b"application/json")],
}


class Answering(FakeChat):
    """vLLM's chat serving, which answers at once."""

    async def answer(self, *given: Any) -> Any:
        return SimpleNamespace(model_dump=dict)


class Here(Executor):
    """A pool without threads: what is given to it holds the event loop."""

    def submit(self, work: Callable[..., Any], /, *args: Any, **named: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(work(*args, **named))
        return done


@contextmanager
def monitored() -> Iterator[list[float]]:
    """Note how long each thing takes that the event loop does.

    It is the time of the loop's own thread: what others do on the machine counts for nothing.
    """
    held: list[float] = []
    run = asyncio.Handle._run

    def timed(handle: asyncio.Handle) -> None:
        begun = time.thread_time()
        run(handle)
        held.append(time.thread_time() - begun)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(asyncio.Handle, "_run", timed)
        yield held


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    """Noise of 4000 x 3000, as unkind to a decoder as to a compressor."""
    shades = np.random.default_rng(4).integers(0, 48, (3000, 4000, 3), np.uint8)
    return Image.fromarray(shades + np.linspace(0, 200, 4000, dtype=np.uint8)[:, None])


@pytest.fixture(scope="module")
def jpeg(photo: Image.Image) -> bytes:
    made = encoded(photo, "JPEG", quality=88)
    assert 3e6 < len(made) < 8e6
    return made


def request_about(image: bytes, options: dict[str, Any]) -> bytes:
    content = [{"type": "image_url", "image_url": {"url": data_url(image)}}, {"type": "text", "text": "What is it?"}]
    return json.dumps({"messages": [{"role": "user", "content": content}], "dualfocus": options}).encode()


def application() -> ASGIApp:
    made = service(running=2)
    answering = Service(made.focus, cast("VllmChat", Answering()), made.images, made.admission, made.watchdog, 0)
    return with_outer_middleware(create_app(answering, Settings(), KeyRing([])))


async def post(app: ASGIApp, body: bytes) -> int:
    """Send a body piece by piece, as it comes from a socket; return the answer's status."""
    pieces = [body[at : at + PIECE] for at in range(0, len(body), PIECE)]
    messages: list[Message] = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    messages.append({"type": "http.request", "body": b""})
    answered: list[Message] = []

    async def receive() -> Message:
        await asyncio.sleep(0)
        if not messages:
            await asyncio.Event().wait()
        return messages.pop(0)

    async def send(message: Message) -> None:
        answered.append(message)

    await app(dict(POST), receive, send)
    return int(answered[0]["status"])


def decoding(jpeg: bytes) -> float:
    """Return what it takes this thread to decode a photo, the quickest of three times: memory may be slow to come."""

    def once() -> float:
        begun = time.thread_time()
        Image.open(io.BytesIO(jpeg)).load()
        return time.thread_time() - begun

    return min(once() for _ in range(3))


async def longest(prepared: Prepared, jpeg: bytes) -> float:
    """Ask up to TRIES times, each time as if the photo were new; return the longest hold of the best try, as a share.

    It is a share of what decoding the photo takes at that time.
    """
    tries = []
    for _ in range(TRIES):
        ask, unit = await prepared(), decoding(jpeg)
        with monitored() as held:
            await asyncio.create_task(ask())
        tries.append(max(held) / unit)
        if tries[-1] < HELD_AT_MOST:
            break
    return min(tries)


def requesting(image: bytes, options: dict[str, Any]) -> Prepared:
    """A request to the server."""
    body, first = (request_about(about, options) for about in (image, encoded(Image.new("RGB", (8, 8)))))

    async def prepared() -> Ask:
        app = application()
        assert await post(app, first) == 200  # it makes much that stays

        async def ask() -> None:
            assert await post(app, body) == 200

        return ask

    return prepared


def asking(image: Any) -> Prepared:
    """A question without a server."""

    async def prepared() -> Ask:
        return partial(focus_on(FakeEngine()).ask, image, "What is it?")

    return prepared


@pytest.mark.parametrize(
    "options",
    [{}, {"mode": "macro"}, {"mode": "micro"}, {"box": [0, 0, 1, 1]}, {"return_crop": True}, {"mode": "off"}],
    ids=str,
)
async def test_a_large_jpeg_in_a_request_does_not_hold_the_event_loop(jpeg: bytes, options: dict[str, Any]) -> None:
    assert await longest(requesting(jpeg, options), jpeg) < HELD_AT_MOST


@pytest.mark.parametrize("given", ["bytes", "file", "Pillow"])
async def test_a_large_photo_asked_about_without_a_server_does_not_hold_it(
    jpeg: bytes, photo: Image.Image, tmp_path: Path, given: str
) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(jpeg)
    asked = asking({"bytes": jpeg, "file": path, "Pillow": photo}[given])
    assert await longest(asked, jpeg) < HELD_AT_MOST


@pytest.mark.parametrize("mode", ["dual", "macro", "off"])
async def test_a_picture_that_is_decoded_in_the_event_loop_would_be_noticed(
    monkeypatch: pytest.MonkeyPatch, jpeg: bytes, mode: str
) -> None:
    monkeypatch.setattr(pool, "_threads", Here())
    assert await longest(requesting(jpeg, {"mode": mode}), jpeg) > HELD_AT_MOST
