"""Answers a request: by two looks where it is a conversation that asks about an image, else by vLLM."""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack, aclosing
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any, Protocol

from dualfocus_engine import FocusResult, Question, Turn
from dualfocus_engine.machine.pool import run_in_image_pool
from dualfocus_engine.method.stages import Stages
from dualfocus_engine.method.turn_runner import TurnListener
from fastapi import Request, Response
from fastapi.responses import JSONResponse
from pydantic_core import to_json
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionResponseChoice
from vllm.entrypoints.serve.utils.api_utils import with_cancellation

from dualfocus_server.answering.headers import load_header
from dualfocus_server.answering.intake import image_parts, may_be_kept, question_of
from dualfocus_server.answering.protocol import FocusRequest, FocusResponse
from dualfocus_server.answering.reasons import MODE, NO_IMAGE, reason_for_vllm
from dualfocus_server.answering.report import add_crops, answers_record, completion, headers_of
from dualfocus_server.answering.service import Service
from dualfocus_server.answering.streaming import Events, EventStream, Silence
from dualfocus_server.answering.vllm_serving.answer_reader import AnswerReader
from dualfocus_server.answering.wire import VllmWire, Wire
from dualfocus_server.guards.admission import Slot
from dualfocus_server.guards.api_errors import VllmResponseError
from dualfocus_server.guards.http_errors import CLIENT_LEFT, Stalled
from dualfocus_server.guards.keys import client_of
from dualfocus_server.images.request_images import RequestImages
from dualfocus_server.telemetry.metrics import record_answer, record_passthrough
from dualfocus_server.telemetry.request_ids import request_id
from dualfocus_server.telemetry.traces import question_span, record_on_span

# A stream of longer pieces may be silent for longer than a question may take.
_MOST_TOKENS_AT_ONCE = 100


class _Task(Protocol):
    """A request on its way through the engine."""

    async def respond(self, slot: Slot) -> Response:
        """Answer it as one body, once it has its place."""

    async def stream(self, events: Events, slot: Slot) -> None:
        """Answer it piece by piece, once it has its place."""


async def unless_left(raw_request: Request, answering: Awaitable[Response]) -> Response:
    """Return an answer, or nothing where the client leaves before there is one: what makes it is cancelled."""
    response: Response | None = await _awaited(answering, raw_request)
    return response or Response(status_code=CLIENT_LEFT)


@with_cancellation
async def _awaited(answering: Awaitable[Response], raw_request: Request) -> Response:
    return await answering


async def answer(service: Service, request: FocusRequest, raw_request: Request, wire: Wire) -> Response:
    """Answer one request as `wire` writes it. Raises HttpError, DualFocusError, VllmResponseError and vLLM's errors."""
    deadline, stages = service.deadline(), Stages()
    service.images.check_number(len(list(image_parts(request))))
    if not await service.chat.finds(request.model):
        raise VllmResponseError(service.chat.no_such_model(request.model))
    reason = reason_for_vllm(request, service.takes(request.model))
    images = service.images.of(client_of(raw_request))
    task: _Task = _FocusTask(service, images, request, wire, stages, deadline)
    if reason is not None:
        task = _vllm_task(service, request, wire, reason)
    return await _admitted(service, task, raw_request, wire, stages, is_streamed=bool(request.stream))


async def answer_by_vllm(
    service: Service, raw_request: Request, wire: VllmWire, *, is_streamed: bool, interval: int | None = None
) -> Response:
    """Have vLLM answer what holds no picture, in events of `interval` tokens.

    Raises HttpError, VllmResponseError and vLLM's errors.
    """
    task = _VllmTask(service, wire, NO_IMAGE, is_steady=_comes_often(service, interval))
    return await _admitted(service, task, raw_request, wire, Stages(), is_streamed=is_streamed)


def _vllm_task(service: Service, request: FocusRequest, wire: Wire, reason: str) -> "_VllmTask":
    """Return the task of a conversation that vLLM answers; one with a picture is told why it has one look."""
    progress = wire.progress("waiting") if request.dualfocus.progress else None
    # Thoughts that are kept back and beams are written without an event for each token; so are calls, by some parsers.
    has_events = bool(request.include_reasoning) and not (request.use_beam_search or request.may_call)
    is_steady = has_events and _comes_often(service, request.stream_interval)
    if reason in (NO_IMAGE, MODE):
        return _VllmTask(service, wire, reason, progress, is_steady=is_steady)
    told = {"mode": "off", "because": reason}
    telling = partial(wire.with_field, field=told)
    return _VllmTask(service, wire, reason, progress, {"dualfocus": told}, telling, is_steady=is_steady)


def _comes_often(service: Service, interval: int | None) -> bool:
    """Whether events of so many tokens, or of the server's number, come often enough to tell a stalled stream."""
    return max(interval or 1, service.chat.stream_interval) <= _MOST_TOKENS_AT_ONCE


async def _admitted(
    service: Service, task: _Task, raw_request: Request, wire: VllmWire, stages: Stages, *, is_streamed: bool
) -> Response:
    """Do a task once it is admitted; its place is given up when it ends."""
    with ExitStack() as held:
        slot = held.enter_context(await service.admission.admit(client_of(raw_request), stages))
        with question_span(raw_request, held):
            if is_streamed:
                return await _streamed(service, task, wire, slot, held.pop_all())
            # Images are opened once the question has its place: what waits, waits encoded.
            response = await task.respond(slot)
            response.headers.update(load_header(raw_request))
            return response


