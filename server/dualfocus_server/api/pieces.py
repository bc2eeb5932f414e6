"""The pieces of a streamed answer, with the keys that vLLM's own streams have in the same places.

Leans on vLLM 0.32's `ChatCompletionStreamResponse`, and on what `chat_completion_stream_generator` sets of it: that a
key is written where it is set, were it to null.
"""

import time
from collections.abc import Mapping
from typing import Any

from pydantic_core import from_json, to_json
from vllm.entrypoints.generate.base.protocol import DeltaMessage
from vllm.entrypoints.openai.chat_completion.protocol import (
    ChatCompletionLogProbs,
    ChatCompletionResponseChoice,
    ChatCompletionResponseStreamChoice,
)
from vllm.entrypoints.serve.engine.protocol import UsageInfo

from dualfocus_server.answering.protocol import FocusPiece, FocusResponse
from dualfocus_server.answering.streaming import Events
from dualfocus_server.answering.vllm_serving.answer_reader import DeltaParser, deltas_of
from dualfocus_server.answering.wire import AnswerWriter
from dualfocus_server.guards.api_errors import ApiError

DONE = "data: [DONE]\n\n"


def with_field(event: str, field: Mapping[str, str]) -> str:
    """Return an event, of any API, with the `dualfocus` field in what it holds."""
    head, mark, data = event.partition("data: ")
    return f"{head}{mark}{to_json({**from_json(data), 'dualfocus': field}).decode()}\n\n"


def error_events(problem: ApiError) -> list[str]:
    """Return an error as OpenAI's streams tell it, and their end."""
    return [f"data: {to_json(problem.body()).decode()}\n\n", DONE]


class Pieces:
    """Makes one answer's pieces, each as an event."""

    def __init__(self, answer_id: str, model: str, role: str) -> None:
        self._head = {
            "id": answer_id,
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": model,
        }
        self._role = role
        self.usage_so_far: UsageInfo | None = None  # what each piece says of it; None: nothing

    def role(self, index: int = 0) -> str:
        """Return what an answer begins with."""
        choice = _choice(DeltaMessage(role=self._role, content=""), index=index)
        return self._event([choice], prompt_token_ids=None, prompt_text=None)

    def delta(self, delta: DeltaMessage, index: int = 0, **fields: Any) -> str:
        """Return some of an answer."""
        return self._event([_choice(delta, index=index, token_ids=None)], **fields)

    def nothing(self, **fields: Any) -> str:
        """Return a piece that adds nothing to the answer: it breaks the silence."""
        return self.delta(DeltaMessage(content=""), **fields)

    def rest(self, delta: DeltaMessage, answer: ChatCompletionResponseChoice, **fields: Any) -> str:
        """Return the last of an answer, with what is told of all of it."""
        told = _choice(delta, answer.logprobs, index=answer.index, token_ids=answer.token_ids)
        return self._event([told], **fields)

    def progress(self, doing: str) -> str:
        """Return what is being done."""
        return self.nothing(dualfocus={"progress": doing})

    def finish(self, answer: ChatCompletionResponseChoice, fingerprint: str | None) -> str:
        """Return an answer's last piece; vLLM names its fingerprint in it where no usage follows."""
        told = {"finish_reason": answer.finish_reason, "stop_reason": answer.stop_reason, "token_ids": None}
        ending = _choice(DeltaMessage(content=""), index=answer.index, **told)
        fields: dict[str, Any] = {} if fingerprint is None else {"system_fingerprint": fingerprint}
        return self._event([ending], **fields)

    def usage(self, response: FocusResponse) -> str:
        """Return what follows the last piece where it is asked for."""
        told = {"usage": response.usage, "system_fingerprint": response.system_fingerprint, "metrics": response.metrics}
        return self._event([], exclude_none=True, **told)

    def _event(
        self, choices: list[ChatCompletionResponseStreamChoice], exclude_none: bool = False, **fields: Any
    ) -> str:
        usage = {} if self.usage_so_far is None else {"usage": self.usage_so_far}
        piece = FocusPiece(**self._head, choices=choices, **(usage | fields))
        return f"data: {piece.model_dump_json(exclude_unset=True, exclude_none=exclude_none)}\n\n"


def _choice(
    delta: DeltaMessage, logprobs: ChatCompletionLogProbs | None = None, **fields: Any
) -> ChatCompletionResponseStreamChoice:
    return ChatCompletionResponseStreamChoice(
        **({"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": None} | fields)
    )


class FocusWriter(AnswerWriter):
    """Writes it as pieces of a chat completion."""

    def __init__(
        self, events: Events, parse_delta: DeltaParser, pieces: Pieces, progress: bool, usage: tuple[bool, bool]
    ) -> None:
        """`usage` says whether it follows the answer, and whether each piece says it too."""
        super().__init__(events, parse_delta)
        self._pieces = pieces
        self._progress = progress
        self._ends_in_usage, self._tells_usage = usage
        if self._tells_usage:
            pieces.usage_so_far = UsageInfo(prompt_tokens=0, completion_tokens=0, total_tokens=0)
        self._held: DeltaMessage | None = None  # the last of the answer waits: it carries the `dualfocus` field
        events.put(pieces.role())
        self._tell("waiting")

    def write(self, delta: DeltaMessage) -> None:
        """Write what came before this."""
        if self._held is not None:
            self._events.put(self._pieces.delta(self._held))
        self._held = delta

    def write_end(self, response: FocusResponse) -> None:
        """Write the rest of each answer, the first with the `dualfocus` field, the finish, usage, `[DONE]`."""
        if self._tells_usage:
            self._pieces.usage_so_far = response.usage
        for answer in response.choices:
            self._write_rest(answer, response)
        if self._ends_in_usage:
            self._events.put(self._pieces.usage(response))
        self._events.put(DONE)

    def _write_rest(self, answer: ChatCompletionResponseChoice, response: FocusResponse) -> None:
        told: dict[str, Any] = {}
        if answer.index == 0:
            told["dualfocus"] = response.dualfocus.model_dump()
            if response.prompt_token_ids is not None:
                told["prompt_token_ids"] = response.prompt_token_ids
        else:
            self._events.put(self._pieces.role(answer.index))
        *before, last = [self._held] if self._held is not None else deltas_of(answer.message)
        self._held = None
        for delta in before:
            self._events.put(self._pieces.delta(delta, answer.index))
        self._events.put(self._pieces.rest(last, answer, **told))
        named = None if self._ends_in_usage else response.system_fingerprint
        self._events.put(self._pieces.finish(answer, named))

    def _tell(self, doing: str) -> None:
        if self._progress:
            self._events.put(self._pieces.progress(doing))
