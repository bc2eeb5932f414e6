"""Answers in the form of the Responses API."""

import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Any

from fastapi import Request
from openai.types.responses import ResponseOutputItem
from pydantic_core import from_json, to_json
from vllm.entrypoints.openai.responses.protocol import (
    InputTokensDetails,
    OutputTokensDetails,
    ResponseCompletedEvent,
    ResponsesResponse,
    ResponseUsage,
)
from vllm.entrypoints.serve.engine.protocol import UsageInfo
from vllm.sampling_params import SamplingParams

from dualfocus_server.answering.intake import sampling_of
from dualfocus_server.answering.protocol import FocusResponse
from dualfocus_server.answering.service import Service
from dualfocus_server.answering.streaming import COMMENT, Events
from dualfocus_server.answering.vllm_serving.answer_reader import DeltaParser, deltas_of
from dualfocus_server.api.responses.events import (
    COMPLETED,
    CREATED,
    IN_PROGRESS,
    NumberedEvents,
    Output,
    ResponseWriter,
)
from dualfocus_server.api.responses.protocol import FocusedResponse, ResponseQuestion, ResponseRequest
from dualfocus_server.api.responses.reading import opened_for_vllm
from dualfocus_server.api.responses.store import Stored
from dualfocus_server.guards.api_errors import ApiError, error_type
from dualfocus_server.guards.keys import client_of