async def _streamed(service: Service, task: _Task, wire: VllmWire, slot: Slot, held: ExitStack) -> Response:
    """Begin a stream once the answer is on its way, so that what is wrong before has its status."""
    silence = Silence(wire.silence, service.keep_alive)
    events = Events(partial(task.stream, slot=slot), held, silence, wire.failure)
    try:
        await events.begun()
    except BaseException:
        events.stop()
        raise
    return EventStream(events, service.timeout)


class _FocusTask:
    """A question for two looks; `stages` are counted on from what it has waited."""

    def __init__(
        self,
        service: Service,
        images: RequestImages,
        request: FocusRequest,
        wire: Wire,
        stages: Stages,
        deadline: float | None,
    ) -> None:
        self._service = service
        self._images = images
        self._request = request
        self._wire = wire
        self._stages = stages
        self._deadline = deadline
        self._started = time.perf_counter()

    async def respond(self, slot: Slot) -> Response:
        """Answer it as one body, once it has its place."""
        async with self._service.until(self._deadline):
            await slot.acquire()
            response = await self._answer(self._service.chat.reader(self._request), None)
        # A crop in it may be megabytes, which Python's own writer takes several times as long for.
        body, headers = to_json(self._wire.body(response)), headers_of(response.dualfocus)
        return Response(body, media_type="application/json", headers=headers)

    async def stream(self, events: Events, slot: Slot) -> None:
        """Answer it piece by piece, once it has its place."""
        reader = self._service.chat.reader(self._request)
        writer = self._wire.writer(events, reader.delta_parser())
        async with self._service.until(self._deadline):
            await slot.acquire()
            response = await self._answer(reader, writer)
        writer.write_end(response)

    async def _answer(self, reader: AnswerReader, listener: TurnListener | None) -> FocusResponse:
        request, service = self._request, self._service
        turns = replace(service.chat.turn_options(request), thinks=reader.thinks)
        focus = service.focus_of(request.model)
        question = await question_of(reader.request, focus, self._images, self._stages, turns, reader.read)
        results = await focus.answers(question, listener, service.macro_deadline(self._deadline))
        seconds = time.perf_counter() - self._started
        self._stages |= results[0].stages
        record_on_span(results[0])
        response = self._response(results, question, reader)
        if request.dualfocus.return_crop:
            await run_in_image_pool(add_crops, response.dualfocus, focus.engine.pictures, question.picture)
        record_answer(results, question.mode, self._stages, seconds)  # last: what fails before is counted as an error
        self._log(results, response, is_streaming=listener is not None)
        return response

    def _response(self, results: Sequence[FocusResult], question: Question, reader: AnswerReader) -> FocusResponse:
        request, chat = self._request, self._service.chat
        choices = [self._choice(place, result.answer, reader) for place, result in enumerate(results)]
        response = completion(results, question.mode, self._wire.model, request.answer_id, choices)
        response.system_fingerprint = chat.system_fingerprint
        response.metrics = chat.metrics(results[0].answer) if len(results) == 1 else None  # as vLLM: of one answer
        if request.return_token_ids:
            response.prompt_token_ids = list(results[0].answer.prompt_token_ids)
        response.dualfocus.stages = self._stages
        return response

    def _log(self, results: Sequence[FocusResult], response: FocusResponse, *, is_streaming: bool) -> None:
        service = self._service
        for result in results:
            service.chat.log_answer(response.id, result.answer, is_streaming=is_streaming)
        if service.answers_log is not None and may_be_kept(self._request):
            service.answers_log.add(answers_record(response, request_id.get()))

    def _choice(self, place: int, answer: Turn, reader: AnswerReader) -> ChatCompletionResponseChoice:
        chat = self._service.chat
        choice = reader.choice(answer, chat.role, chat.logprobs(answer, reader.request))
        return choice.model_copy(update={"index": place})


class _VllmTask:
    """A request that vLLM's own serving answers, for a reason: its whole answer may take as long as it takes.

    `progress` is what its stream says first, where it says what is being done. `told` is added to a whole answer, and
    `telling` adds it to the events of a stream. One that is steady has an event for each token or two, and ends where
    none comes in time.
    """

    def __init__(
        self,
        service: Service,
        wire: VllmWire,
        reason: str,
        progress: str | None = None,
        told: Mapping[str, Any] = MappingProxyType({}),
        telling: Callable[[str], str] = str,
        *,
        is_steady: bool = True,
    ) -> None:
        self._service = service
        self._wire = wire
        self._reason = reason
        self._progress = progress
        self._told = told
        self._telling = telling
        self._is_steady = is_steady
        self._started = time.perf_counter()

    async def respond(self, slot: Slot) -> Response:
        """Answer it as one body, once it has its place."""
        await slot.acquire()
        body = await self._wire.vllm_body()
        record_passthrough(time.perf_counter() - self._started, self._reason)
        body |= self._told  # in place: a response that is kept says it too
        return JSONResponse(body)

    async def stream(self, events: Events, slot: Slot) -> None:
        """Answer it piece by piece, once it has its place."""
        if self._progress is not None:
            events.put(self._progress)
        async with self._service.until(self._service.deadline(), Stalled) as limit:
            await slot.acquire()
            if not self._is_steady:
                limit.reschedule(None)
            async with aclosing(self._wire.vllm_events()) as vllm_events:
                async for event in vllm_events:
                    events.put(self._telling(event))
                    if self._wire.begins_answer(event):
                        events.begin()
                    limit.reschedule(None)  # a client that reads nothing is cut off by its stream
                    await events.room()
                    if self._is_steady:
                        limit.reschedule(self._service.deadline())
        record_passthrough(time.perf_counter() - self._started, self._reason)
