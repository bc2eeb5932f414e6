"""SIGTERM under load, and an engine that dies or hangs: every client gets an answer or a well-formed error."""

import asyncio
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from running_server import Server, start_server

About = Callable[[str, str], list[dict[str, Any]]]
CLIENTS = 8


async def client(url: str, body: dict[str, Any], outcomes: Counter[str], until: asyncio.Event) -> None:
    """Ask again and again, noting how each question ended."""
    async with httpx.AsyncClient(base_url=url, timeout=60) as http:
        while not until.is_set():
            try:
                response = await http.post("/v1/chat/completions", json=body)
            except httpx.ConnectError:
                outcomes["refused"] += 1  # nobody listens any more
                return
            outcomes[outcome(response)] += 1
            await asyncio.sleep(0.02)


def outcome(response: httpx.Response) -> str:
    body = response.json()
    if response.status_code == 200:
        assert body["choices"][0]["message"]["role"] == "assistant"
        return "answered"
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert response.status_code == 503
    return str(body["error"]["code"])


async def under_load(server: Server, body: dict[str, Any], then: Callable[[], None]) -> Counter[str]:
    outcomes: Counter[str] = Counter()
    until = asyncio.Event()
    clients = [asyncio.create_task(client(server.url, body, outcomes, until)) for _ in range(CLIENTS)]
    await asyncio.sleep(3)
    then()
    await asyncio.wait(clients, timeout=60)
    until.set()
    await asyncio.gather(*clients)  # a broken answer raises here
    return outcomes


def engine_process(server: Server) -> int:
    listed = subprocess.run(
        ["pgrep", "-s", str(server.process.pid), "-f", "EngineCore"], capture_output=True, check=True
    )
    return int(listed.stdout.split()[0])


def seconds_until_unready(server: Server) -> float:
    started = time.monotonic()
    while time.monotonic() - started < 10:
        try:
            if httpx.get(f"{server.url}/ready", timeout=5).status_code == 503:
                break
        except httpx.TransportError:
            break
    return time.monotonic() - started


async def test_sigterm_lets_running_questions_finish(tmp_path: Path, about: About) -> None:
    server = start_server(tmp_path / "log", "--drain-timeout", "20")
    ready: list[int] = []

    def stop() -> None:
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.1)
        ready.append(httpx.get(f"{server.url}/ready").status_code)

    body = {"messages": about("coffee", "What?"), "max_tokens": 400, "ignore_eos": True}
    # Begun before and still running at the end: it is what the server has to finish.
    long = {"messages": about("coffee", "Tell."), "max_tokens": 1500, "ignore_eos": True, "stream": True}
    async with (
        httpx.AsyncClient(base_url=server.url, timeout=60) as http,
        http.stream("POST", "/v1/chat/completions", json=long) as running,
    ):
        events = running.aiter_lines()
        assert (await anext(events)).startswith("data: ")
        outcomes = await under_load(server, body, stop)
        rest = [event async for event in events if event.startswith("data: ")]
    assert rest[-1] == "data: [DONE]"
    assert not any('"error"' in event for event in rest)
    assert ready == [503]
    assert server.process.wait(30) == 0
    assert outcomes["answered"] >= CLIENTS
    assert outcomes["shutting_down"] > 0
    assert set(outcomes) <= {"answered", "shutting_down", "refused"}


async def test_a_killed_engine_is_told_to_every_client_and_the_process_ends(tmp_path: Path, about: About) -> None:
    server = start_server(tmp_path / "log")
    engine = engine_process(server)
    body = {"messages": about("coffee", "What?"), "max_tokens": 400, "ignore_eos": True}
    seconds: list[float] = []

    def kill() -> None:
        os.kill(engine, signal.SIGKILL)
        seconds.append(seconds_until_unready(server))

    outcomes = await under_load(server, body, kill)
    assert seconds[0] < 1
    assert server.process.wait(30) == 1
    assert outcomes["engine_dead"] >= 1
    assert set(outcomes) <= {"answered", "engine_dead", "refused"}


async def test_a_hung_engine_counts_as_dead(tmp_path: Path, about: About) -> None:
    server = start_server(tmp_path / "log", "--engine-timeout", "2")
    engine = engine_process(server)
    body = {"messages": about("coffee", "What?"), "max_tokens": 400, "ignore_eos": True}
    started = time.monotonic()
    outcomes = await under_load(server, body, lambda: os.kill(engine, signal.SIGSTOP))
    assert server.process.wait(30) == 1
    assert time.monotonic() - started < 30
    assert outcomes["engine_dead"] >= 1
    assert set(outcomes) <= {"answered", "engine_dead", "refused"}
    assert "made no step for 2 s" in server.log.read_text()
