"""A model served by its name on a hub: once it is ready, neither the hub nor the model's files are needed any more."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from asking import CHAT, events, lend
from dualfocus_engine.families.choosing import PROFILE_FILE
from dualfocus_engine.shipped import SHIPPED_MODEL
from fake_hub import Hub, fake_hub
from hostile_images import data_url, png
from running_server import PATIENCE, Server, start_server

MODEL = "acme/eyes"
QUESTIONS = 20
MODES = ("dual", "regions", "search", "adaptive", "macro", "micro", "off")


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with fake_hub(MODEL, SHIPPED_MODEL) as running:
        yield running


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache of what is downloaded."""
    return tmp_path_factory.mktemp("hub")


@pytest.fixture(scope="module")
def opened(home: Path) -> Path:
    """Where it is noted which of its files were opened."""
    return home.with_name("opened")


@pytest.fixture(scope="module")
def served(hub: Hub, home: Path, opened: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    environment = {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "NOTED_BELOW": str(home), "NOTED_IN": str(opened)}
    running = start_server(
        tmp_path_factory.mktemp("served") / "log",
        model=(MODEL,),
        on_path=Path(__file__).parent / "noted_opens",
        environment=environment,
    )
    yield from lend(running)


def questions(number: int) -> list[dict[str, Any]]:
    """Return a question by every way there is to ask it of chat completions, about a picture of its own."""
    messages = _messages({"type": "image_url", "image_url": {"url": _url(number)}})
    ways = [{"mode": mode} for mode in MODES] + [{"scoring": "shared"}, {"box": [0.1, 0.1, 0.9, 0.9]}]
    about = [{"messages": messages, "max_tokens": 4, "dualfocus": way} for way in ways]
    return [*about, {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}]


def others(number: int) -> list[tuple[str, dict[str, Any]]]:
    """Return what is asked by the other routes, where there are streams with and without one."""
    chat = {"messages": _messages({"type": "image_url", "image_url": {"url": _url(number)}})}
    source = {"type": "base64", "media_type": "image/png", "data": _url(number).partition(",")[2]}
    claudes = {"model": MODEL, "messages": _messages({"type": "image", "source": source})}
    parts = [{"type": "input_image", "image_url": _url(number)}, {"type": "input_text", "text": "What is it?"}]
    streamed = [
        ("/v1/messages", claudes | {"max_tokens": 4}),
        ("/v1/responses", {"input": [{"role": "user", "content": parts}], "max_output_tokens": 4}),
        ("/v1/completions", {"prompt": "Hi", "max_tokens": 4}),
        ("/invocations", chat | {"max_tokens": 4}),
    ]
    return [
        *((route, body | {"stream": stream}) for route, body in streamed for stream in (False, True)),
        (f"{CHAT}/batch", {"messages": [chat["messages"]], "max_tokens": 4}),
        ("/v1/messages/count_tokens", claudes),
        ("/tokenize", chat),
        ("/detokenize", {"tokens": [5, 6]}),
    ]


def _url(number: int) -> str:
    return data_url(png(60 + number, 60))


def _messages(image: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [image, {"type": "text", "text": "What is it?"}]}]


def test_it_is_served_with_the_profile_that_lies_beside_it_on_the_hub(served: Server, hub: Hub) -> None:
    assert f"profile: small (the model's own {PROFILE_FILE})" in served.log.read_text()
    assert any(asked.endswith(f"/resolve/main/{PROFILE_FILE}") for asked in hub.asked)


def test_nothing_is_asked_or_read_anew_once_it_is_ready(served: Server, hub: Hub, home: Path, opened: Path) -> None:
    asked, read = len(hub.asked), len(opened.read_text().splitlines())
    assert asked, "the model came from the hub"
    assert read, "what it opened is noted"
    home.rename(home.with_name("gone"))  # what is opened unnoted, outside of Python, fails
    with httpx.Client(base_url=served.url, timeout=PATIENCE) as http:
        for number in range(QUESTIONS):
            for body in questions(number):
                assert http.post(CHAT, json=body).status_code == 200, http.post(CHAT, json=body).text
                assert events(http, **body)[-1] == "data: [DONE]"
            for route, body in others(number):
                answer = http.post(route, json=body)
                assert answer.status_code == 200, (route, answer.text)
                assert '"error":{' not in answer.text.replace(" ", ""), (route, answer.text)
            for route in ("/v1/models", "/health", "/ready", "/version", "/metrics"):
                assert http.get(route).status_code == 200
    assert hub.asked[asked:] == []
    assert opened.read_text().splitlines()[read:] == []
