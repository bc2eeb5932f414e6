"""What tests ask of a running server, and how they see what runs on it."""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from openai import OpenAI
from running_server import Server

About = Callable[[str, str], list[dict[str, Any]]]
ImagePart = Callable[[str], dict[str, Any]]
MODEL = "dualfocus-starter"
CHAT = "/v1/chat/completions"
TEXT_ONLY: list[dict[str, Any]] = [{"role": "user", "content": "Hello"}]
PATIENCE = 60.0  # what does not come within it does not come


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


async def until_unfinished(http: httpx.AsyncClient, wanted: Callable[[int], bool]) -> None:
    """Wait until the server's number of unfinished turns is a wanted one."""
    async with asyncio.timeout(PATIENCE):
        while not wanted(_unfinished((await http.get("/metrics")).text)):  # noqa: ASYNC110 (another process)
            await asyncio.sleep(0.02)


def _unfinished(metrics: str) -> int:
    line = next(line for line in metrics.splitlines() if line.startswith("dualfocus_unfinished_turns "))
    return int(float(line.split()[1]))


async def ask_and_leave(server: Server, body: dict[str, Any]) -> None:
    """Ask, leave once turns run, and see them aborted: the engine makes no step that could end them by itself."""
    with stopped_engine(server):
        async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE) as http:
            asking = asyncio.create_task(http.post(CHAT, json=body))
            await until_unfinished(http, lambda turns: turns > 0)
            asking.cancel()
            await asyncio.wait({asking})
            await until_unfinished(http, lambda turns: turns == 0)


@contextmanager
def stopped_engine(server: Server) -> Iterator[None]:
    """Hold the engine's process still."""
    listed = subprocess.run(
        ["pgrep", "-s", str(server.process.pid), "-f", "EngineCore"], capture_output=True, check=True
    )
    engine = int(listed.stdout.split()[0])
    os.kill(engine, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(engine, signal.SIGCONT)


def log_until(server: Server, wanted: str) -> str:
    """Return the server's log once it holds a text."""
    limit = time.monotonic() + PATIENCE
    while wanted not in (log := server.log.read_text()):
        assert time.monotonic() < limit, f"{wanted!r} never came into the log"
        time.sleep(0.02)
    return log


def check_log(server: Server) -> None:
    """Judge a server's whole log: whatever its clients did, nothing in it failed unexpectedly."""
    log = server.log.read_text()
    for failure in ("Traceback", "Unexpected error"):
        assert failure not in log, log[max(log.index(failure) - 500, 0) :][:5000]
