"""The service on a scripted engine: places, times, errors before and within a stream, what is told of the turns."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
from dualfocus_engine import BadQuestion, ContextFull, DualFocus
from dualfocus_engine.method.prompts import NO_OPTIONS, TurnOptions
from dualfocus_engine.method.stages import Stages
from dualfocus_engine.method.turn_engine import TurnRequest
from dualfocus_server.answering.protocol import FocusRequest
from dualfocus_server.answering.service import Service
from dualfocus_server.answering.vllm_serving.answer_reader import AnswerReader
from dualfocus_server.answering.vllm_serving.chat import VllmChat
from dualfocus_server.api.chat import answer_chat
from dualfocus_server.guards.admission import Admission
from dualfocus_server.guards.api_errors import ApiError, VllmResponseError
from dualfocus_server.guards.http_errors import Stalled, TimedOut
from dualfocus_server.guards.places import OwnPlaces
from dualfocus_server.guards.watchdog import Watchdog
from dualfocus_server.images.image_fetcher import ImageFetcher
from dualfocus_server.images.memory_budget import AsyncMemoryBudget
from dualfocus_server.images.request_images import RequestImages
from fastapi import Request
from fastapi.responses import StreamingResponse
from PIL import Image

from ..builders import data_url, encoded
from ..fake_engine import WAIT, FakeEngine, focus_on, never
from ..readers import reader

IMAGE = {"type": "image_url", "image_url": {"url": data_url(encoded(Image.new("RGB", (40, 30))))}}
ABOUT_AN_IMAGE = [{"role": "user", "content": [IMAGE, {"type": "text", "text": "What?"}]}]
TEXT = [{"role": "user", "content": "What?"}]
RAW = Request({"type": "http", "headers": []})
# As vLLM writes them.
ROLE = 'data: {"id":"1","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}\n\n'
CONTENT = 'data: {"id":"1","choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}\n\n'
REFUSED = BadQuestion("token_id(s) [9] in logit_bias contain out-of-vocab token ids", "logit_bias")


TOOL = {"type": "function", "function": {"name": "look"}}


class FakeChat:
    """vLLM's chat serving: swallows a cancellation, as vLLM's does."""

    model_name = "model"
    system_fingerprint = None
    role = "assistant"
    stream_interval = 1

    def __init__(self, *events: str) -> None:
        self._events = events or (CONTENT,)
        self.fails: Exception | None = None
        self.is_read = asyncio.Event()

    def signature(self, request: FocusRequest) -> str:
        return "model"

    def check_tools(self, request: FocusRequest) -> None:
        return None

    def reader(self, request: FocusRequest) -> AnswerReader:
        return reader(request)

    def turn_options(self, request: FocusRequest) -> TurnOptions:
        return NO_OPTIONS

    def is_served(self, name: str | None) -> bool:
        return name in (None, "model")

    async def finds(self, name: str | None) -> bool:
        return self.is_served(name)

    def logprobs(self, *given: Any) -> None:
        return None

    def usage_in_stream(self, options: Any) -> tuple[bool, bool]:
        return False, False

    def metrics(self, *given: Any) -> None:
        return None

    def log_answer(self, *given: Any, **named: Any) -> None:
        return None

    async def answer(self, *given: Any) -> Any:
        try:
            await self.is_read.wait()
        except asyncio.CancelledError:
            raise VllmResponseError(ApiError(400, "Client disconnected")) from None
        return SimpleNamespace(model_dump=lambda: {"id": "1"})

    async def stream(self, *given: Any) -> AsyncGenerator[str, None]:
        async def events() -> AsyncGenerator[str, None]:
            for event in self._events:
                yield event
            if self.fails is not None:
                raise self.fails
            await self.is_read.wait()
            raise RuntimeError("broken")

        return events()


def service(timeout: float = 0, running: int = 1, chat: FakeChat | None = None, **script: Any) -> Service:
    engine = FakeEngine(**script)
    engine.default_sampling = {}  # type: ignore[attr-defined]
    focus: DualFocus = focus_on(engine)
    images = RequestImages(ImageFetcher(), max_images=2)
    watchdog = cast("Watchdog", None)  # what these tests ask does not concern it
    return Service(
        focus, cast("VllmChat", chat or FakeChat()), images, Admission(OwnPlaces(running, 5)), watchdog, timeout
    )


def asking(messages: Any, **fields: Any) -> FocusRequest:
    request: FocusRequest = FocusRequest.model_validate_json(json.dumps({"messages": messages} | fields))
    return request


async def answered(on: Service, messages: Any, **fields: Any) -> Any:
    async with asyncio.timeout(WAIT):
        return await answer_chat(on, asking(messages, **fields), RAW)


async def admitted(on: Service, number: int) -> None:
    async with asyncio.timeout(WAIT):
        while on.admission.admitted != number:  # noqa: ASYNC110 (it is no event)
            await asyncio.sleep(0)


async def lines_of(response: StreamingResponse) -> list[str]:
    async with asyncio.timeout(WAIT):
        return [str(line) async for line in response.body_iterator]


@pytest.fixture
def no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every question's time is over when it first has to wait."""
    monkeypatch.setattr(Service, "deadline", lambda self: asyncio.get_running_loop().time())


