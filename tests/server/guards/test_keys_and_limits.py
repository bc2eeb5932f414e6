"""Keys, limits, request ids and logs, and what else a flag asks for, on a server that has them all."""

import asyncio
import json
import signal
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from asking import CHAT
from hostile_images import data_url, png
from openai import AuthenticationError, OpenAI
from running_server import PATIENCE, Server, frozen_engine, start_server, wait_until

About = Callable[[str, str], list[dict[str, Any]]]
KEY, OTHER = "sk-first-key", "sk-second-key"
# No question of these tests takes so long unless the engine is held, on a busy machine either.
TIMEOUT = 60


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "keys"
    path.write_text("# ours\nsk-from-file\n\n")
    return path


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, key_file: Path) -> Iterator[Server]:
    flags = ["--api-key", KEY, "--api-key", OTHER, "--api-key-file", str(key_file)]
    limits = ["--max-questions", "2", "--max-queued", "2", "--max-questions-per-key", "3", "--timeout", str(TIMEOUT)]
    sizes = ["--max-body-bytes", "200000", "--max-image-pixels", "300000", "--log-format", "json"]
    sizes += ["--sse-keep-alive-interval", "1"]
    sizes += ["--allowed-origins", '["https://app.example"]']
    folder = tmp_path_factory.mktemp("guarded")
    running = start_server(folder / "log", *flags, *limits, *sizes, "--answers-log", str(folder / "answers"))
    yield running
    running.process.terminate()
    assert running.process.wait(PATIENCE) == 0


@pytest.fixture(scope="module")
def plain(guarded: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=guarded.url, timeout=PATIENCE) as http:
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


def test_a_websocket_does_not_get_past_the_keys(plain: httpx.Client) -> None:
    handshake = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    answer = plain.get("/v1/chat/completions", headers=handshake | {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="})
    assert answer.status_code == 401


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
    large = {"type": "image_url", "image_url": {"url": data_url(png(700, 700))}}
    body = {"messages": [{"role": "user", "content": [large, {"type": "text", "text": "What?"}]}]}
    response = plain.post("/v1/chat/completions", json=body, headers=bearer(KEY))
    assert response.status_code == 400
    assert "pixels" in response.json()["error"]["message"]


def question(about: About) -> dict[str, Any]:
    return {"messages": about("coffee", "What?"), "max_tokens": 4}


class Asker:
    """Asks one question after the other without waiting for their ends."""

    def __init__(self, http: httpx.AsyncClient, body: dict[str, Any]) -> None:
        self._http = http
        self._body = body
        self.asked: list[asyncio.Task[httpx.Response]] = []

    def ask(self, key: str, times: int) -> None:
        for _ in range(times):
            post = self._http.post("/v1/chat/completions", json=self._body, headers=bearer(key))
            self.asked.append(asyncio.create_task(post))

    async def refusals(self, number: int) -> list[dict[str, Any]]:
        """The errors of the first so many that end: while the engine is held, only refusals do."""
        ended = asyncio.as_completed(self.asked, timeout=PATIENCE)
        answers = [await next(ended) for _ in range(number)]
        self.asked = [task for task in self.asked if not task.done()]
        assert {(answer.status_code, answer.headers.get("Retry-After")) for answer in answers} == {(429, "1")}
        return [answer.json()["error"] for answer in answers]


async def test_too_many_questions_are_refused_and_one_client_leaves_room(guarded: Server, about: About) -> None:
    async with httpx.AsyncClient(base_url=guarded.url, timeout=PATIENCE) as http:
        asker = Asker(http, question(about))
        with frozen_engine(guarded):
            asker.ask(KEY, 5)
            for error in await asker.refusals(2):
                assert "all one client may" in error["message"]
                assert error["type"] == "rate_limit_error"
            # The place that is left is another's.
            asker.ask(OTHER, 2)
            (full,) = await asker.refusals(1)
            assert "all the server takes" in full["message"]
            assert len(asker.asked) == 4
        for answer in await asyncio.gather(*asker.asked):
            assert answer.status_code == 200, answer.text
            assert set(answer.json()["dualfocus"]["turns"]) == {"macro", "grounding", "micro"}


def test_a_question_that_takes_too_long_is_stopped(guarded: Server, plain: httpx.Client, about: About) -> None:
    with frozen_engine(guarded):
        answer = plain.post("/v1/chat/completions", json=question(about), headers=bearer(KEY))
        assert answer.status_code == 504
        assert answer.json()["error"]["code"] == "timeout"
        wait_until(lambda: "dualfocus_unfinished_turns 0.0" in plain.get("/metrics", headers=bearer(KEY)).text)


def vllms(about: About) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "What?"}], "max_tokens": 4}


