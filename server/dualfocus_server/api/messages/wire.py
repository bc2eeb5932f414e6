"""Answers in the form of the Messages API; a whole one, and vLLM's own streams, by vLLM's conversion.

Leans on vLLM 0.32's `messages_full_converter`, `message_stream_converter` (which makes an event of what goes wrong in
the stream it reads) and `wrap_data_with_event`.
"""

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Any, TypeAlias
from uuid import uuid4

from fastapi import Request
from pydantic_core import from_json, to_json
from vllm.entrypoints.anthropic.protocol import (
    AnthropicContentBlock,
    AnthropicDelta,
    AnthropicMessagesResponse,
    AnthropicStreamEvent,
    AnthropicUsage,
)
from vllm.entrypoints.anthropic.serving import AnthropicServingMessages, wrap_data_with_event
from vllm.entrypoints.generate.base.protocol import DeltaFunctionCall, DeltaMessage, DeltaToolCall
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionResponse

from dualfocus_server.answering.intake import inlined_images
from dualfocus_server.answering.protocol import FocusReport, FocusRequest, FocusResponse
from dualfocus_server.answering.service import Service
from dualfocus_server.answering.streaming import Events
from dualfocus_server.answering.vllm_serving.answer_reader import DeltaParser, deltas_of
from dualfocus_server.answering.wire import AnswerWriter
from dualfocus_server.api.pieces import with_field
from dualfocus_server.guards.api_errors import ApiError

_START, _END = "event: message_start", "event: message_delta"
_Convert: TypeAlias = Callable[[ChatCompletionResponse], AnthropicMessagesResponse]


class MessagesWire:
    """A request of the Messages API; `request` is the same as a chat completion's, `model` as the client wrote it."""

    def __init__(
        self,
        service: Service,
        vllm: AnthropicServingMessages,
        request: FocusRequest,
        raw_request: Request,
        model: str,
    ) -> None:
        self.model = model
        self._service = service
        self._vllm = vllm
        self._request = request
        self._raw_request = raw_request

    def body(self, response: FocusResponse) -> dict[str, Any]:
        """Return a whole answer of two looks."""
        return self._message(response) | {"dualfocus": response.dualfocus.model_dump()}

    def writer(self, events: Events, parse_delta: DeltaParser) -> "MessageWriter":
        """Return what writes an answer of two looks as events."""
        start = AnthropicMessagesResponse(
            id=f"chatcmpl-{self._request.request_id}",  # as vLLM's conversion has it
            type="message",
            role="assistant",
            content=[],
            model=self.model,
            stop_reason=None,
            stop_sequence=None,
            usage=AnthropicUsage(input_tokens=0, output_tokens=0),
        )
        return MessageWriter(events, parse_delta, start, self._request.dualfocus.progress, self._converted_whole)

    async def vllm_body(self) -> dict[str, Any]:
        """Have vLLM answer."""
        async with inlined_images(self._request, self._service.focus, self._service.images):
            return self._message(await self._service.chat.answer(self._request, self._raw_request))

    async def vllm_events(self) -> AsyncGenerator[str, None]:
        """Have vLLM answer as events."""
        async with inlined_images(self._request, self._service.focus, self._service.images):
            pieces = await self._service.chat.stream(self._request, self._raw_request)
            async with aclosing(self._converted(pieces)) as events:
                async for event in events:
                    yield event

    async def _converted(self, pieces: AsyncGenerator[str, None]) -> AsyncGenerator[str, None]:
        """Yield the events of a chat completion's pieces. Raises what went wrong in those."""
        failures: list[Exception] = []

        async def noting_failures() -> AsyncGenerator[str, None]:
            try:
                async for piece in pieces:
                    yield piece
            except Exception as error:
                failures.append(error)

        async with aclosing(pieces), aclosing(self._vllm.message_stream_converter(noting_failures())) as events:
            async for event in events:
                yield event
        for error in failures:
            raise error

    def _message(self, response: ChatCompletionResponse) -> dict[str, Any]:
        return dict(self._converted_whole(response).model_dump(exclude_none=True))

    def _converted_whole(self, response: ChatCompletionResponse) -> AnthropicMessagesResponse:
        """Return a chat completion as a message; a call that was cut has no arguments yet that could be read."""
        choice = response.choices[0]
        cut = [call for call in choice.message.tool_calls if not _is_json(call.function.arguments)]
        for call in cut:
            call.function.arguments = "{}"
        message = self._vllm.messages_full_converter(response)
        if cut and isinstance(choice.stop_reason, str):  # as vLLM's streams say it: such a call is not to be run
            message.stop_reason, message.stop_sequence = "stop_sequence", choice.stop_reason
        return message

    def with_field(self, event: str, field: Mapping[str, str]) -> str:
        """Return an event of vLLM's with the answer's `dualfocus` field, where it says why the answer ends."""
        return with_field(event, field) if event.startswith(_END) else event

    def begins_answer(self, event: str) -> bool:
        """Whether an event of vLLM's says more than that a message starts."""
        return not event.startswith(_START)

    def progress(self, doing: str) -> str:
        """Return a ping that tells what is being done."""
        return _ping(doing)

    def silence(self) -> str:
        """Return a ping."""
        return _ping()

    def failure(self, problem: ApiError) -> list[str]:
        """Return the error as Anthropic's streams tell it."""
        return [wrap_data_with_event(to_json(problem.anthropic_body()).decode(), "error")]


