"""The ready line: its request has to work when pasted."""

import json
import shlex

import pytest
from dualfocus_server.startup.startup_message import address, example_curl, ready_text


@pytest.mark.parametrize(
    ("host", "tls", "url"),
    [
        ("127.0.0.1", False, "http://127.0.0.1:8000"),
        ("0.0.0.0", False, "http://127.0.0.1:8000"),
        ("::", False, "http://[::1]:8000"),
        ("2001:db8::7", False, "http://[2001:db8::7]:8000"),
        ("192.0.2.7", True, "https://192.0.2.7:8000"),
    ],
)
def test_address_is_one_that_can_be_reached(host: str, tls: bool, url: str) -> None:
    assert address(host, 8000, tls) == url
    text = ready_text((host, 8000), tls=tls, keys=False, playground=False)
    assert f"DualFocus is ready on {url}. " in text
    assert f"\ncurl -s {url}/v1/chat/completions -H 'Content-Type" in text


def test_with_keys_the_request_carries_one_and_the_operator_is_told_whence() -> None:
    text = ready_text(("127.0.0.1", 8000), tls=False, keys=True, playground=False)
    assert 'completions -H "Authorization: Bearer $DUALFOCUS_API_KEY" -H' in text
    assert "a valid key in DUALFOCUS_API_KEY" in text.splitlines()[1]
    assert "Authorization" not in ready_text(("127.0.0.1", 8000), tls=False, keys=False, playground=False)


@pytest.mark.parametrize("is_on", [True, False])
def test_the_page_is_named_where_there_is_one(is_on: bool) -> None:
    text = ready_text(("0.0.0.0", 8000, 0, 0), tls=False, keys=False, playground=is_on)
    assert ("In a browser: http://127.0.0.1:8000/playground\n" in text) is is_on


@pytest.mark.parametrize(("tls", "url"), [(False, "http://localhost"), (True, "https://localhost")])
def test_a_unix_socket_is_named_and_asked(tls: bool, url: str) -> None:
    text = ready_text("/run/my server", tls=tls, keys=False, playground=True)
    assert "DualFocus is ready on unix:/run/my server. Ask it something:\n" in text, "no browser opens it"
    assert f"\ncurl -s --unix-socket '/run/my server' {url}/v1/chat/completions -H" in text


def test_request_is_one_line_whose_body_is_json() -> None:
    command = example_curl("http://127.0.0.1:8000")
    assert "\n" not in command
    body = json.loads(shlex.split(command)[-1])
    assert body["messages"][0]["content"][0]["image_url"]["url"].startswith("data:image/png;base64,")
