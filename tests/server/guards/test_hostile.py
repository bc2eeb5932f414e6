"""Hostile images and URLs, sent to one server: each is answered or refused, and nothing else comes of it."""

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from asking import MODEL
from dualfocus_engine import BadPicture
from dualfocus_server.images.hosts import HostRules
from dualfocus_server.images.image_fetcher import ImageFetcher
from hostile_images import HOSTILE_IMAGES, HostileImage, data_url, png
from hostile_urls import CARRIERS, HOSTILE_URLS, REDIRECTS, Carrier, HostileUrl
from running_server import PATIENCE, Server, settles, start_server

MODES = ("dual", "off")
# Besides on chat completions: where an image can come to the server too.
ROUTES = ("/v1/chat/completions/batch", "/invocations")
LONGEST_MESSAGE = 2_000
FLAGS = ("--max-model-len", "512", "--max-image-pixels", "50000000", "--image-timeout", str(PATIENCE))
ERROR_FIELDS = {"message", "type", "param", "code"}

SURROGATE = "unpaired surrogate"


class Canary:
    """A web server on every address of this machine that counts who came, and sends a picture or a redirect."""

    def __init__(self, location: str | None = None) -> None:
        family, host = (socket.AF_INET6, "::") if socket.has_dualstack_ipv6() else (socket.AF_INET, "0.0.0.0")
        self._listener = socket.create_server((host, 0), family=family, dualstack_ipv6=family == socket.AF_INET6)
        self.port: int = self._listener.getsockname()[1]
        self.location = location
        self.visits = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                visitor, _ = self._listener.accept()
            except OSError:  # closed
                return
            self.visits += 1
            with visitor, contextlib.suppress(OSError):  # who comes and goes is counted all the same
                visitor.settimeout(PATIENCE)
                visitor.recv(65_536)
                visitor.sendall(self._answer())

    def _answer(self) -> bytes:
        if self.location is not None:
            return f"HTTP/1.1 302 Found\r\nLocation: {self.location}\r\nContent-Length: 0\r\n\r\n".encode()
        picture = png(4, 4)
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(picture) + picture

    def close(self) -> None:
        """Stop listening."""
        self._listener.close()


@pytest.fixture(scope="module")
def exposed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that may fetch from any host."""
    log = tmp_path_factory.mktemp("exposed") / "log"
    running = start_server(log, *FLAGS, "--allowed-media-domains", "*", on_path=Path(__file__).parent / "no_names")
    yield running
    running.process.terminate()
    assert running.process.wait(PATIENCE) == 0


@pytest.fixture(scope="module")
def web(exposed: Server) -> Iterator[httpx.Client]:
    """A plain client of it."""
    with httpx.Client(base_url=exposed.url, timeout=PATIENCE) as http:
        yield http


@pytest.fixture(scope="module")
def canary() -> Iterator[Canary]:
    """What the server must never reach."""
    made = Canary()
    yield made
    made.close()


def ask(web: httpx.Client, content: Any, mode: str, **fields: Any) -> httpx.Response:
    """Send one question in a mode, or to another route; lone surrogates and NULs go as JSON escapes them."""
    route = mode if mode in ROUTES else "/v1/chat/completions"
    focus = {} if mode in ROUTES else {"dualfocus": {"mode": mode}}
    body: dict[str, Any] = {"messages": [{"role": "user", "content": content}], "max_tokens": 4, **focus} | fields
    if route.endswith("/batch"):
        body["messages"] = [[{"role": "user", "content": "What?"}], body["messages"]]
    headers = {"Content-Type": "application/json"}
    return web.post(route, content=json.dumps(body).encode(), headers=headers)


def tokenize(web: httpx.Client, content: Any) -> httpx.Response:
    """Have the same question tokenized."""
    body = {"messages": [{"role": "user", "content": content}]}
    return web.post("/tokenize", content=json.dumps(body).encode(), headers={"Content-Type": "application/json"})


def ask_by_messages(web: httpx.Client, url: str, mode: str, path: str = "/v1/messages") -> httpx.Response:
    """Send one as Anthropic's clients do: a data: URL of base64 as such, anything else as a URL."""
    head, _, data = url.partition(";base64,")
    source = {"type": "url", "url": url}
    if head.startswith("data:"):
        source = {"type": "base64", "media_type": head.removeprefix("data:"), "data": data}
    content = [{"type": "image", "source": source}, {"type": "text", "text": "What is it?"}]
    body = {"model": MODEL, "messages": [{"role": "user", "content": content}], "dualfocus": {"mode": mode}}
    headers = {"Content-Type": "application/json"}
    return web.post(path, content=json.dumps(body | {"max_tokens": 4}).encode(), headers=headers)


