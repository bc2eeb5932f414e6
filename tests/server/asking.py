"""What tests ask of a running server, and how they see what runs on it."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import httpx
from openai import OpenAI
from running_server import PATIENCE, Server, frozen_engine

# Answers that a server may give before it has taken notice of something: on a machine with nothing else to do they take
# a second; where all is slower, so are they.
SOON = 50
About = Callable[[str, str], list[dict[str, Any]]]
ImagePart = Callable[[str], dict[str, Any]]
MODEL = "dualfocus-untrained"
CHAT = "/v1/chat/completions"
TEXT_ONLY: list[dict[str, Any]] = [{"role": "user", "content": "Hello"}]


def ask(client: OpenAI, messages: Any, focus: dict[str, Any] | None = None, model: str = MODEL, **options: Any) -> Any:
    """Ask through the official client."""
    extra = {"dualfocus": focus} if focus else None
    return client.chat.completions.create(model=model, messages=messages, extra_body=extra, **options)


def events(http: httpx.Client, **body: Any) -> list[str]:
    """Return the lines of a stream, comments included."""
    with http.stream("POST", CHAT, json=body | {"stream": True}) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        return [line for line in response.iter_lines() if line]


def chunks(lines: list[str]) -> list[dict[str, Any]]:
    """Return what a stream's events hold."""
    return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]


async def until_unfinished(http: httpx.AsyncClient, wanted: Callable[[int], bool]) -> int:
    """Wait until the server's number of unfinished turns is a wanted one; returns how often it said another."""
    async with asyncio.timeout(PATIENCE):
        for looks in count():
            if wanted(_unfinished((await http.get("/metrics")).text)):
                return looks
            await asyncio.sleep(0.02)
    raise AssertionError("unreachable")


def _unfinished(metrics: str) -> int:
    line = next(line for line in metrics.splitlines() if line.startswith("dualfocus_unfinished_turns "))
    return int(float(line.split()[1]))


async def ask_and_leave(server: Server, body: dict[str, Any]) -> None:
    """Ask, leave once turns run, and see them aborted soon.

    The engine makes no step meanwhile that could end them by itself.
    """
    with frozen_engine(server):
        async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE) as http:
            asking = asyncio.create_task(http.post(CHAT, json=body))
            await until_unfinished(http, lambda turns: turns > 0)
            asking.cancel()
            await asyncio.wait({asking})
            assert await until_unfinished(http, lambda turns: turns == 0) <= SOON


def log_until(server: Server, wanted: str) -> str:
    """Return the server's log once it holds a text."""
    limit = time.monotonic() + PATIENCE
    while wanted not in (log := server.log.read_text()):
        assert time.monotonic() < limit, f"{wanted!r} never came into the log"
        time.sleep(0.02)
    return log


def lend(server: Server) -> Iterator[Server]:
    """Lend a server to a fixture's tests and stop it: it ends well, and nothing in its log failed unexpectedly."""
    yield server
    server.process.terminate()
    assert server.process.wait(PATIENCE) == 0
    check_log(server)


def check_log(server: Server) -> None:
    """Judge a server's whole log: whatever its clients did, nothing in it failed unexpectedly."""
    log = server.log.read_text()
    for failure in ("Traceback", "Unexpected error"):
        assert failure not in log, log[max(log.index(failure) - 500, 0) :][:5000]