@pytest.mark.usefixtures("no_time")
@pytest.mark.parametrize(
    ("messages", "stream", "error", "said"),
    [
        (ABOUT_AN_IMAGE, False, TimedOut, "longer than 9 s"),
        (ABOUT_AN_IMAGE, True, TimedOut, "longer than 9 s"),
        (TEXT, True, Stalled, "No further token came within 9 s"),
    ],
)
async def test_a_question_whose_time_is_over_in_the_queue_is_stopped(
    messages: Any, stream: bool, error: type[Exception], said: str
) -> None:
    on = service(timeout=9)
    with await on.admission.admit("other", Stages()) as place:
        await place.acquire()
        with pytest.raises(error, match=said):
            await answered(on, messages, stream=stream)
        assert on.admission.admitted == 1


@pytest.mark.usefixtures("no_time")
async def test_a_whole_answer_of_vllms_may_take_longer_than_timeout() -> None:
    chat = FakeChat()
    asked = asyncio.create_task(answered(service(timeout=9, chat=chat), TEXT))
    for _ in range(100):  # a question by two looks is stopped at the first of them
        await asyncio.sleep(0)
    chat.is_read.set()
    assert json.loads((await asked).body) == {"id": "1"}


async def test_what_vllm_makes_of_its_cancellation_is_a_timeout() -> None:
    with pytest.raises(TimedOut):
        async with service(timeout=9).until(asyncio.get_running_loop().time()):
            await FakeChat().answer()


