"""Reads an answer by vLLM's parsers: its reasoning (what the model thought before it) and its tool calls.

Leans on vLLM 0.32's `Parser`: `parse` and `parse_delta` for one answer each, `adjust_request` (what the parsers have to
say about sampling), `count_reasoning_tokens`, and its reasoning parser's `reasoning_end_str`.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from dualfocus_engine.method.results import Turn, TurnDelta
from vllm.entrypoints.generate.base.protocol import (
    DeltaFunctionCall,
    DeltaMessage,
    DeltaToolCall,
    FunctionCall,
    ToolCall,
)
from vllm.entrypoints.openai.chat_completion.protocol import (
    ChatCompletionLogProbs,
    ChatCompletionResponseChoice,
    ChatMessage,
)
from vllm.entrypoints.serve.utils.tool_calls_utils import maybe_filter_parallel_tool_calls
from vllm.parser.abstract_parser import Parser
from vllm.renderers.chat_utils import make_tool_call_id

from dualfocus_server.answering.protocol import FocusRequest
from dualfocus_server.answering.vllm_serving.forced_tool import forced_tool, under_its_schema

# Reads one answer piece by piece; None where a piece tells nothing yet.
DeltaParser: TypeAlias = Callable[[TurnDelta], DeltaMessage | None]


class AnswerReader:
    """Reads the answers to one request; `request` is how they are drawn.

    `make_parser` makes what reads one answer, None where the server was given no parser.
    """

    def __init__(
        self, asked: FocusRequest, make_parser: Callable[[FocusRequest], Parser] | None, tokenizer: Any, auto: bool
    ) -> None:
        self._tool = forced_tool(asked)
        self._is_required = asked.tool_choice == "required"
        self.request = asked if self._tool is None else under_its_schema(asked, self._tool)
        self._make_parser = make_parser
        self._tokenizer = tokenizer
        self._auto = auto
        if make_parser is not None and self._is_adjusted:
            self.request = make_parser(self.request).adjust_request(self.request.model_copy())

    @property
    def _is_adjusted(self) -> bool:
        """Whether the parsers have a say in the request, as vLLM's own serving lets them have."""
        parser = self._parser()
        return parser.always_adjust_request or parser.reasoning_parser is not None or self.request.tool_choice != "none"

    @property
    def thinks(self) -> bool:
        """Whether an answer may open with thoughts, which no grammar holds."""
        return bool(self.request.include_reasoning) and not self.request._grammar_from_parser

    def _parser(self) -> Parser:
        assert self._make_parser is not None
        return self._make_parser(self.request)

    def read(self, turn: Turn) -> Turn:
        """Tell a turn's answer from its thoughts and its calls; thoughts that the client does not want are left out."""
        if self._make_parser is None:
            return turn
        parser = self._parser()
        parser.set_prompt_token_ids(turn.prompt_token_ids)
        reasoning, answer, calls = parser.parse(
            turn.text, self.request, enable_auto_tools=self._auto, model_output_token_ids=turn.token_ids
        )
        read = replace(turn, text=answer or "", reasoning=reasoning, tool_calls=tuple(calls or ()))
        if reasoning is None:
            return read
        counted = int(parser.count_reasoning_tokens(turn.token_ids))
        thoughts = self._thought_tokens(parser, turn.token_ids)
        told = reasoning if self.request.include_reasoning else None
        return replace(read, reasoning=told, reasoning_tokens=counted, thought_tokens=thoughts)

    def _thought_tokens(self, parser: Parser, tokens: Sequence[int]) -> int:
        """Count what goes before the answer: thoughts, the mark that ends them, and blanks behind it."""
        mark = parser.reasoning_parser.reasoning_end_str if parser.reasoning_parser is not None else None
        if mark is None:
            return int(parser.count_reasoning_tokens(tokens))
        ends = self._end_of(mark, tokens)
        while ends < len(tokens) and not self._text(tokens[ends : ends + 1]).strip():
            ends += 1
        return min(ends, len(tokens))

    def _end_of(self, mark: str, tokens: Sequence[int]) -> int:
        """Return how many tokens there are to a mark's end; it is one token for most models."""
        spelled = self._tokenizer.encode(mark, add_special_tokens=False)
        if len(spelled) == 1 and spelled[0] in tokens:
            return tokens.index(spelled[0]) + 1
        return bisect_left(range(len(tokens) + 1), x=True, key=lambda count: mark in self._text(tokens[:count]))

    def _text(self, tokens: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(tokens), skip_special_tokens=False))

    def delta_parser(self) -> DeltaParser:
        """Return what reads one answer while it is written."""
        parser = None if self._make_parser is None else self._parser()
        call_id = None if self._tool is None else make_tool_call_id()

        def read(written: TurnDelta) -> DeltaMessage | None:
            nonlocal call_id
            delta = _plain(written) if parser is None else self._parsed(parser, written)
            if self._tool is None or delta is None or not delta.content:
                return delta
            called = _call(0, call_id, self._tool.name if call_id else None, delta.content)
            call_id = None  # a call is named once
            return DeltaMessage(tool_calls=[called], **({"reasoning": delta.reasoning} if delta.reasoning else {}))

        return read

    def _parsed(self, parser: Parser, written: TurnDelta) -> DeltaMessage | None:
        delta = parser.parse_delta(
            delta_text=written.text,
            delta_token_ids=list(written.token_ids),
            request=self.request,
            prompt_token_ids=list(written.prompt_token_ids),
            finished=written.is_last,
        )
        return None if delta is None else maybe_filter_parallel_tool_calls(delta, self.request)

    def choice(self, turn: Turn, role: str, logprobs: ChatCompletionLogProbs | None) -> ChatCompletionResponseChoice:
        """Return an answer that was read as a chat completion's choice."""
        # A client that is not to be shown thoughts is shown none of the turn's tokens.
        is_shown = self._make_parser is None or self.request.include_reasoning
        return ChatCompletionResponseChoice(
            index=0,
            message=self._message(turn, role),
            logprobs=logprobs if is_shown else None,
            finish_reason=self._finish_reason(turn),
            stop_reason=turn.stop_reason,
            token_ids=list(turn.token_ids) if self.request.return_token_ids and is_shown else None,
        )

    def _message(self, turn: Turn, role: str) -> ChatMessage:
        if self._tool is not None:
            forced = [FunctionCall(name=self._tool.name, arguments=turn.text)] if turn.text.strip() else []
            return ChatMessage(role=role, reasoning=turn.reasoning, content="", tool_calls=_calls(forced))
        text = turn.text or (None if turn.tool_calls or turn.reasoning else "")
        calls = maybe_filter_parallel_tool_calls(_calls(turn.tool_calls), self.request)
        return ChatMessage(role=role, reasoning=turn.reasoning, content=text, tool_calls=calls)

    def _finish_reason(self, turn: Turn) -> str:
        """Return why an answer ended, in OpenAI's words: a tool that was named is no reason.

        Calls of an answer that was cut are one in a whole answer and none in a stream, as in vLLM.
        """
        is_whole = turn.finish_reason == "stop"
        calls = bool(turn.tool_calls) and (is_whole or not self.request.stream)
        calls_as_required = self._tool is not None and self._is_required and is_whole
        return "tool_calls" if calls or calls_as_required else turn.finish_reason