def ask_by_responses(web: httpx.Client, url: str, mode: str, *, by_tool: bool = False) -> httpx.Response:
    """Send one as OpenAI's clients send responses: in a message, or in what a tool gave, which is vLLM's to answer."""
    content = [{"type": "input_image", "image_url": url}, {"type": "input_text", "text": "What is it?"}]
    output = {"type": "function_call_output", "call_id": "c", "output": content}
    item = output if by_tool else {"role": "user", "content": content}
    body = {"model": MODEL, "input": [item], "max_output_tokens": 4, "dualfocus": {"mode": mode}}
    headers = {"Content-Type": "application/json"}
    return web.post("/v1/responses", content=json.dumps(body).encode(), headers=headers)


def message_of(response: httpx.Response) -> str:
    """The message of a refusal in Anthropic's shape."""
    body = response.json()
    assert (set(body), body["type"], set(body["error"])) == ({"type", "error"}, "error", {"type", "message"})
    assert 0 < len(body["error"]["message"]) <= LONGEST_MESSAGE
    return str(body["error"]["message"])


def about(url: str) -> list[dict[str, Any]]:
    """An image and a question."""
    return [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "What is it?"}]


def error_of(response: httpx.Response) -> dict[str, Any]:
    """The error of a refusal, in OpenAI's shape."""
    body = response.json()
    assert set(body) == {"error"}, body
    error: dict[str, Any] = body["error"]
    assert set(error) == ERROR_FIELDS, error
    assert error["type"] in ("invalid_request_error", "not_found_error"), error
    assert 0 < len(error["message"]) <= LONGEST_MESSAGE, error["message"][:200]
    return error


def check_answers(web: httpx.Client) -> None:
    """Ask a normal question, as anyone would."""
    for mode in MODES:
        answer = ask(web, about(data_url(png(16, 16))), mode)
        assert answer.status_code == 200, answer.text
        assert answer.json()["choices"][0]["message"]["role"] == "assistant"


def test_the_tables_are_as_large_as_promised() -> None:
    for table in (HOSTILE_IMAGES, HOSTILE_URLS):
        assert len(table) >= 60
        assert len({entry.name for entry in table}) == len(table)


def names_the_image(error: dict[str, Any]) -> bool:
    """Whether an error says that it is about the image, or about text that is no text."""
    return error["code"] in ("invalid_image", "body_too_large") or SURROGATE in error["message"]


@pytest.mark.parametrize("mode", [*MODES, *(pytest.param(route, marks=pytest.mark.slow) for route in ROUTES)])
@pytest.mark.parametrize("image", HOSTILE_IMAGES, ids=lambda image: image.name)
def test_hostile_images(web: httpx.Client, image: HostileImage, mode: str) -> None:
    answer = ask(web, about(image.url()), mode)
    assert answer.status_code in image.accepted, answer.text
    if answer.status_code != 200:
        assert names_the_image(error_of(answer))


@pytest.mark.parametrize("image", HOSTILE_IMAGES, ids=lambda image: image.name)
def test_hostile_images_that_are_tokenized(web: httpx.Client, image: HostileImage) -> None:
    answer = tokenize(web, about(image.url()))
    assert answer.status_code in image.accepted, answer.text
    if answer.status_code != 200:
        assert names_the_image(error_of(answer))


@pytest.mark.slow
@pytest.mark.parametrize("way", [*MODES, "count_tokens"])
@pytest.mark.parametrize("image", HOSTILE_IMAGES, ids=lambda image: image.name)
def test_hostile_images_by_messages(web: httpx.Client, image: HostileImage, way: str) -> None:
    path = "/v1/messages/count_tokens" if way == "count_tokens" else "/v1/messages"
    answer = ask_by_messages(web, image.url(), "dual" if way == "count_tokens" else way, path)
    assert answer.status_code in image.accepted, answer.text
    if answer.status_code != 200:
        message_of(answer)


@pytest.mark.slow
@pytest.mark.parametrize("way", [*MODES, "tool"])
@pytest.mark.parametrize("image", HOSTILE_IMAGES, ids=lambda image: image.name)
def test_hostile_images_by_responses(web: httpx.Client, image: HostileImage, way: str) -> None:
    answer = ask_by_responses(web, image.url(), "dual" if way == "tool" else way, by_tool=way == "tool")
    assert answer.status_code in image.accepted, answer.text
    if answer.status_code != 200:
        assert names_the_image(error_of(answer))


def test_questions_are_answered_after_all_images(web: httpx.Client) -> None:
    check_answers(web)


