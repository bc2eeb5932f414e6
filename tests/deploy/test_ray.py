"""Ray Serve on a cluster of its own: two replicas of the model that ships, and the end of one."""

import asyncio
import hashlib
import io
import json
import os
import socket
import sys
from base64 import b64encode
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from typing import Any, cast

import httpx
import psutil
import pytest
from PIL import Image

# Read when Ray is imported. A busy machine starts and answers slowly, and nothing is to be reported anywhere.
os.environ |= {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "300",
    "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "300",
    "RAY_worker_register_timeout_seconds": "300",
    "RAY_raylet_start_wait_time_s": "300",
    "RAY_memory_monitor_refresh_ms": "0",
    "RAY_worker_niceness": "0",
    "RAY_enable_metrics_collection": "0",
}
import dualfocus_ray
import ray
from dualfocus_ray import REPLICA_HEADER, Entrance, Options, picture_key
from ray import serve
from starlette.applications import Starlette
from starlette.routing import Route

CHAT = "/v1/chat/completions"
PATIENCE = 300.0
PICTURES, QUESTIONS = 8, 40
SMALL = "--kv-cache-memory-bytes 268435456 --max-num-seqs 32"


def picture(number: int) -> str:
    """A picture like no other, as a data: URL."""
    file = io.BytesIO()
    Image.new("RGB", (96, 96), (number, 90, 160)).save(file, "PNG")
    return f"data:image/png;base64,{b64encode(file.getvalue()).decode()}"


def question(number: int, text: str = "What is it?", **more: Any) -> dict[str, Any]:
    content = [{"type": "image_url", "image_url": {"url": picture(number)}}, {"type": "text", "text": text}]
    return {"messages": [{"role": "user", "content": content}], "max_tokens": 16, **more}


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": picture(1)}},
        {"type": "input_image", "image_url": picture(1)},
        {"image_url": {"url": picture(1), "detail": "low"}},
    ],
)
def test_a_picture_has_one_key_however_it_is_written(part: dict[str, Any]) -> None:
    later = [{"role": "assistant", "content": None}, {"role": "user", "content": [part, "and", {"image_url": "other"}]}]
    body = json.dumps({"messages": [{"role": "system", "content": "Be brief."}, *later]}).encode()
    assert picture_key(body) == picture_key(json.dumps(question(1)).encode()) != ""
    assert picture_key(body) != picture_key(json.dumps(question(2)).encode())


@pytest.mark.parametrize(
    ("conversation", "part"),
    [
        ("input", {"type": "input_image", "image_url": "https://a.example/1.png"}),
        ("messages", {"type": "image", "source": {"type": "url", "url": "https://a.example/1.png"}}),
        ("messages", {"type": "image", "source": {"type": "base64", "data": "https://a.example/1.png"}}),
        ("messages", {"type": "image_url", "image_url": None, "uuid": "https://a.example/1.png"}),
        ("messages", {"type": "image_url", "image_url": {"url": "other"}, "uuid": "https://a.example/1.png"}),
    ],
)
def test_every_api_and_a_picture_named_before_have_keys(conversation: str, part: dict[str, Any]) -> None:
    body = json.dumps({conversation: [{"role": "user", "content": ["Look:", part]}]}).encode()
    assert picture_key(body) == hashlib.sha256(b"https://a.example/1.png").hexdigest()


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"input": "Hello"}', b'{"messages": [{"content": "Hello"}]}', b'{"messages": "Hello"}']
)
def test_what_shows_no_picture_has_no_key(body: bytes) -> None:
    assert picture_key(body) == ""


class Replicas:
    """In the place of Ray's handle: every replica answers alike."""

    def __init__(self, answer: bytes | Exception) -> None:
        self.answer, self.asked = SimpleNamespace(remote=self._answer), 0
        self._given = answer

    def options(self, **options: Any) -> "Replicas":
        return self

    async def _answer(self, asked: dualfocus_ray.Asked) -> AsyncIterator[Any]:
        self.asked += 1
        if isinstance(self._given, Exception):
            raise self._given
        yield dualfocus_ray.Head(503, [("content-type", "application/json")])
        yield self._given