def deltas_of(message: ChatMessage) -> list[DeltaMessage]:
    """Return a whole message in the pieces of a stream: thoughts, answer, calls; at least one."""
    calls = [
        _call(place, call.id, call.function.name, call.function.arguments)
        for place, call in enumerate(message.tool_calls)
    ]
    deltas = [DeltaMessage(reasoning=message.reasoning)] if message.reasoning else []
    if message.content or not calls:
        deltas.append(DeltaMessage(content=message.content or ""))
    return [*deltas, *([DeltaMessage(tool_calls=calls)] if calls else [])]


def _plain(written: TurnDelta) -> DeltaMessage | None:
    return DeltaMessage(content=written.text) if written.text else None


def _calls(called: Sequence[FunctionCall]) -> list[ToolCall]:
    return [ToolCall(id=call.id or make_tool_call_id(), function=call) for call in called]


def _call(place: int, call_id: str | None, name: str | None, arguments: str) -> DeltaToolCall:
    """Return a call as a stream tells it; only its first piece, which has an id, names the tool."""
    if call_id is None:
        return DeltaToolCall(index=place, function=DeltaFunctionCall(arguments=arguments))
    function = DeltaFunctionCall(name=name, arguments=arguments)
    return DeltaToolCall(index=place, id=call_id, type="function", function=function)
