"""What reads an answer where the server was given no parser: all of it is the answer."""

from typing import Any

from dualfocus_engine.method.results import Turn, TurnDelta
from dualfocus_server.answering.protocol import FocusRequest
from dualfocus_server.answering.vllm_serving.answer_reader import AnswerReader
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionResponseChoice

from .builders import CLOSING


def reader(request: FocusRequest | None = None) -> AnswerReader:
    """The reader of a request's answers."""
    asked = FocusRequest(messages=[{"role": "user", "content": "?"}]) if request is None else request
    return AnswerReader(asked, None, tokenizer=None, auto=False)


def choice_of(answer: Turn, **asked: Any) -> ChatCompletionResponseChoice:
    """An answer as a chat completion's choice."""
    request = FocusRequest(messages=[{"role": "user", "content": "?"}], **asked)
    return reader(request).choice(answer, "assistant", None)


def piece(text: str, *, is_last: bool = False) -> TurnDelta:
    """Some more of an answer's text."""
    return TurnDelta(text, (CLOSING,), (1, 2), is_last)
