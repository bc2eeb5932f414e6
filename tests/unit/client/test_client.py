"""The small client, against a real server of fixed answers."""

import base64
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from dualfocus_client.client import AskError, ask, image_url, server_address

from ..local_web import Page, body_of, respond, serving

COMPLETION = {"choices": [{"message": {"content": "Red."}}]}
received: list[dict[str, Any]] = []
keys_sent: list[str | None] = []


def _chat(request: BaseHTTPRequestHandler) -> None:
    received.append(json.loads(body_of(request)))
    keys_sent.append(request.headers.get("Authorization"))
    respond(body=json.dumps(COMPLETION).encode())(request)


def _answering(page: Page) -> dict[str, Page]:
    return {"/v1/chat/completions": page}


@pytest.fixture
def server() -> Iterator[str]:
    received.clear()
    keys_sent.clear()
    with serving(_answering(_chat)) as web:
        yield web.address


def test_file_is_sent_inside_the_request(tmp_path: Path, server: str) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    assert ask(str(tmp_path / "a.png"), "What?", server, mode="micro", box=[0, 0, 1, 1]) == COMPLETION
    assert received == [
        {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "image_url",
                            "image_url": {
                                "url": "data:application/octet-stream;base64," + base64.b64encode(b"\x89PNG").decode()
                            },
                        },
                        {"type": "text", "text": "What?"},
                    ],
                }
            ],
            "dualfocus": {"mode": "micro", "box": [0, 0, 1, 1]},
        }
    ]


@pytest.mark.parametrize("end", ["", "/", "/v1", "/v1/"])
def test_address_is_taken_with_and_without_v1_and_slashes(server: str, end: str) -> None:
    assert ask("data:,x", "What?", server + end) == COMPLETION


@pytest.mark.parametrize(("given", "address"), [("http://h/llm/v1/", "http://h/llm"), ("http://v1/", "http://v1")])
def test_of_an_address_only_its_end_is_left_out(given: str, address: str) -> None:
    assert server_address(given) == address


def test_options_left_out_are_not_sent(server: str) -> None:
    ask("data:,x", "What?", server, mode=None, box=None)
    assert received[0]["dualfocus"] == {}


@pytest.mark.parametrize(("key", "header"), [("secret", "Bearer secret"), (None, None), ("", None)])
def test_key_is_sent_where_there_is_one(server: str, key: str | None, header: str | None) -> None:
    ask("data:,x", "What?", server, api_key=key)
    assert keys_sent == [header]


@pytest.mark.parametrize("key", ["sk-right\u2026", "\u200bsk-right"])
def test_key_that_no_header_carries_is_an_ask_error(server: str, key: str) -> None:
    with pytest.raises(AskError, match="is not ASCII"):
        ask("data:,x", "What?", server, api_key=key)


@pytest.mark.parametrize("url", ["http://h/a.png", "https://h/a.png", "data:image/png;base64,AA=="])
def test_url_is_sent_as_it_is(url: str) -> None:
    assert image_url(url) == url


@pytest.mark.parametrize("name", ["absent.png", ".", "nul\0byte"])
def test_file_that_can_not_be_read_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(AskError, match=r"(No such file|Is a directory|null byte)"):
        image_url(str(tmp_path / name))


@pytest.mark.parametrize(
    ("page", "complaint"),
    [
        (respond(400, b'{"error": {"message": "The image is damaged."}}'), "400: The image is damaged."),
        (respond(503, b'{"error": {"message": "stopped"}}'), "503: stopped"),
        (respond(401, b'{"error": "Unauthorized"}'), "401: Unauthorized"),
        (respond(418, b'{"error": {"code": 5}}'), "418.*code"),
        (respond(404, b'{"detail": "Not Found"}'), "404"),
        (respond(500, b'{"error": null}'), "500"),
        (respond(500, b"[]"), "500"),
        (respond(502, b"<html>Bad gateway</html>"), "502"),
        (respond(200, b"not json"), "200"),
        (respond(200, b"[1]"), r"200: \[1\]"),
        (respond(200, b"null"), "200: None"),
        (respond(302, b"", Location="/elsewhere"), "302"),
        (respond(302, b"{}", Location="/elsewhere"), "302"),
    ],
)
def test_refusal_is_told_with_its_status(page: Page, complaint: str) -> None:
    with serving(_answering(page)) as web, pytest.raises(AskError, match=complaint):
        ask("data:,x", "What?", web.address)


def test_absent_server_is_named() -> None:
    with serving({}) as gone:
        address = gone.address
    with pytest.raises(AskError, match=address):
        ask("data:,x", "What?", address)


@pytest.mark.parametrize("address", ["localhost:8000", "ftp://h", "", "http://[::1", "http://h:port", "http://a..b"])
def test_address_that_is_none_is_an_ask_error(address: str) -> None:
    with pytest.raises(AskError, match=re.escape(f"{address} can't be reached: ") + "."):
        ask("data:,x", "What?", address)


def test_slow_server_is_given_up_on() -> None:
    over = threading.Event()

    def silent(request: BaseHTTPRequestHandler) -> None:
        over.wait(60)
        request.close_connection = True

    with serving(_answering(silent)) as web:
        with pytest.raises(AskError):
            ask("data:,x", "What?", web.address, timeout=0.2)
        over.set()