def _refusal(code: str) -> bytes:
    return json.dumps({"error": {"message": "No.", "code": code}}).encode()


@pytest.mark.parametrize(
    ("answer", "times", "code"),
    [
        (dualfocus_ray.ServerLost(), 3, "replica_lost"),
        (_refusal("engine_dead"), 3, "engine_dead"),
        (_refusal("shutting_down"), 30, "shutting_down"),
        (b"no JSON", 30, None),
    ],
)
async def test_what_may_end_a_replica_is_not_handed_on_to_all_of_them(
    answer: bytes | Exception, times: int, code: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dualfocus_ray, "_PAUSE", 0.0)
    replicas = Replicas(answer)
    entrance = Entrance(cast("Any", replicas), 1 << 20)
    app = Starlette(routes=[Route("/{path:path}", entrance.__call__, methods=["POST"])])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://entrance") as http:
        answered = await http.post(CHAT, json=question(1))
    assert (replicas.asked, answered.status_code) == (times, 503)
    assert code is None or answered.json()["error"]["code"] == code


@pytest.fixture(scope="module")
def path() -> Iterator[None]:
    """Let Ray's processes import what this one can: the application, by its name."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        yield


@pytest.fixture(scope="module")
def cluster(path: None) -> Iterator[str]:
    """A cluster that serves the model that ships by two replicas; its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ray.init(
        address="local", num_cpus=2, include_dashboard=False, object_store_memory=80 << 20, _node_ip_address="127.0.0.1"
    )
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        serve.run(dualfocus_ray.build(Options(flags=SMALL, gpus=0, cpus=1)), name="dualfocus")
        yield f"http://127.0.0.1:{port}"
    finally:
        engines = [each for each in psutil.Process().children(recursive=True) if "EngineCore" in command_line(each)]
        serve.shutdown()
        ray.shutdown()
        _, left = psutil.wait_procs(engines, PATIENCE)
        assert (len(engines), left) == (2, []), "one that is left behind would keep its GPU"


@pytest.fixture
async def http(cluster: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=cluster, timeout=PATIENCE) as client:
        yield client


async def replica_of(http: httpx.AsyncClient, number: int) -> str:
    answer = await http.post(CHAT, json=question(number, dualfocus={"mode": "macro"}))
    assert answer.status_code == 200, answer.text
    return answer.headers[REPLICA_HEADER]


