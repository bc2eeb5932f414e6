"""SIGTERM under load, and an engine that dies or hangs: every client gets an answer or a well-formed error."""

import asyncio
import itertools
import json
import os
import re
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from asking import SOON
from running_server import (
    PATIENCE,
    Server,
    engine_process,
    frozen_engine,
    launch,
    start_server,
    wait_until,
    wait_until_all_ended,
)

About = Callable[[str, str], list[dict[str, Any]]]
CLIENTS = 8
STREAM = ({}, {"stream": True})


async def client(url: str, body: dict[str, Any], outcomes: Counter[str], until: asyncio.Event) -> None:
    """Ask again and again, noting how each question ended."""
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE) as http:
        while not until.is_set():
            try:
                ended = outcome(await http.post("/v1/chat/completions", json=body))
            except (httpx.ConnectError, httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError) as error:
                # Nobody listens any more; a question that was cut off while it was answered is no such case.
                outcomes["cut off" if "incomplete" in str(error) else "refused"] += 1
                return
            outcomes[ended] += 1
            await asyncio.sleep(0.02)


def outcome(response: httpx.Response) -> str:
    """How a question ended: its answer is whole, or its error is well formed."""
    if response.headers["Content-Type"].startswith("text/event-stream"):
        return outcome_of_stream([line for line in response.text.splitlines() if line.startswith("data: ")])
    body = response.json()
    if response.status_code == 200:
        assert body["choices"][0]["message"]["role"] == "assistant"
        return "answered"
    assert response.status_code == 503
    if body["error"]["code"] == "shutting_down":
        assert response.headers["Retry-After"] == "5"
    return code_of(body)


def outcome_of_stream(events: list[str]) -> str:
    assert events[-1] == "data: [DONE]"
    told = [json.loads(event.removeprefix("data: ")) for event in events[:-1]]
    errors = [event for event in told if "error" in event]
    return code_of(errors[0]) if errors else "answered"


def code_of(body: dict[str, Any]) -> str:
    assert set(body["error"]) == {"message", "type", "param", "code"}
    return str(body["error"]["code"])


def questions(about: About) -> list[dict[str, Any]]:
    """Every kind of question: by two looks and by vLLM, whole and streamed."""
    text = [{"role": "user", "content": "What?"}]
    bodies = [{"messages": messages} | stream for messages in (about("coffee", "What?"), text) for stream in STREAM]
    return [{"max_tokens": 100, "ignore_eos": True} | body for body in bodies]


async def under_load(server: Server, bodies: list[dict[str, Any]], then: Callable[[], Any]) -> list[Counter[str]]:
    """Let clients ask, do something once enough was answered, wait for all to end, and return each one's outcomes."""
    outcomes: list[Counter[str]] = [Counter() for _ in range(CLIENTS)]
    until = asyncio.Event()
    asked = zip(itertools.cycle(bodies), outcomes, strict=False)
    clients = [asyncio.create_task(client(server.url, body, counter, until)) for body, counter in asked]
    try:
        await come_true(lambda: total(outcomes)["answered"] >= CLIENTS)
        await asyncio.to_thread(then)
        await asyncio.wait(clients, timeout=PATIENCE)
    finally:
        until.set()
        await asyncio.gather(*clients)  # a broken answer raises here
    return outcomes


def total(outcomes: list[Counter[str]]) -> Counter[str]:
    return sum(outcomes, Counter())


async def come_true(condition: Callable[[], bool]) -> None:
    """Wait, without holding the clients, for something that is sure to come true."""
    await asyncio.to_thread(wait_until, condition)


def runs_two_turns(server: Server) -> bool:
    return "dualfocus_unfinished_turns 2.0" in httpx.get(f"{server.url}/metrics", timeout=PATIENCE).text


@dataclass
class Unready:
    """How often a probe was told that all is well, and what it is told then."""

    told_ready: int = 0
    error: dict[str, Any] = field(default_factory=dict)  # nothing where nobody listens


def until_unready(server: Server, cause: Callable[[], None]) -> Unready:
    """Do what makes a server unready, and probe until it is."""
    with httpx.Client(base_url=server.url, timeout=PATIENCE) as probe:
        probe.get("/health")
        cause()
        until = time.monotonic() + PATIENCE
        for told_ready in itertools.count():
            answer = _probed(probe)
            if answer is None or answer.status_code == 503:
                return Unready(told_ready, answer.json()["error"] if answer else {})
            assert time.monotonic() < until, "it stays ready"
            time.sleep(0.02)
    raise AssertionError("unreachable")


def _probed(probe: httpx.Client) -> httpx.Response | None:
    try:
        return probe.get("/ready")
    except httpx.TransportError:
        return None


