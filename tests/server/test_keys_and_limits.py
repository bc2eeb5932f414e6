"""Keys, limits, request ids and logs, on a server that has them all."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import AuthenticationError, OpenAI
from running_server import Server, start_server

About = Callable[[str, str], list[dict[str, Any]]]
KEY, OTHER = "sk-first-key", "sk-second-key"
SLOW = {"max_tokens": 1500, "ignore_eos": True}


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "keys"
    path.write_text("# ours\nsk-from-file\n\n")
    return path


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, key_file: Path) -> Iterator[Server]:
    flags = ["--api-key", KEY, "--api-key", OTHER, "--api-key-file", str(key_file)]
    limits = ["--max-questions", "2", "--max-queued", "2", "--max-questions-per-key", "3", "--timeout", "3"]
    sizes = ["--max-body-bytes", "200000", "--max-image-pixels", "300000", "--log-format", "json"]
    sizes += ["--allowed-origins", '["https://app.example"]']
    running = start_server(tmp_path_factory.mktemp("guarded") / "log", *flags, *limits, *sizes)
    yield running
    running.process.terminate()
    assert running.process.wait(60) == 0


@pytest.fixture(scope="module")
def plain(guarded: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=guarded.url, timeout=60) as http:
        yield http


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.mark.parametrize("path", ["/health", "/ready"])
def test_probes_need_no_key(plain: httpx.Client, path: str) -> None:
    assert plain.get(path).status_code == 200


@pytest.mark.parametrize("path", ["/v1/models", "/version", "/metrics", "/openapi.json", "/nothing"])
@pytest.mark.parametrize(
    "headers", [{}, bearer("sk-wrong"), {"Authorization": "Bearer"}, {"Authorization": f"Basic {KEY}"}]
)
def test_all_else_does(plain: httpx.Client, path: str, headers: dict[str, str]) -> None:
    response = plain.get(path, headers=headers)
    assert response.status_code == 401
    assert response.json()["error"]["code"] == "invalid_api_key"
    assert response.json()["error"]["type"] == "authentication_error"


@pytest.mark.parametrize("key", [KEY, OTHER, "sk-from-file"])
def test_each_key_is_good(guarded: Server, key: str) -> None:
    assert OpenAI(base_url=f"{guarded.url}/v1", api_key=key).models.list().data


def test_the_official_client_raises_its_own_error(guarded: Server) -> None:
    with pytest.raises(AuthenticationError, match="Give a valid API key"):
        OpenAI(base_url=f"{guarded.url}/v1", api_key="sk-wrong").models.list()


def test_the_key_file_is_read_again_when_it_changes(plain: httpx.Client, key_file: Path) -> None:
    assert plain.get("/version", headers=bearer("sk-new")).status_code == 401
    key_file.write_text("sk-new\n")
    assert plain.get("/version", headers=bearer("sk-new")).status_code == 200
    assert plain.get("/version", headers=bearer("sk-from-file")).status_code == 401
    key_file.unlink()
    assert plain.get("/version", headers=bearer("sk-new")).status_code == 200


@pytest.mark.parametrize(("origin", "allowed"), [("https://app.example", True), ("https://other.example", False)])
def test_pages_of_named_origins_may_ask(plain: httpx.Client, origin: str, allowed: bool) -> None:
    wish = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization",
    }
    answer = plain.options("/v1/chat/completions", headers=wish)
    assert (answer.headers.get("Access-Control-Allow-Origin") == origin) is allowed


def test_a_large_body_is_refused_while_it_is_read(plain: httpx.Client) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(300):
            yield b" " * 1000

    for content in (b" " * 200_001, chunks()):
        response = plain.post("/v1/chat/completions", content=content, headers=bearer(KEY))
        assert response.status_code == 413
        assert response.json()["error"]["code"] == "body_too_large"


def test_a_large_image_is_refused_by_its_header(plain: httpx.Client, about: About) -> None:
    body = {"messages": about("rocket", "What?"), "max_tokens": 2}  # 640x427
    assert plain.post("/v1/chat/completions", json=body, headers=bearer(KEY)).status_code == 200
    body = {"messages": about("retina", "What?"), "max_tokens": 2}  # 1411x1411
    response = plain.post("/v1/chat/completions", json=body, headers=bearer(KEY))
    assert response.status_code in (400, 413)


async def burst(url: str, bodies: list[tuple[str, dict[str, Any]]]) -> list[httpx.Response]:
    async with httpx.AsyncClient(base_url=url, timeout=60) as http:
        posts = [http.post("/v1/chat/completions", json=body, headers=bearer(key)) for key, body in bodies]
        return list(await asyncio.gather(*posts))


async def test_too_many_questions_are_refused_and_one_client_leaves_room(guarded: Server, about: About) -> None:
    short = {"messages": about("coffee", "What?"), "max_tokens": 80, "ignore_eos": True}
    answers = await burst(guarded.url, [(KEY, short)] * 5 + [(OTHER, short)])
    assert sorted(answer.status_code for answer in answers[:5]) == [200, 200, 200, 429, 429]
    assert answers[5].status_code == 200
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert refused.headers["Retry-After"] == "1"
    assert "all one client may" in refused.json()["error"]["message"]
    assert refused.json()["error"]["type"] == "rate_limit_error"
    for answer in answers:
        if answer.status_code == 200:
            assert set(answer.json()["dualfocus"]["turns"]) == {"macro", "grounding", "micro"}


async def test_a_full_queue_is_said(guarded: Server, about: About) -> None:
    short = {"messages": about("coffee", "What?"), "max_tokens": 80, "ignore_eos": True}
    answers = await burst(guarded.url, [(KEY, short)] * 3 + [(OTHER, short)] * 3)
    refused = [answer.json()["error"]["message"] for answer in answers if answer.status_code == 429]
    assert any("all the server takes" in message for message in refused)


async def test_a_question_that_takes_too_long_is_stopped(guarded: Server, about: About) -> None:
    started = time.monotonic()
    (answer,) = await burst(guarded.url, [(KEY, {"messages": about("coffee", "Tell."), **SLOW})])
    if answer.status_code == 200:
        pytest.fail(f"the question ended within {time.monotonic() - started:.1f} s, before the limit of 3 s")
    assert answer.status_code == 504
    assert answer.json()["error"]["code"] == "timeout"
    async with httpx.AsyncClient(base_url=guarded.url) as http:
        metrics = (await http.get("/metrics", headers=bearer(KEY))).text
    assert "dualfocus_unfinished_turns 0.0" in metrics


def test_a_request_id_is_kept_or_made(plain: httpx.Client) -> None:
    given = plain.get("/health", headers={"X-Request-Id": "abc-123"})
    assert given.headers["X-Request-Id"] == "abc-123"
    made = [plain.get("/health", headers={"X-Request-Id": bad}).headers["X-Request-Id"] for bad in ("", "x" * 200)]
    assert all(len(name) == 32 for name in made)
    assert plain.get("/nothing", headers={"X-Request-Id": "abc"}).headers["X-Request-Id"] == "abc"


def test_logs_are_json_with_ids_and_hold_no_secret(guarded: Server, plain: httpx.Client, about: About) -> None:
    secret = "What is the secret word xyzzy?"
    body = {"messages": about("coffee", secret), "max_tokens": 4}
    answer = plain.post("/v1/chat/completions", json=body, headers=bearer(KEY) | {"X-Request-Id": "traced"}).json()
    log = guarded.log.read_text()
    lines = [json.loads(line) for line in log.partition("DualFocus is ready")[2].splitlines() if line.startswith("{")]
    mine = [line for line in lines if line["request_id"] == "traced"]
    assert [(line["path"], line["status"]) for line in mine if "path" in line] == [("/v1/chat/completions", 200)]
    for hidden in (KEY, OTHER, "sk-new", "xyzzy", answer["choices"][0]["message"]["content"]):
        assert hidden not in log