@pytest.fixture
def deadlines(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What is called a deadline, one after the other: of the request, of its first token, of each next one."""
    given: list[float] = []
    monkeypatch.setattr(Service, "deadline", lambda self: given.pop(0))
    return given


async def test_vllms_streams_end_where_no_further_token_comes_in_time(deadlines: list[float]) -> None:
    now = asyncio.get_running_loop().time()
    deadlines += [now + WAIT, now + WAIT, now + WAIT, now]
    on = service(timeout=9, chat=FakeChat(CONTENT, CONTENT))
    *pieces, error, done = await lines_of(await answered(on, TEXT, stream=True))
    assert pieces == [CONTENT, CONTENT]
    assert json.loads(error.removeprefix("data: "))["error"]["code"] == "timeout"
    assert done == "data: [DONE]\n\n"
    assert on.admission.admitted == 0


@pytest.mark.parametrize(
    "fields", [{"include_reasoning": False}, {"use_beam_search": True}, {"tools": [TOOL]}, {"stream_interval": 2000}]
)
async def test_vllms_streams_that_keep_their_tokens_back_may_be_silent_for_longer(
    deadlines: list[float], fields: dict[str, Any]
) -> None:
    now = asyncio.get_running_loop().time()
    deadlines += [now, now + WAIT, now, now, now]
    chat = FakeChat(CONTENT, CONTENT)
    response = await answered(service(timeout=9, chat=chat), TEXT, stream=True, **fields)
    chat.is_read.set()
    *pieces, error, _ = await lines_of(response)
    assert pieces == [CONTENT, CONTENT]
    assert json.loads(error.removeprefix("data: "))["error"]["type"] == "server_error", "it ended by itself"
    assert len(deadlines) == 3, "none was set for a token"


async def test_vllms_streams_may_take_longer_than_timeout_as_long_as_tokens_come(deadlines: list[float]) -> None:
    now = asyncio.get_running_loop().time()
    deadlines += [now, now, now, now + WAIT]
    chat = FakeChat(CONTENT, CONTENT)
    response = await answered(service(timeout=9, chat=chat), TEXT, stream=True)
    chat.is_read.set()
    *pieces, error, _ = await lines_of(response)
    assert pieces == [CONTENT, CONTENT]
    assert json.loads(error.removeprefix("data: "))["error"]["type"] == "server_error", "it ended by itself"


async def test_a_timeout_of_another_is_not_the_questions() -> None:
    with pytest.raises(TimeoutError, match="another"):
        async with service().until(None):
            raise TimeoutError("another")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_prompt_that_is_too_long_has_its_status_also_as_a_stream(stream: bool) -> None:
    on = service(grounding=never)
    on.focus.engine.generate = unfit(on.focus.engine.generate)  # type: ignore[method-assign]
    with pytest.raises(ContextFull):
        await answered(on, ABOUT_AN_IMAGE, stream=stream)
    assert on.admission.admitted == 0


def unfit(generate: Callable[..., Any]) -> Callable[..., Any]:
    """The engine, which says that a turn starts only where its prompt fits: macro's does not."""

    async def generated(request: TurnRequest) -> Any:
        if request.name == "macro":
            raise ContextFull(9, 8)
        return await generate(request)

    return generated


@pytest.mark.parametrize("mode", ["dual", "adaptive", "macro", "micro"])
async def test_what_the_engine_refuses_has_its_status_also_as_a_stream(mode: str) -> None:
    on = service(macro=REFUSED, micro=REFUSED)
    with pytest.raises(BadQuestion, match="out-of-vocab"):
        await answered(on, ABOUT_AN_IMAGE, stream=True, dualfocus={"mode": mode})
    assert on.admission.admitted == 0


@pytest.mark.parametrize("roles", [1, 2])
async def test_what_vllm_refuses_behind_its_role_has_its_status_too(roles: int) -> None:
    """It says the role as soon as the engine says anything, were it that it has failed; of every choice."""
    on = service(chat=FakeChat(*[ROLE] * roles))
    cast("FakeChat", on.chat).fails = VllmResponseError(ApiError(400, "The engine could not finish the answer"))
    with pytest.raises(VllmResponseError, match="could not finish"):
        await answered(on, TEXT, stream=True)


async def test_what_vllm_fails_at_behind_a_piece_of_the_answer_is_an_event() -> None:
    chat = FakeChat(ROLE, CONTENT)
    response = await answered(service(chat=chat), TEXT, stream=True)
    chat.is_read.set()
    role, content, error, done = await lines_of(response)
    assert (role, content, done) == (ROLE, CONTENT, "data: [DONE]\n\n")
    assert json.loads(error.removeprefix("data: "))["error"]["type"] == "server_error"


@pytest.mark.parametrize(
    ("mode", "told"),
    [
        ("dual", ["waiting", "grounding", "macro", "micro"]),
        ("macro", ["waiting", "macro"]),
        ("micro", ["waiting", "grounding", "micro"]),
    ],
)
async def test_progress_is_told_where_it_is_asked_for(mode: str, told: list[str]) -> None:
    on = service()
    response = await answered(on, ABOUT_AN_IMAGE, stream=True, dualfocus={"mode": mode, "progress": True})
    assert [found["progress"] for found in focus_in(await lines_of(response)) if "progress" in found] == told
    response = await answered(on, ABOUT_AN_IMAGE, stream=True, dualfocus={"mode": mode})
    assert not any("progress" in found for found in focus_in(await lines_of(response)))


@pytest.mark.usefixtures("no_time")
async def test_of_vllms_own_answers_only_that_they_wait_is_told() -> None:
    lines = await lines_of(await answered(service(9), TEXT, stream=True, dualfocus={"progress": True}))
    assert focus_in(lines) == [{"progress": "waiting"}]
    assert lines[1] == CONTENT


def focus_in(lines: list[str]) -> list[dict[str, Any]]:
    """What the pieces' `dualfocus` fields hold."""
    bodies = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]
    return [body["dualfocus"] for body in bodies if "dualfocus" in body]