@pytest.mark.parametrize(
    ("send", "number"), [(os.kill, signal.SIGTERM), (os.killpg, signal.SIGINT), (os.killpg, signal.SIGTERM)]
)
async def test_running_questions_finish_where_it_is_told_to_stop(
    tmp_path: Path, about: About, send: Callable[[int, int], None], number: signal.Signals
) -> None:
    """A container tells the server; a terminal, by Ctrl-C, and most supervisors tell its engine too."""
    server = start_server(tmp_path / "log", "--drain-timeout", str(PATIENCE))
    ready: list[Unready] = []

    def stop() -> None:
        ready.append(until_unready(server, lambda: send(server.process.pid, number)))

    # Begun before and still running at the end: it is what the server has to finish.
    long = {"messages": about("coffee", "Tell."), "max_tokens": 1000, "ignore_eos": True, "stream": True}
    async with (
        httpx.AsyncClient(base_url=server.url, timeout=PATIENCE) as http,
        http.stream("POST", "/v1/chat/completions", json=long) as running,
    ):
        events = running.aiter_lines()
        assert (await anext(events)).startswith("data: ")
        outcomes = total(await under_load(server, questions(about), stop))
        rest = [event async for event in events if event.startswith("data: ")]
    assert outcome_of_stream(rest) == "answered"
    assert ready[0].error["code"] == "shutting_down"
    assert server.process.wait(PATIENCE) == 0
    assert outcomes["answered"] >= CLIENTS
    assert set(outcomes) <= {"answered", "shutting_down", "refused"}


@pytest.mark.parametrize(
    ("stage", "number"),
    [("Loading", signal.SIGTERM), ("Warming up", signal.SIGTERM), ("Loading", signal.SIGINT)],
)
def test_a_signal_ends_a_server_that_is_not_ready_yet(tmp_path: Path, stage: str, number: signal.Signals) -> None:
    """In a container it is the first process, which no signal reaches that it has no handler for."""
    process = launch(tmp_path / "log")
    wait_until(lambda: stage in (tmp_path / "log").read_text())
    assert signals_caught(process.pid) & 1 << (number - 1)
    process.send_signal(number)
    assert process.wait(PATIENCE) == 128 + number
    assert "Traceback" not in (tmp_path / "log").read_text()
    wait_until_all_ended(process.pid)


def signals_caught(process: int) -> int:
    """The signals that a process has handlers for, a bit for each."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("SigCgt")).split()[1], 16)


async def test_a_refused_question_is_told_to_come_again(tmp_path: Path, about: About) -> None:
    server = start_server(tmp_path / "log", "--drain-timeout", str(PATIENCE))
    body = questions(about)[0]
    async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE) as http:
        with frozen_engine(server):  # so that the server still drains
            running = asyncio.create_task(http.post("/v1/chat/completions", json=body))
            await come_true(lambda: runs_two_turns(server))
            unready = await asyncio.to_thread(until_unready, server, lambda: server.process.send_signal(signal.SIGTERM))
            assert unready.error["code"] == "shutting_down"
            refused = await http.post("/v1/chat/completions", json=body)
            assert outcome(refused) == "shutting_down"
            assert refused.headers["Connection"] == "close"
            assert not running.done()
        assert outcome(await running) == "answered"
    assert server.process.wait(PATIENCE) == 0


def has_ended(process: int) -> bool:
    """Whether a process is no more, or nothing but its exit status is left of it."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


async def test_a_killed_engine_is_told_to_every_client_and_the_process_ends(tmp_path: Path, about: About) -> None:
    server = start_server(tmp_path / "log")
    engine = engine_process(server)
    told: list[Unready] = []

    def end_engine() -> None:
        os.kill(engine, signal.SIGKILL)
        wait_until(lambda: has_ended(engine))

    outcomes = total(await under_load(server, questions(about), lambda: told.append(until_unready(server, end_engine))))
    assert told[0].told_ready <= SOON
    assert told[0].error.get("code", "engine_dead") == "engine_dead"
    assert server.process.wait(PATIENCE) == 1
    assert outcomes["engine_dead"] >= 1
    assert set(outcomes) <= {"answered", "engine_dead", "refused"}


async def test_a_hung_engine_is_told_to_every_client_also_to_those_that_wait(tmp_path: Path, about: About) -> None:
    server = start_server(tmp_path / "log", "--engine-timeout", "20", "--max-questions", "2")
    engine = engine_process(server)
    outcomes = await under_load(server, questions(about), lambda: os.kill(engine, signal.SIGSTOP))
    assert server.process.wait(PATIENCE) == 1
    assert all(each["engine_dead"] for each in outcomes), "the question that waits is answered, too"
    assert set(total(outcomes)) <= {"answered", "engine_dead", "refused"}
    assert re.search(r"made no step for \d+ s", server.log.read_text())
