"""`POST /v1/chat/completions`: by two looks where it asks about an image, by vLLM's own serving otherwise."""

import asyncio
import base64
import io
from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import cast

from dualfocus_engine import BadQuestion, DualFocus, Focused, Question
from dualfocus_engine.looks import Watcher
from dualfocus_engine.pool import in_thread
from fastapi import Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from PIL.Image import Image
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionResponse
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.exceptions import GenerationError

from dualfocus_server.admission import Admission, Place
from dualfocus_server.errors import problem_from_vllm
from dualfocus_server.intake import concerns_focus, inline_images, question_of, take_mode_from_model
from dualfocus_server.media import ImageSource
from dualfocus_server.protocol import FocusRequest, FocusResponse
from dualfocus_server.refusals import TimedOut
from dualfocus_server.report import completion
from dualfocus_server.streaming import focus_events
from dualfocus_server.vllm_chat import VllmChat

_EVENT_STREAM = "text/event-stream"


@dataclass(frozen=True, slots=True)
class Service:
    """What the routes work with; `timeout` is a question's, in seconds (0: none)."""

    focus: DualFocus
    chat: VllmChat
    images: ImageSource
    admission: Admission
    timeout: float


async def answer(service: Service, request: FocusRequest, raw_request: Request) -> Response:
    """Answer one chat completion request. Raises Refusal, DualFocusError and vLLM's errors."""
    asked_model = request.model or service.chat.model_name
    take_mode_from_model(request, service.chat.is_base_model)
    with ExitStack() as held:
        place = held.enter_context(service.admission.admit(raw_request.scope.get("client_key", "")))
        if not (concerns_focus(request) and service.chat.is_base_model(request.model)):
            return await _vllm(service, request, raw_request, place, held)
        task = _FocusTask(service, request, await question_of(request, service.focus, service.images), asked_model)
        if request.stream:
            return StreamingResponse(task.events(place, held.pop_all()), media_type=_EVENT_STREAM)
        _, whole = await task.run(place)
        return JSONResponse(whole.model_dump())


class _FocusTask:
    """One question on its way through the engine."""

    def __init__(self, service: Service, request: FocusRequest, question: Question, model: str) -> None:
        self._service = service
        self._request = request
        self._question = question
        self._model = model

    async def run(self, place: Place, watcher: Watcher | None = None) -> tuple[Focused, FocusResponse]:
        """Wait for the question's turn, answer it, and write the completion. Raises TimedOut."""
        timeout = self._service.timeout or None
        try:
            async with asyncio.timeout(timeout):
                await place.turn()
                result = await self._service.focus.answer(self._question, watcher)
        except TimeoutError as error:
            raise TimedOut(self._service.timeout) from error
        return result, await self._completion(result)

    async def events(self, place: Place, held: ExitStack) -> AsyncIterator[str]:
        """Yield the answer as server-sent events; the place is given up at the end."""
        options = self._request.stream_options
        include_usage = bool(options and options.include_usage)
        with held:
            name = f"chatcmpl-{self._request.request_id}"
            async for event in focus_events(lambda watcher: self.run(place, watcher), name, self._model, include_usage):
                yield event

    async def _completion(self, result: Focused) -> FocusResponse:
        logprobs = self._service.chat.logprobs(result.answer, self._request)
        whole = completion(result, self._question.mode, self._model, self._request.request_id, logprobs)
        if self._request.dualfocus.return_crop and result.look.region is not None:
            crop = await in_thread(self._question.picture.image.crop, result.look.region)
            whole.dualfocus.crop_image = await in_thread(_png_url, crop)
        return whole


def _png_url(image: Image) -> str:
    png = io.BytesIO()
    image.save(png, "PNG")
    return f"data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}"


async def _vllm(
    service: Service, request: FocusRequest, raw_request: Request, place: Place, held: ExitStack
) -> Response:
    try:
        async with asyncio.timeout(service.timeout or None):
            await inline_images(request, service.images)
            await place.turn()
            answered = await service.chat.answer(request, raw_request)
    except TimeoutError as error:
        raise TimedOut(service.timeout) from error
    except GenerationError as error:
        raise _unfinished(request, error) from error
    if isinstance(answered, ErrorResponse):
        return problem_from_vllm(answered).response()
    if isinstance(answered, ChatCompletionResponse):
        answered.ec_transfer_params = None  # the engine's own count of encoder runs, no transfer
        return JSONResponse(answered.model_dump())
    return StreamingResponse(_holding(answered, held.pop_all()), media_type=_EVENT_STREAM)


def _unfinished(request: FocusRequest, error: GenerationError) -> Exception:
    """Return whose fault it is that vLLM could not finish: the client's where it gave a grammar."""
    if request.structured_outputs is None and request.response_format is None:
        return cast("Exception", error)
    return BadQuestion("The engine could not finish the answer; a grammar that nothing can satisfy does this.")


async def _holding(events: AsyncIterator[str], held: ExitStack) -> AsyncIterator[str]:
    with held:
        async for event in events:
            yield event