@pytest.mark.parametrize("asked", [question, vllms], ids=["two looks", "vLLM"])
def test_a_silent_stream_has_vllms_comments_where_its_flag_asks_for_them(
    guarded: Server, plain: httpx.Client, about: About, asked: Callable[[About], dict[str, Any]]
) -> None:
    body = asked(about) | {"stream": True}
    with (
        frozen_engine(guarded),
        plain.stream("POST", "/v1/chat/completions", json=body, headers=bearer(KEY)) as response,
    ):
        comments = (line for line in response.iter_lines() if line.startswith(":"))
        assert [next(comments) for _ in range(3)] == [": keep-alive"] * 3


def test_a_request_id_is_kept_or_made(plain: httpx.Client) -> None:
    given = plain.get("/health", headers={"X-Request-Id": "abc-123"})
    assert given.headers["X-Request-Id"] == "abc-123"
    made = [plain.get("/health", headers={"X-Request-Id": bad}).headers["X-Request-Id"] for bad in ("", "x" * 200)]
    assert all(len(name) == 32 for name in made)
    assert plain.get("/nothing", headers={"X-Request-Id": "abc"}).headers["X-Request-Id"] == "abc"


def logged(server: Server) -> list[dict[str, Any]]:
    """The log's lines after the ready line and its example, all of them: each is JSON."""
    after = server.log.read_text().partition("\ncurl ")[2].partition("\n")[2].rpartition("\n")[0]
    return [json.loads(line) for line in after.splitlines() if line]


def ask(plain: httpx.Client, **body: Any) -> str:
    """Ask under the id `with_outer_middleware` and return what was answered, as text."""
    headers = bearer(KEY) | {"X-Request-Id": "traced"}
    return plain.post("/v1/chat/completions", json={"max_tokens": 16} | body, headers=headers).text


def test_logs_are_json_with_ids_and_hold_no_secret(guarded: Server, plain: httpx.Client, about: About) -> None:
    secret = about("coffee", "What is the secret word xyzzy?")
    whole = json.loads(ask(plain, messages=secret))
    streamed = ask(plain, messages=secret, stream=True)
    by_vllm = json.loads(ask(plain, messages=secret, dualfocus={"mode": "off"}))
    refused = ask(plain, messages=secret, temperature="xyzzy")
    assert "data: [DONE]" in streamed
    assert "error" in refused
    answers = [answer["choices"][0]["message"]["content"] for answer in (whole, by_vllm)]

    def mine() -> list[dict[str, Any]]:
        return [line for line in logged(guarded) if line.get("request_id") == "traced" and "path" in line]

    wait_until(lambda: len(mine()) == 4)  # a line is written once its answer is sent
    assert [(line["path"], line["status"]) for line in mine()] == [
        ("/v1/chat/completions", status) for status in (200, 200, 200, 400)
    ]
    log = guarded.log.read_text()
    for hidden in (KEY, OTHER, "sk-new", "sk-wrong", "xyzzy", *filter(None, answers)):
        assert hidden not in log


def test_answers_are_noted_unless_the_client_minds_and_the_file_can_be_rotated(
    guarded: Server, plain: httpx.Client, about: About
) -> None:
    file = guarded.log.parent / "answers"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert f"note: the answers to each question are written to {file} (--answers-log)" in guarded.log.read_text()

    def ask(client_id: str, **fields: Any) -> dict[str, Any]:
        body = {"messages": about("coffee", "What is it?"), "max_tokens": 4} | fields
        answer = plain.post(CHAT, json=body, headers=bearer(KEY) | {"X-Request-Id": client_id})
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def noted(path: Path) -> dict[str, Any]:
        lines = map(json.loads, path.read_text().splitlines())
        return {line["request_id"]: line for line in lines if str(line["request_id"]).startswith("noted-")}

    answer = ask("noted-1", dualfocus={"box": [0, 0, 0.5, 0.5]})
    ask("noted-2", store=False)
    ask("noted-3", cache_salt="mine")
    file.rename(file.with_name("old"))
    guarded.process.send_signal(signal.SIGHUP)
    wait_until(file.exists)
    ask("noted-4", store=True)
    wait_until(lambda: "noted-4" in noted(file))
    old, new = noted(file.with_name("old")), noted(file)
    assert (list(old), list(new)) == (["noted-1"], ["noted-4"])
    line, told = old["noted-1"], answer["dualfocus"]
    assert line["id"] == answer["id"]
    assert {name: line[name] for name in ("winner", "selection", "box", "macro", "micro")} == {
        name: told[name] for name in ("winner", "selection", "box", "macro", "micro")
    }