class MessageWriter(AnswerWriter):
    """Writes it as Anthropic's events."""

    def __init__(
        self,
        events: Events,
        parse_delta: DeltaParser,
        start: AnthropicMessagesResponse,
        progress: bool,
        convert: _Convert,
    ) -> None:
        """`convert` makes a message of a chat completion."""
        super().__init__(events, parse_delta)
        self._progress = progress
        self._convert = convert
        self._blocks = 0
        self._open: str | None = None  # the kind of the last block
        self._put("message_start", message=start)
        self._tell("waiting")

    def write(self, delta: DeltaMessage) -> None:
        """Write the delta into its block: thoughts, text, each call of a tool."""
        if delta.reasoning:
            self._in_block(AnthropicContentBlock(type="thinking", thinking=""))
            self._put_delta(AnthropicDelta(type="thinking_delta", thinking=delta.reasoning))
        if delta.content is not None:
            self._in_block(AnthropicContentBlock(type="text", text=""))
            self._put_delta(AnthropicDelta(type="text_delta", text=delta.content))
        for call in delta.tool_calls:
            self._write_call(call)

    def _write_call(self, call: DeltaToolCall) -> None:
        function = call.function or DeltaFunctionCall()
        if function.name is not None:
            self._end_block()  # each call is a block of its own
            self._in_block(AnthropicContentBlock(type="tool_use", id=call.id, name=function.name, input={}))
        if function.arguments:
            self._put_delta(AnthropicDelta(type="input_json_delta", partial_json=function.arguments))

    def _in_block(self, block: AnthropicContentBlock) -> None:
        if block.type == self._open:
            return
        self._end_block()
        self._open = block.type
        self._put("content_block_start", index=self._blocks, content_block=block)

    def _end_block(self) -> None:
        if self._open is None:
            return
        if self._open == "thinking":
            self._put_delta(AnthropicDelta(type="signature_delta", signature=uuid4().hex))
        self._put("content_block_stop", index=self._blocks)
        self._open = None
        self._blocks += 1

    def _put_delta(self, delta: AnthropicDelta) -> None:
        self._put("content_block_delta", index=self._blocks, delta=delta)

    def write_end(self, response: FocusResponse) -> None:
        """Write what is left of the answer, why it ended, usage, and the `dualfocus` field."""
        for delta in deltas_of(response.choices[0].message) if self._is_unwritten else ():
            self.write(delta)
        self._end_block()
        answer = self._convert(response)
        ending = AnthropicDelta(stop_reason=answer.stop_reason, stop_sequence=answer.stop_sequence)
        self._put("message_delta", delta=ending, usage=answer.usage, dualfocus=response.dualfocus)
        self._put("message_stop")

    @property
    def _is_unwritten(self) -> bool:
        return self._open is None and not self._blocks

    def _tell(self, doing: str) -> None:
        if self._progress:
            self._events.put(_ping(doing))

    def _put(self, kind: str, **fields: Any) -> None:
        self._events.put(_event(kind, **fields))


class _Event(AnthropicStreamEvent):
    """vLLM's, with the `dualfocus` field: the answer's report, or what is being done."""

    dualfocus: FocusReport | dict[str, str] | None = None


def _is_json(text: str) -> bool:
    try:
        from_json(text)
    except ValueError:
        return False
    return True


def _event(kind: str, **fields: Any) -> str:
    return str(wrap_data_with_event(_Event(type=kind, **fields).model_dump_json(exclude_unset=True), kind))


def _ping(doing: str | None = None) -> str:
    """Return what adds nothing to an answer; clients skip it."""
    return _event("ping", **({} if doing is None else {"dualfocus": {"progress": doing}}))
