"""`/v1/completions` on a scripted serving: what is judged before vLLM sees it, how a stream begins, waits and ends."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import ExitStack
from typing import Any, cast

import httpx
import pytest
from dualfocus_engine import BadQuestion
from dualfocus_engine.method.stages import Stages
from dualfocus_server.answering import streaming
from dualfocus_server.api.completions import Completion, complete
from dualfocus_server.app import create_app, with_outer_middleware
from dualfocus_server.guards.api_errors import ApiError, VllmResponseError
from dualfocus_server.guards.http_errors import TooBusy
from dualfocus_server.guards.keys import KeyRing
from dualfocus_server.settings import Settings
from fastapi.responses import StreamingResponse
from prometheus_client import REGISTRY
from vllm.entrypoints.openai.completion.protocol import CompletionResponse
from vllm.entrypoints.serve.engine.protocol import UsageInfo

from ..fake_engine import WAIT
from .test_chat_service import RAW, FakeChat, service

ROUTE = "/v1/completions"
PIECE = 'data: {"id":"cmpl-1","object":"text_completion","choices":[{"index":0,"text":"a"}]}\n\n'


class Texts(FakeChat):
    """vLLM's serving of completions."""

    def __init__(self, *events: str | Exception) -> None:
        super().__init__()
        self.events = events
        self.asked: list[Completion] = []

    async def complete(self, request: Completion, *given: Any) -> CompletionResponse:
        self.asked.append(request)
        usage = UsageInfo(prompt_tokens=1, completion_tokens=2, total_tokens=3)
        return CompletionResponse(model=str(request.model), choices=[], usage=usage)

    async def stream_text(self, request: Completion, *given: Any) -> AsyncGenerator[str, None]:
        self.asked.append(request)
        return self._pieces()

    async def _pieces(self) -> AsyncGenerator[str, None]:
        for place, event in enumerate(self.events):
            if isinstance(event, Exception):
                await (self.is_read.wait() if place else asyncio.sleep(0))
                raise event
            yield event


def asking(**fields: Any) -> Completion:
    return Completion.model_validate({"prompt": "Once"} | fields)


def client(chat: Any) -> httpx.AsyncClient:
    app = with_outer_middleware(create_app(service(chat=chat), Settings(playground=False), KeyRing()))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server")


async def read(response: Any) -> list[str]:
    async with asyncio.timeout(WAIT):
        return [str(event) async for event in cast("StreamingResponse", response).body_iterator]


def counted(outcome: str) -> float:
    return REGISTRY.get_sample_value("dualfocus_questions_total", {"outcome": outcome}) or 0.0


async def test_a_text_is_continued_by_vllm_whatever_mode_its_models_name_chooses() -> None:
    chat, before = Texts(), counted("off")
    async with client(chat) as http:
        answer = await http.post(ROUTE, json={"prompt": ["a", "b"], "model": "model:micro"})
    assert (answer.status_code, answer.json()["usage"]["total_tokens"]) == (200, 3)
    assert (chat.asked[0].model, chat.asked[0].prompt) == ("model", ["a", "b"])
    assert counted("off") == before + 1


