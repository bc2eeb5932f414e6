"""`POST /v1/chat/completions`: by two looks where it asks about an image, by vLLM's own serving otherwise."""

import asyncio
import base64
import io
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import cast

from dualfocus_engine import BadQuestion, DualFocus, Focused, Question
from dualfocus_engine.looks import Watcher
from dualfocus_engine.pool import in_thread
from fastapi import Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from PIL.Image import Image
from starlette.types import Receive, Scope, Send
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionResponse
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.exceptions import GenerationError

from dualfocus_server.admission import Admission
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

    def deadline(self) -> float | None:
        """The event loop's time at which a question that comes now has taken too long."""
        return asyncio.get_running_loop().time() + self.timeout if self.timeout else None

    @asynccontextmanager
    async def until(self, deadline: float | None) -> AsyncIterator[None]:
        """Cancel what is done within at the deadline. Raises TimedOut."""
        try:
            async with asyncio.timeout_at(deadline):
                yield
        except TimeoutError as error:
            raise TimedOut(self.timeout) from error


async def answer(service: Service, request: FocusRequest, raw_request: Request) -> Response:
    """Answer one chat completion request. Raises Refusal, DualFocusError and vLLM's errors."""
    asked_model, deadline = request.model or service.chat.model_name, service.deadline()
    take_mode_from_model(request, service.chat.is_base_model)
    with ExitStack() as held:
        place = held.enter_context(service.admission.admit(raw_request.scope.get("client_key", "")))
        async with service.until(deadline):
            # Images are opened by those whose turn it is: what waits, waits packed.
            await place.turn()
            if not (concerns_focus(request) and service.chat.is_base_model(request.model)):
                return await _vllm(service, request, raw_request, held)
            question = await question_of(request, service.focus, service.images)
        task = _FocusTask(service, request, question, asked_model, deadline)
        if request.stream:
            return _Stream(task.events(), held.pop_all())
        _, whole = await task.run()
        return JSONResponse(whole.model_dump())


class _Stream(StreamingResponse):
    """Server-sent events; the question's place is given up when they end, or never begin."""

    def __init__(self, events: AsyncIterator[str], held: ExitStack) -> None:
        super().__init__(events, media_type=_EVENT_STREAM)
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._held:
            await super().__call__(scope, receive, send)


class _FocusTask:
    """One question on its way through the engine."""

    def __init__(
        self, service: Service, request: FocusRequest, question: Question, model: str, deadline: float | None
    ) -> None:
        self._service = service
        self._request = request
        self._question = question
        self._model = model
        self._deadline = deadline

    async def run(self, watcher: Watcher | None = None) -> tuple[Focused, FocusResponse]:
        """Answer the question and write the completion. Raises TimedOut."""
        async with self._service.until(self._deadline):
            result = await self._service.focus.answer(self._question, watcher)
            return result, await self._completion(result)

    def events(self) -> AsyncIterator[str]:
        """Return the answer as server-sent events."""
        options = self._request.stream_options
        include_usage = bool(options and options.include_usage)
        return focus_events(self.run, f"chatcmpl-{self._request.request_id}", self._model, include_usage)

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


async def _vllm(service: Service, request: FocusRequest, raw_request: Request, held: ExitStack) -> Response:
    await inline_images(request, service.images)
    try:
        answered = await service.chat.answer(request, raw_request)
    except GenerationError as error:
        raise _unfinished(request, error) from error
    if isinstance(answered, ErrorResponse):
        return problem_from_vllm(answered).response()
    if isinstance(answered, ChatCompletionResponse):
        answered.ec_transfer_params = None  # the engine's own count of encoder runs, no transfer
        return JSONResponse(answered.model_dump())
    return _Stream(answered, held.pop_all())


def _unfinished(request: FocusRequest, error: GenerationError) -> Exception:
    """Return whose fault it is that vLLM could not finish: the client's where it gave a grammar."""
    if request.structured_outputs is None and request.response_format is None:
        return cast("Exception", error)
    return BadQuestion("The engine could not finish the answer; a grammar that nothing can satisfy does this.")
