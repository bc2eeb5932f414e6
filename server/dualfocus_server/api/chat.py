"""`POST /v1/chat/completions`: by two looks where it asks about an image, by vLLM's own serving otherwise."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from dualfocus_engine import DualFocus, FocusResult
from dualfocus_engine.machine.pool import run_in_image_pool
from dualfocus_engine.method.stages import Stages
from dualfocus_engine.method.turn_runner import TurnListener
from fastapi import Request, Response
from fastapi.responses import JSONResponse
from pydantic_core import to_json

from dualfocus_server.api.intake import (
    image_parts,
    inline_images,
    is_dualfocus_request,
    may_be_kept,
    question_of,
    take_mode,
)
from dualfocus_server.api.pieces import FocusWriter, Pieces
from dualfocus_server.api.protocol import FocusRequest, FocusResponse
from dualfocus_server.api.report import answers_record, completion, crop_url, headers_of
from dualfocus_server.api.streaming import Events, EventStream, Silence
from dualfocus_server.api.vllm_chat import VllmChat, begins_answer, load_header, take_id_from_header
from dualfocus_server.guards.admission import Admission, Slot
from dualfocus_server.guards.http_errors import HttpError, Stalled, TimedOut
from dualfocus_server.guards.watchdog import Watchdog
from dualfocus_server.images.request_images import RequestImages
from dualfocus_server.telemetry.answers_log import AnswersLog
from dualfocus_server.telemetry.metrics import record_answer, record_passthrough
from dualfocus_server.telemetry.request_ids import request_id
from dualfocus_server.telemetry.traces import question_span, record_on_span

# What is left of a question's time to write its answer.
_WRITING_S = 0.5


@dataclass(frozen=True, slots=True)
class Service:
    """What the routes work with; in seconds, 0 for none: `timeout`, and a stream's `keep_alive`.

    `timeout` is for a question by two looks, and for the next token of a stream that vLLM writes; `mode` is that of
    questions that name none, `list_modes` whether the list of models has the names that choose one.
    """

    focus: DualFocus
    chat: VllmChat
    images: RequestImages
    admission: Admission
    watchdog: Watchdog
    timeout: float
    keep_alive: float = 0
    mode: str = "dual"
    answers_log: AnswersLog | None = None
    list_modes: bool = False

    def deadline(self) -> float | None:
        """The event loop's time at which a question that comes now has taken too long."""
        return asyncio.get_running_loop().time() + self.timeout if self.timeout else None

    def macro_deadline(self, deadline: float | None) -> float | None:
        """The time from which a macro answer is returned without its second look: a little before `deadline`."""
        return None if deadline is None else deadline - min(_WRITING_S, self.timeout / 10)

    @asynccontextmanager
    async def until(
        self, deadline: float | None, error_of: Callable[[float], HttpError] = TimedOut
    ) -> AsyncIterator[asyncio.Timeout]:
        """Cancel what is done within at the deadline, which can be moved.

        Raises what `error_of` makes of the timeout, also where vLLM makes something else of it.
        """
        limit = asyncio.timeout_at(deadline)
        try:
            async with limit:
                yield limit
        except Exception as error:
            if not limit.expired():
                raise
            raise error_of(self.timeout) from error
        if limit.expired():
            raise error_of(self.timeout)


class _Task(Protocol):
    """A request on its way through the engine; `pieces` makes those of its stream."""

    pieces: Pieces

    async def respond(self, slot: Slot) -> Response:
        """Answer it as one body, once it has its place."""

    async def stream(self, events: Events, slot: Slot) -> None:
        """Answer it piece by piece, once it has its place."""


async def answer(service: Service, request: FocusRequest, raw_request: Request) -> Response:
    """Answer one chat completion request. Raises Refusal, DualFocusError, VllmRefusal and vLLM's errors."""
    asked_model, deadline, stages = request.model or service.chat.model_name, service.deadline(), Stages()
    take_mode(request, service.chat.is_base_model, service.mode)
    take_id_from_header(request, raw_request)
    service.images.check_number(len(list(image_parts(request))))
    task: _Task = _VllmTask(service, request, raw_request)
    if is_dualfocus_request(request) and service.chat.is_base_model(request.model):
        task = _FocusTask(service, request, asked_model, stages, deadline)
    with ExitStack() as held:
        slot = held.enter_context(service.admission.admit(raw_request.scope.get("client_id", ""), stages))
        with question_span(raw_request, held):
            if request.stream:
                return await _streamed(service, task, slot, held.pop_all())
            # Images are opened once the question has its place: what waits, waits encoded.
            response = await task.respond(slot)
            response.headers.update(load_header(raw_request))
            return response


