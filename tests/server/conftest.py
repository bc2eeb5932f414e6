"""One real server for all tests below this folder."""

import base64
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from asking import lend
from openai import OpenAI
from running_server import PATIENCE, Server, start_server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The model to start with, served in full precision."""
    tools = ["--enable-auto-tool-choice", "--tool-call-parser", "hermes", "--enable-tokenizer-info-endpoint"]
    log, keeping = tmp_path_factory.mktemp("server") / "log", {"VLLM_ENABLE_RESPONSES_API_STORE": "1"}
    running = start_server(log, "--dtype", "float32", *tools, environment=keeping)
    yield from lend(running)


@pytest.fixture(scope="session")
def client(server: Server) -> OpenAI:
    """The official client, as a user would make it."""
    return OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


@pytest.fixture(scope="session")
def http(server: Server) -> Iterator[httpx.Client]:
    """Plain HTTP, for what the official client would not send."""
    with httpx.Client(base_url=server.url, timeout=PATIENCE) as plain:
        yield plain


@pytest.fixture(scope="session")
def image_part(jpeg: Callable[[str], bytes]) -> Callable[[str], dict[str, Any]]:
    """A photo as the image part of a message."""

    def by_name(name: str) -> dict[str, Any]:
        encoded = base64.b64encode(jpeg(name)).decode()
        return {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{encoded}"}}

    return by_name


@pytest.fixture(scope="session")
def about(image_part: Callable[[str], dict[str, Any]]) -> Callable[[str, str], list[dict[str, Any]]]:
    """A conversation of one message: a photo and a question."""

    def ask(name: str, text: str) -> list[dict[str, Any]]:
        return [{"role": "user", "content": [image_part(name), {"type": "text", "text": text}]}]

    return ask