async def test_an_error_counts_as_a_failed_question() -> None:
    before = counted("invalid_request_error")
    async with client(Texts()) as http:
        assert (await http.post(ROUTE, json={})).status_code == 400
    assert counted("invalid_request_error") == before + 1


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({}, "prompt", "must be provided"),
        ({"prompt": {"a": 1}}, "prompt", "prompt"),
        ({"prompt": [[1, [2]]]}, "prompt.0", "prompt"),
        ({"prompt": [-1]}, "prompt.0", "greater than or equal"),
        ({"prompt": [2**63]}, "prompt", "more than 64 bits"),
        ({"prompt": "\ud800"}, "prompt", "unpaired surrogate"),
        ({"prompt": "a", "n": 129}, "n", "n must be 1 to 128"),
        ({"prompt": ["a"] * 8 + ["b"], "n": 128}, "n", "1,152 texts; 1,024 are the most"),
        ({"prompt": [[1, 2]] * 9, "n": 128}, "n", "1,152 texts"),
        ({"prompt": ["a"] * 1025}, "prompt", "exceeds the maximum"),
        ({"prompt": [1] * 100_001}, None, "100,000 values"),
        ({"prompt": "a", "vllm_xargs": {"dualfocus_box": 1}}, "vllm_xargs", "'dualfocus_box' is reserved"),
        ({"prompt": "a", "vllm_xargs": {"kv_transfer_params": 1}}, "vllm_xargs", "is reserved"),
        ({"prompt": "a", "structured_outputs": 3}, "structured_outputs", "must be an object"),
        ({"prompt": [9]}, "prompt", "Token 9 stands for a picture"),
        ({"prompt": [[1], [2, 9]]}, "prompt", "Token 9 stands for a picture"),
    ],
)
async def test_what_is_wrong_is_said_by_its_field(fields: dict[str, Any], param: str | None, message: str) -> None:
    chat = Texts()
    async with client(chat) as http:
        body = json.dumps(fields).encode()
        answer = await http.post(ROUTE, content=body, headers={"Content-Type": "application/json"})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, param), error
    assert message in error["message"]
    assert chat.asked == []


async def test_a_list_of_tokens_is_one_prompt() -> None:
    chat = Texts()
    assert (await complete(service(chat=chat), asking(prompt=[1] * 5000, n=128), RAW)).status_code == 200


async def test_words_that_stand_for_pictures_are_words() -> None:
    chat = Texts()
    served = service(chat=chat)
    cast("Any", served.focus.engine).as_words = lambda texts: [text.replace("<image>", "< image>") for text in texts]
    for prompt, said in (("<image> a", "< image> a"), (["a", "<image>"], ["a", "< image>"]), ([3, 4], [3, 4])):
        await complete(served, asking(prompt=prompt, suffix="<image>"), RAW)
        assert (chat.asked[-1].prompt, chat.asked[-1].suffix) == (said, "< image>")


async def test_what_is_wrong_before_a_stream_begins_is_raised() -> None:
    chat = Texts(VllmResponseError(ApiError(400, "no such token", "logit_bias")))
    with pytest.raises(VllmResponseError, match="no such token"):
        await complete(service(chat=chat), asking(stream=True), RAW)


async def test_what_goes_wrong_within_a_stream_is_an_event_and_then_it_ends() -> None:
    chat = Texts(PIECE, VllmResponseError(ApiError(400, "it broke")))
    response = await complete(service(chat=chat), asking(stream=True), RAW)
    assert await anext(aiter(cast("StreamingResponse", response).body_iterator)) == PIECE
    chat.is_read.set()
    events = await read(response)
    assert json.loads(events[0].removeprefix("data: "))["error"]["message"] == "it broke"
    assert events[1:] == ["data: [DONE]\n\n"]


async def test_a_silent_stream_is_sent_pieces_without_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "_LONGEST_SILENCE_S", 0.01)
    goes_on = asyncio.Event()

    class Slow(Texts):
        async def _pieces(self) -> AsyncGenerator[str, None]:
            await goes_on.wait()
            yield PIECE

    response = await complete(service(chat=Slow()), asking(stream=True, model="model:off"), RAW)
    events = cast("StreamingResponse", response).body_iterator
    filler = json.loads(str(await anext(aiter(events))).removeprefix("data: "))
    assert (filler["object"], filler["model"], filler["choices"][0]["text"]) == ("text_completion", "model:off", "")
    assert filler["choices"][0]["finish_reason"] is None
    goes_on.set()
    assert PIECE in await read(response)


async def test_a_request_holds_one_place_however_many_texts_it_asks_for() -> None:
    served = service(chat=Texts())
    with ExitStack() as others:
        for _ in range(6):
            others.enter_context(await served.admission.admit("somebody", Stages()))
        with pytest.raises(TooBusy):
            await complete(served, asking(), RAW)
    assert (await complete(served, asking(prompt=["a", "b"]), RAW)).status_code == 200
    assert served.admission.admitted == 0


async def test_a_placeholder_is_refused_before_a_place_is_taken() -> None:
    with pytest.raises(BadQuestion, match="Token 9"):
        await complete(service(chat=Texts()), asking(prompt=[9]), RAW)