@pytest.mark.parametrize("mode", [*MODES, *ROUTES])
@pytest.mark.parametrize("url", HOSTILE_URLS, ids=lambda url: url.name)
def test_hostile_urls(web: httpx.Client, canary: Canary, url: HostileUrl, mode: str) -> None:
    before = canary.visits
    answer = ask(web, about(url.at(canary.port)), mode)
    assert canary.visits == before
    assert answer.status_code == 400, answer.text
    error = error_of(answer)
    assert names_the_image(error)
    assert url.why.search(error["message"]), error["message"]


@pytest.mark.parametrize("url", HOSTILE_URLS, ids=lambda url: url.name)
def test_hostile_urls_that_are_tokenized(web: httpx.Client, canary: Canary, url: HostileUrl) -> None:
    before = canary.visits
    answer = tokenize(web, about(url.at(canary.port)))
    assert canary.visits == before
    assert answer.status_code == 400, answer.text
    assert url.why.search(error_of(answer)["message"])


@pytest.mark.parametrize("url", HOSTILE_URLS, ids=lambda url: url.name)
def test_hostile_urls_by_messages(web: httpx.Client, canary: Canary, url: HostileUrl) -> None:
    before = canary.visits
    answer = ask_by_messages(web, url.at(canary.port), "dual")
    assert canary.visits == before
    assert answer.status_code == 400, answer.text
    assert url.why.search(message_of(answer)), answer.text


@pytest.mark.parametrize("way", [*MODES, "tool"])
@pytest.mark.parametrize("url", HOSTILE_URLS, ids=lambda url: url.name)
def test_hostile_urls_by_responses(web: httpx.Client, canary: Canary, url: HostileUrl, way: str) -> None:
    before = canary.visits
    answer = ask_by_responses(web, url.at(canary.port), "dual" if way == "tool" else way, by_tool=way == "tool")
    assert canary.visits == before
    assert answer.status_code == 400, answer.text
    assert url.why.search(error_of(answer)["message"]), answer.text


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("carrier", CARRIERS, ids=lambda carrier: carrier.name)
def test_no_part_of_a_response_is_fetched(web: httpx.Client, canary: Canary, carrier: Carrier, mode: str) -> None:
    """What a chat completion's carriers are among a request for a response."""
    fields = dict(carrier.at(f"http://127.0.0.1:{canary.port}/a.png"))
    asked = fields.pop("messages", "What?")
    body = {"model": MODEL, "input": asked, "max_output_tokens": 4, "dualfocus": {"mode": mode}} | fields
    answer = web.post("/v1/responses", json=body)
    assert answer.status_code in (200, 400, 404), answer.text
    assert canary.visits == 0


@pytest.mark.parametrize("mode", [*MODES, *ROUTES])
@pytest.mark.parametrize("carrier", CARRIERS, ids=lambda carrier: carrier.name)
def test_no_part_of_a_request_is_fetched(web: httpx.Client, canary: Canary, carrier: Carrier, mode: str) -> None:
    fields = carrier.at(f"http://127.0.0.1:{canary.port}/a.png")
    answer = ask(web, "What?", mode, **fields)
    assert answer.status_code in carrier.accepted, answer.text
    if answer.status_code != 200:
        error_of(answer)
    assert canary.visits == 0


def test_questions_are_answered_after_all_urls(web: httpx.Client, canary: Canary) -> None:
    check_answers(web)
    assert canary.visits == 0


def test_the_canary_counts(canary: Canary) -> None:
    before = canary.visits
    assert httpx.get(f"http://127.0.0.1:{canary.port}/", trust_env=False, timeout=PATIENCE).content == png(4, 4)
    assert canary.visits == before + 1
    canary.visits = before


@pytest.mark.parametrize("location", REDIRECTS, ids=ascii)
async def test_redirects_lead_to_no_address_that_is_refused(canary: Canary, location: str) -> None:
    """One address of this machine is allowed, all others are not: what redirects to them reaches none."""
    before, redirecting = canary.visits, Canary(location.replace("{port}", str(canary.port)))
    source = ImageFetcher(HostRules(["*"], public=lambda address: str(address) == "127.0.0.99"), timeout=PATIENCE)
    try:
        with pytest.raises(BadPicture):
            await source.read(f"http://127.0.0.99:{redirecting.port}/")
    finally:
        await source.close()
        redirecting.close()
    assert redirecting.visits >= 1
    assert canary.visits == before


def test_memory_comes_back(exposed: Server, web: httpx.Client) -> None:
    """However often they come, they leave nothing behind of the hundreds of megabytes of an image."""

    def ask_all() -> int:
        for image in HOSTILE_IMAGES:
            assert ask(web, about(image.url()), "dual").status_code in image.accepted
        return len(HOSTILE_IMAGES)

    settles(exposed, ask_all)