async def _streamed(service: Service, task: _Task, slot: Slot, held: ExitStack) -> Response:
    """Begin a stream once the answer is on its way, so that what is wrong before has its status."""
    silence = Silence(task.pieces.content(""), service.keep_alive)
    events = Events(partial(task.stream, slot=slot), held, silence)
    try:
        await events.begun()
    except BaseException:
        events.stop()
        raise
    return EventStream(events, service.timeout)


class _FocusTask:
    """A question for two looks; `stages` are counted on from what it has waited."""

    def __init__(
        self, service: Service, request: FocusRequest, model: str, stages: Stages, deadline: float | None
    ) -> None:
        self._service = service
        self._request = request
        self._model = model
        self._stages = stages
        self._deadline = deadline
        self._started = time.perf_counter()
        self.pieces = Pieces(f"chatcmpl-{request.request_id}", model, service.chat.role)

    async def respond(self, slot: Slot) -> Response:
        """Answer it as one body, once it has its place."""
        async with self._service.until(self._deadline):
            await slot.acquire()
            _, response = await self._answer(None)
        # A crop in it may be megabytes, which Python's own writer takes several times as long for.
        body, headers = to_json(response.model_dump()), headers_of(response.dualfocus)
        return Response(body, media_type="application/json", headers=headers)

    async def stream(self, events: Events, slot: Slot) -> None:
        """Answer it piece by piece, once it has its place."""
        usage = self._service.chat.usage_in_stream(self._request.stream_options)
        writer = FocusWriter(events, self.pieces, self._request.dualfocus.progress, usage)
        async with self._service.until(self._deadline):
            await slot.acquire()
            result, response = await self._answer(writer)
        writer.write_end(result, response)

    async def _answer(self, listener: TurnListener | None) -> tuple[FocusResult, FocusResponse]:
        request, service = self._request, self._service
        question = await question_of(request, service.focus, service.images, self._stages)
        result = await service.focus.answer(question, listener, service.macro_deadline(self._deadline))
        self._stages |= result.stages
        record_on_span(result)
        record_answer(result, question.mode, self._stages, time.perf_counter() - self._started)
        logprobs = service.chat.logprobs(result.answer, request)
        response = completion(result, question.mode, self._model, request.request_id, service.chat.role, logprobs)
        response.system_fingerprint = service.chat.system_fingerprint
        response.metrics = service.chat.metrics(result.answer)
        service.chat.log_answer(response.id, result.answer, is_streaming=listener is not None)
        response.dualfocus.stages = self._stages
        if service.answers_log is not None and may_be_kept(request):
            service.answers_log.add(answers_record(response, request_id.get()))
        if request.dualfocus.return_crop and result.look.crop_box is not None:
            pictures = service.focus.engine.pictures
            response.dualfocus.crop_image = await run_in_image_pool(
                crop_url, pictures, question.picture, result.look.crop_box
            )
        return result, response


class _VllmTask:
    """A request that vLLM's own chat serving answers: its whole answer may take as long as it takes."""

    def __init__(self, service: Service, request: FocusRequest, raw_request: Request) -> None:
        self._service = service
        self._request = request
        self._raw_request = raw_request
        self._started = time.perf_counter()
        self.pieces = Pieces(f"chatcmpl-{request.request_id}", service.chat.signature(request), service.chat.role)

    async def respond(self, slot: Slot) -> Response:
        """Answer it as one body, once it has its place."""
        await slot.acquire()
        await inline_images(self._request, self._service.focus, self._service.images)
        response = await self._service.chat.answer(self._request, self._raw_request)
        record_passthrough(time.perf_counter() - self._started)
        return JSONResponse(response.model_dump())

    async def stream(self, events: Events, slot: Slot) -> None:
        """Answer it piece by piece, once it has its place."""
        if self._request.dualfocus.progress:
            events.put(self.pieces.progress("waiting"))
        async with self._service.until(self._service.deadline(), Stalled) as limit:
            await slot.acquire()
            await inline_images(self._request, self._service.focus, self._service.images)
            vllm_events = await self._service.chat.stream(self._request, self._raw_request)
            async with aclosing(vllm_events):
                async for event in vllm_events:
                    limit.reschedule(self._service.deadline())
                    events.put(event)
                    if begins_answer(event):
                        events.begin()
        record_passthrough(time.perf_counter() - self._started)
