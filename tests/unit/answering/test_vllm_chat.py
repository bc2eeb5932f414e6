"""vLLM's chat serving behind the route: a client that leaves before it has answered; the engine's load."""

import asyncio
import gc
import json
from types import SimpleNamespace
from typing import Any

import pytest
from dualfocus_server.answering.vllm_serving.chat import VllmChat
from dualfocus_server.api.chat import answer_chat
from dualfocus_server.app import create_app
from dualfocus_server.guards.keys import KeyRing
from dualfocus_server.settings import Settings
from fastapi import Request
from prometheus_client import CollectorRegistry, Gauge
from starlette.datastructures import State
from starlette.types import Message
from vllm.entrypoints.serve.exception_handling.error_response import create_error_response
from vllm.v1.metrics import reader

from ..api.test_chat_service import ABOUT_AN_IMAGE, TEXT, FakeChat, asking, service

SCOPE = {
    "type": "http",
    "method": "POST",
    "path": "/v1/chat/completions",
    "query_string": b"",
    "headers": [(b"content-type", b"application/json")],
}


class Serving:
    """Answers never, and makes an error of its cancellation, as vLLM's does."""

    response_role = "assistant"
    renderer = SimpleNamespace(mm_processor_cache=None)
    engine_client = SimpleNamespace(vllm_config=SimpleNamespace(scheduler_config=SimpleNamespace(stream_interval=1)))

    def __init__(self) -> None:
        self.is_asked, self.is_cancelled = asyncio.Event(), asyncio.Event()

    async def create_chat_completion(self, *given: Any) -> Any:
        self.is_asked.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.is_cancelled.set()
            return create_error_response("Client disconnected")


async def test_a_client_that_leaves_a_whole_answer_leaves_no_error_behind() -> None:
    serving = Serving()
    sent: list[Message] = []
    unhandled: list[dict[str, Any]] = []
    models = SimpleNamespace(
        base_model_paths=[SimpleNamespace(name="model")], model_config=SimpleNamespace(max_model_len=1)
    )
    chat: Any = VllmChat(
        State(
            {
                "openai_serving_chat": serving,
                "openai_serving_models": models,
                "serving_tokenization": None,
                "anthropic_serving_messages": None,
                "openai_serving_responses": None,
            }
        )
    )
    app = create_app(service(chat=chat), Settings(playground=False), KeyRing())
    body = iter([{"type": "http.request", "body": json.dumps({"messages": TEXT}).encode()}])

    async def receive() -> Message:
        if (message := next(body, None)) is not None:
            return message
        await serving.is_asked.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    gc.collect()  # what nobody looked at is told when it is forgotten
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: unhandled.append(context))
    try:
        await app(dict(SCOPE), receive, send)
        await serving.is_cancelled.wait()
        await asyncio.sleep(0)
        gc.collect()
    finally:
        loop.set_exception_handler(None)
    assert (sent[0]["status"], unhandled) == (499, [])


class Answers(FakeChat):
    async def answer(self, *given: Any) -> Any:
        return SimpleNamespace(model_dump=dict)


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> None:
    """Metrics of an engine that is half full, whatever else this process has run."""
    registry = CollectorRegistry()
    Gauge("vllm:kv_cache_usage_perc", "As vLLM's.", registry=registry).set(0.5)
    monkeypatch.setattr(reader, "REGISTRY", registry)


@pytest.mark.usefixtures("load")
@pytest.mark.parametrize("messages", [ABOUT_AN_IMAGE, TEXT], ids=["two looks", "vLLM"])
@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (b"text", "TEXT named_metrics.kv_cache_usage_perc=0.5"),
        (b"JSON", 'JSON {"named_metrics": {"kv_cache_usage_perc": 0.5}}'),
        (b"BIN", None),
        (None, None),
    ],
)
async def test_the_engines_load_is_told_to_who_asks_for_it(
    messages: Any, asked: bytes | None, told: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    headers = [(b"endpoint-load-metrics-format", asked)] if asked else []
    request = Request({"type": "http", "headers": headers})
    response = await answer_chat(service(chat=Answers()), asking(messages), request)
    assert response.headers.get("endpoint-load-metrics") == told
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