async def by_replica(http: httpx.AsyncClient) -> dict[str, list[int]]:
    """Eight pictures, four of each replica."""
    found: dict[str, list[int]] = defaultdict(list)
    for number in range(64):
        found[await replica_of(http, number)].append(number)
        if sorted(map(len, found.values()))[-2:-1] >= [PICTURES // 2]:
            return {name: numbers[: PICTURES // 2] for name, numbers in found.items()}
    raise AssertionError(f"64 pictures are not four for each of two replicas: {found}")


def command_line(process: psutil.Process) -> str:
    """How it was started; nothing for one that ended meanwhile."""
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


def a_replica() -> tuple[psutil.Process, list[psutil.Process]]:
    """Return a replica, and what it had started: its server and that one's engine."""
    processes = psutil.Process().children(recursive=True)
    replicas = [process for process in processes if "ServeReplica:dualfocus:Replica" in command_line(process)]
    assert len(replicas) == 2
    started = replicas[0].children(recursive=True)
    assert started
    return replicas[0], started


def has_ended(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


async def all_ended(processes: list[psutil.Process]) -> None:
    """Wait until none runs any more: a server without a replica would keep its GPU."""
    async with asyncio.timeout(PATIENCE):
        while not all(map(has_ended, processes)):  # noqa: ASYNC110 (it is no event)
            await asyncio.sleep(0.05)


async def test_status_and_headers_are_the_servers(http: httpx.AsyncClient) -> None:
    told: dict[str, str | bytes] = {"x-request-id": "of-mine", "x-user": "Müller".encode()}
    refused = await http.post(CHAT, json=question(1, model="nothing"), headers=httpx.Headers(told))
    assert (refused.status_code, refused.json()["error"]["type"]) == (404, "not_found_error")
    assert refused.headers.get_list("x-request-id") == ["of-mine"]
    assert refused.headers[REPLICA_HEADER]
    models = await http.get("/v1/models")
    assert models.json()["data"][0]["id"]


async def test_a_client_that_leaves_ends_its_question(http: httpx.AsyncClient) -> None:
    name = await replica_of(http, 1)
    body = question(1, max_tokens=1900, ignore_eos=True, dualfocus={"mode": "macro"})
    asking = asyncio.create_task(http.post(CHAT, json=body))
    await measured(http, name, "dualfocus_questions_running 1.0")
    asking.cancel()
    await measured(http, name, 'dualfocus_questions_total{outcome="client_left"} 1.0')


async def measured(http: httpx.AsyncClient, name: str, line: str) -> None:
    """Wait until a replica's metrics hold a line; any replica answers, and some time the one that is meant."""
    async with asyncio.timeout(PATIENCE):
        while True:
            metrics = await http.get("/metrics")
            if metrics.headers[REPLICA_HEADER] == name and line in metrics.text.splitlines():
                return
            await asyncio.sleep(0.05)


async def test_one_replica_a_picture_and_nothing_lost_with_one(http: httpx.AsyncClient) -> None:
    pictures = await by_replica(http)
    home = {number: name for name, numbers in pictures.items() for number in numbers}
    assert len(home) == PICTURES
    answered: list[tuple[int, httpx.Response]] = []
    places = asyncio.Semaphore(PICTURES)

    async def ask(number: int, text: str) -> None:
        async with places:
            answered.append((number, await http.post(CHAT, json=question(number, text))))

    texts = [f"What is it, in {words} words?" for words in range(QUESTIONS // PICTURES)]
    asking = [asyncio.create_task(ask(number, text)) for text in texts for number in home]
    long = [question(numbers[0], max_tokens=900, ignore_eos=True) for numbers in pictures.values()]
    waiting = [asyncio.create_task(http.post(CHAT, json=body)) for body in long]
    streams = [asyncio.create_task(last_events(http, body | {"stream": True})) for body in long]
    async with asyncio.timeout(PATIENCE):
        while len(answered) < QUESTIONS // 4:  # noqa: ASYNC110 (it is no event)
            await asyncio.sleep(0.01)
    before = list(answered)
    replica, left_behind = a_replica()
    replica.kill()
    await asyncio.gather(*asking)

    assert [response.status_code for _, response in answered] == [200] * QUESTIONS
    assert {number: response.headers[REPLICA_HEADER] for number, response in before}.items() <= home.items()
    assert [response.status_code for response in await asyncio.gather(*waiting)] == [200, 200]
    lost = [name for name, events in zip(pictures, await asyncio.gather(*streams), strict=True) if "lost" in events]
    assert len(lost) == 1, "one replica's stream ends with an error, the other's with its answer"
    (survivor,) = set(pictures) - set(lost)
    moved = {response.headers[REPLICA_HEADER] for number, response in answered if home[number] == lost[0]}
    assert survivor in moved
    await replaced(http, set(pictures))
    await all_ended(left_behind)
    assert [await replica_of(http, number) for number in home] == [await replica_of(http, number) for number in home]


async def test_a_server_that_is_killed_leaves_nothing_behind_and_is_replaced(http: httpx.AsyncClient) -> None:
    known = {await replica_of(http, number) for number in range(16)}
    replica, (shell, *started) = a_replica()
    server = next(each for each in started if each.ppid() == shell.pid)
    assert len(started) > 1, "the engine has a process of its own"
    server.kill()
    await all_ended([replica, shell, *started])
    await replaced(http, known)


async def last_events(http: httpx.AsyncClient, body: dict[str, Any]) -> str:
    async with http.stream("POST", CHAT, json=body) as response:
        assert response.status_code == 200
        events = [line async for line in response.aiter_lines() if line]
    assert events[-1] == "data: [DONE]"
    return "lost" if "replica_lost" in events[-2] else events[-2]


async def replaced(http: httpx.AsyncClient, known: set[str]) -> None:
    """Wait until a replica answers that was not there."""
    async with asyncio.timeout(PATIENCE):
        while not {await replica_of(http, number) for number in range(16)} - known:  # noqa: ASYNC110 (it is no event)
            await asyncio.sleep(0.5)
