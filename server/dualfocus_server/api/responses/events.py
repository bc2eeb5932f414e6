"""An answer as events in OpenAI's order, numbered without gaps; those of its message are made by vLLM.

Leans on vLLM 0.32's `SimpleStreamingEventProcessor`.
"""

from collections.abc import Callable, Iterable
from typing import Any, cast

from openai.types.responses import ResponseOutputItem
from openai.types.responses.response_output_text import Logprob
from pydantic_core import to_json
from vllm.entrypoints.generate.base.protocol import DeltaMessage
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionLogProbs
from vllm.entrypoints.openai.responses.protocol import StreamingResponsesResponse
from vllm.entrypoints.openai.responses.streaming_events import SimpleStreamingEventProcessor, _StateType, split_delta
from vllm.outputs import CompletionOutput

from dualfocus_server.answering.protocol import FocusResponse
from dualfocus_server.answering.streaming import Events
from dualfocus_server.answering.vllm_serving.answer_reader import DeltaParser, deltas_of
from dualfocus_server.answering.wire import AnswerWriter

CREATED, IN_PROGRESS, COMPLETED = "response.created", "response.in_progress", "response.completed"
# Makes the whole response of an answer and its items, as JSON.
Finish = Callable[[FocusResponse, list[ResponseOutputItem]], dict[str, Any]]


class NumberedEvents:
    """Writes the events of one stream; `next` is the number of the next one."""

    def __init__(self) -> None:
        self.next = 0

    def write(self, kind: str, **fields: Any) -> str:
        """Return an event."""
        body = {"type": kind, "sequence_number": self.next, **fields}
        self.next += 1
        return f"event: {kind}\ndata: {to_json(body).decode()}\n\n"


class Output:
    """An answer's thoughts, message and calls, in the events that they are made by; `items` hold those that ended."""

    def __init__(self) -> None:
        self._made = SimpleStreamingEventProcessor()

    @property
    def items(self) -> list[ResponseOutputItem]:
        """The output of the response."""
        made: list[ResponseOutputItem] = self._made.output_items
        return made

    def add(
        self, delta: DeltaMessage, logprobs: ChatCompletionLogProbs | None = None
    ) -> list[StreamingResponsesResponse]:
        """Return the events of some more of it."""
        return [event for part in split_delta(delta) for event in self._add(part, logprobs)]

    def _add(self, delta: DeltaMessage, logprobs: ChatCompletionLogProbs | None) -> list[StreamingResponsesResponse]:
        kind, call = self._made.resolve_target_state(delta)
        if kind is _StateType.NONE and self._made.state.current_state is not _StateType.NONE:
            return []
        kind = _StateType.CONTENT if kind is _StateType.NONE else kind  # of an empty answer
        events: list[StreamingResponsesResponse] = []
        if self._made.needs_transition(kind, call):
            events = [*self._made.close_current(), *self._made.open(kind, call)]
        if delta.content == "":
            return events
        unread = cast("CompletionOutput", None)  # the log-probabilities are at hand
        return [*events, *self._made.emit_delta(delta, unread, lambda _: _logprobs(logprobs))]

    def close(self) -> list[StreamingResponsesResponse]:
        """Return the events that end it."""
        events: list[StreamingResponsesResponse] = self._made.close_current()
        return events


def _logprobs(logprobs: ChatCompletionLogProbs | None) -> list[Logprob]:
    """Return a chat completion's log-probabilities as those of a response."""
    return [Logprob.model_validate(token.model_dump()) for token in (logprobs.content or () if logprobs else ())]


class ResponseWriter(AnswerWriter):
    """Writes it as the events of a response."""

    def __init__(
        self,
        events: Events,
        parse_delta: DeltaParser,
        numbered: NumberedEvents,
        begun: dict[str, Any],
        finish: Finish,
        progress: bool,
    ) -> None:
        """`begun` is the response without its answer."""
        super().__init__(events, parse_delta)
        self._numbered = numbered
        self._begun = begun
        self._finish = finish
        self._progress = progress
        self._output = Output()
        self._held: DeltaMessage | None = None  # the last of the answer waits: it carries the log-probabilities
        self._put(CREATED, response=begun)
        self._put(IN_PROGRESS, response=begun)
        self._tell("waiting")

    def write(self, delta: DeltaMessage) -> None:
        """Write what came before this."""
        if self._held is not None:
            self._put_all(self._output.add(self._held))
        self._held = delta

    def write_end(self, response: FocusResponse) -> None:
        """Write the rest of the answer and the whole response, with its `dualfocus` field."""
        choice = response.choices[0]
        for delta in deltas_of(choice.message) if self._held is None else ():
            self.write(delta)
        assert self._held is not None  # an answer has one delta at least
        self._put_all(self._output.add(self._held, choice.logprobs))
        self._put_all(self._output.close())
        whole = self._finish(response, self._output.items)
        self._put(f"response.{whole['status']}", response=whole)

    def _tell(self, doing: str) -> None:
        if self._progress:
            self._put(IN_PROGRESS, response=self._begun, dualfocus={"progress": doing})

    def _put_all(self, made: Iterable[StreamingResponsesResponse]) -> None:
        for event in made:
            fields = event.model_dump(mode="json", by_alias=True, exclude={"type", "sequence_number"})
            self._put(event.type, **fields)

    def _put(self, kind: str, **fields: Any) -> None:
        self._events.put(self._numbered.write(kind, **fields))