class ResponsesWire:
    """A request for a response; `model` is as the client wrote it, and `stored` what is kept of it, if anything is."""

    def __init__(
        self,
        service: Service,
        question: ResponseQuestion,
        raw_request: Request,
        model: str | None,
        stored: Stored | None = None,
    ) -> None:
        self.model = model or service.chat.model_name
        self._service = service
        self._question = question
        self._asked = question.asked
        self._raw_request = raw_request
        self._stored = stored
        self._created = int(time.time())
        self._numbered = NumberedEvents()
        self._begun: dict[str, Any] | None = None  # the response as a stream of two looks began with it

    def body(self, response: FocusResponse) -> dict[str, Any]:
        """Return a whole answer of two looks."""
        output, choice = Output(), response.choices[0]
        for delta in deltas_of(choice.message):
            output.add(delta, choice.logprobs)
        output.close()
        return self._finished(response, output.items)

    def writer(self, events: Events, parse_delta: DeltaParser) -> ResponseWriter:
        """Return what writes an answer of two looks as events."""
        self._begun = self.unanswered("in_progress")
        progress = self._question.dualfocus.progress
        return ResponseWriter(events, parse_delta, self._numbered, self._begun, self._finished, progress)

    def unanswered(self, status: str) -> dict[str, Any]:
        """Return the response while it has no answer."""
        return dict(self._response(status).model_dump(mode="json", by_alias=True))

    def _finished(self, answer: FocusResponse, output: list[ResponseOutputItem]) -> dict[str, Any]:
        status = "incomplete" if answer.choices[0].finish_reason == "length" else "completed"
        fields = {"usage": _usage(answer.usage), "metrics": answer.metrics}
        response = self._response(status, output=output, **fields)
        response.dualfocus = answer.dualfocus
        return self._kept(response)

    def _response(self, status: str, output: list[ResponseOutputItem] | None = None, **fields: Any) -> FocusedResponse:
        response: FocusedResponse = FocusedResponse.from_request(
            self._asked,
            self._sampling(),
            model_name=self.model,
            created_time=self._created,
            output=output or [],
            status=status,
            **fields,
        )
        return response

    def _sampling(self) -> SamplingParams:
        """Return what is sampled with; the response has to name a number of tokens, were it the context's."""
        focus = self._service.focus_of(self._question.model)
        sampling: SamplingParams = sampling_of(self._question, focus)
        if sampling.max_tokens is None:
            sampling.max_tokens = focus.engine.context_length
        return sampling

    def _kept(self, response: ResponsesResponse) -> dict[str, Any]:
        """Return a whole response, and keep it where that is asked for."""
        whole = dict(response.model_dump(mode="json", by_alias=True))
        if self._stored is not None:
            self._stored.end(whole, response.output)
        return whole

    async def vllm_body(self) -> dict[str, Any]:
        """Have vLLM answer."""
        async with self._opened_for_vllm() as (request, messages):
            response = await self._service.chat.respond(request, messages, self._raw_request)
            return self._kept(self._as_asked(response))

    async def vllm_events(self) -> AsyncGenerator[str, None]:
        """Have vLLM answer as events."""
        async with self._opened_for_vllm() as (request, messages):
            written = self._written(await self._service.chat.respond_in_events(request, messages, self._raw_request))
            async with aclosing(written):
                async for event in written:
                    yield event

    def _opened_for_vllm(self) -> AbstractAsyncContextManager[tuple[ResponseRequest, list[Any]]]:
        return opened_for_vllm(self._asked, self._service, client_of(self._raw_request))

    async def _written(self, events: Any) -> AsyncGenerator[str, None]:
        async with aclosing(events):
            async for event in events:
                if hasattr(event, "response"):
                    self._as_asked(event.response)
                if isinstance(event, ResponseCompletedEvent):
                    self._kept(event.response)
                self._numbered.next = event.sequence_number + 1
                yield f"event: {event.type}\ndata: {event.model_dump_json(by_alias=True)}\n\n"

    def _as_asked(self, response: ResponsesResponse) -> ResponsesResponse:
        """Return vLLM's response with what it was not told: it keeps nothing, and reads texts that are made words."""
        for name in ("previous_response_id", "background", "instructions", "tools", "truncation"):
            setattr(response, name, getattr(self._asked, name))
        return response

    def with_field(self, event: str, field: Mapping[str, str]) -> str:
        """Return an event of vLLM's with the `dualfocus` field in its response, where that is the whole one."""
        head, mark, data = event.partition("data: ")
        if head != f"event: {COMPLETED}\n":
            return event
        body = from_json(data)
        body["response"]["dualfocus"] = field
        if self._stored is not None:
            self._stored.response = body["response"]
        return f"{head}{mark}{to_json(body).decode()}\n\n"

    def begins_answer(self, event: str) -> bool:
        """Whether an event of vLLM's says more than that it begins, which it does before the engine is asked."""
        return not event.startswith((f"event: {CREATED}\n", f"event: {IN_PROGRESS}\n"))

    def progress(self, doing: str) -> str:
        """Return a comment: vLLM's own events have no place for what is being done."""
        return COMMENT

    def silence(self) -> str:
        """Return an event that says again that the response is in progress; in vLLM's own events, a comment."""
        return COMMENT if self._begun is None else self._numbered.write(IN_PROGRESS, response=self._begun)

    def number_from(self, number: int) -> None:
        """Go on with the events' numbers behind those that were read: what was written and not read has none."""
        self._numbered.next = number

    def failure(self, problem: ApiError) -> list[str]:
        """Return the error as the event it is in OpenAI's streams."""
        if self._stored is not None:
            self._stored.set_status("failed", error={"code": problem.code, "message": problem.message})
        code = problem.code or error_type(problem.status)
        return [self._numbered.write("error", code=code, message=problem.message, param=problem.param)]


def _usage(usage: UsageInfo) -> ResponseUsage:
    prompt, completion = usage.prompt_tokens_details, usage.completion_tokens_details
    return ResponseUsage(
        input_tokens=usage.prompt_tokens,
        input_tokens_details=InputTokensDetails(
            cached_tokens=prompt.cached_tokens, cache_write_tokens=prompt.created_cache_tokens
        ),
        output_tokens=usage.completion_tokens,
        output_tokens_details=OutputTokensDetails(reasoning_tokens=completion.reasoning_tokens),
        total_tokens=usage.total_tokens,
    )