@pytest.mark.parametrize(("messages", "first"), [(ABOUT_AN_IMAGE, "role"), (TEXT, "keep-alive")])
async def test_a_stream_that_waits_for_its_place_too_long_begins_all_the_same(messages: Any, first: str) -> None:
    on = replace(service(), keep_alive=2.0**-10)
    with await on.admission.admit("other", Stages()) as place:
        await place.acquire()
        response = await answered(on, messages, stream=True)
        lines = response.body_iterator
        assert first in str(await anext(lines))
        assert await anext(lines) == ": keep-alive\n\n"
        response._events.stop()


async def test_a_place_is_free_when_the_turns_have_ended_though_nobody_reads() -> None:
    on = service()
    response = await answered(on, ABOUT_AN_IMAGE, stream=True)
    await asyncio.wait_for(on.admission.emptied(), WAIT)
    assert (await lines_of(response))[-1] == "data: [DONE]\n\n"


async def test_a_client_that_leaves_while_its_stream_waits_gives_its_place_up() -> None:
    on = service()
    with await on.admission.admit("other", Stages()) as place:
        await place.acquire()
        asked = asyncio.create_task(answered(on, ABOUT_AN_IMAGE, stream=True))
        await admitted(on, 2)
        asked.cancel()
        await admitted(on, 1)


@pytest.mark.parametrize("focus", [{}, {"dualfocus": {"mode": "off"}}], ids=["two looks", "vLLM"])
async def test_too_many_images_are_refused_before_any_is_read(monkeypatch: pytest.MonkeyPatch, focus: Any) -> None:
    monkeypatch.setattr(ImageFetcher, "read", None)
    messages = [{"role": "user", "content": [IMAGE, IMAGE, IMAGE, {"type": "text", "text": "What?"}]}]
    with pytest.raises(BadQuestion, match="has 3 images"):
        await answered(service(), messages, **focus)


@pytest.mark.parametrize("streams", [False, True])
async def test_pictures_that_vllm_keeps_have_their_memory_until_it_has_answered(streams: bool) -> None:
    chat, other = FakeChat(), FakeChat()
    on = service(running=2, chat=chat)
    on.images._memory = AsyncMemoryBudget(40 * 30 * 4)
    kept = asyncio.create_task(answered(on, ABOUT_AN_IMAGE, stream=streams, dualfocus={"mode": "off"}))
    await admitted(on, 1)
    begun = await asyncio.wait_for(kept, WAIT) if streams else None
    other.is_read.set()
    waiting = asyncio.create_task(
        answered(replace(on, chat=cast("VllmChat", other)), ABOUT_AN_IMAGE, dualfocus={"mode": "off"})
    )
    await admitted(on, 2)
    await asyncio.sleep(0.1)
    assert not waiting.done(), "there is room for one picture"
    chat.is_read.set()
    if begun is None:
        await kept
    else:
        assert "The server failed on this request" in "".join(await lines_of(begun))
    assert json.loads((await asyncio.wait_for(waiting, WAIT)).body) == {"id": "1"}
