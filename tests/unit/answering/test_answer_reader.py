"""Answers read by vLLM's own parsers: thoughts and calls apart, what is compared, what a client is written."""

import json
from dataclasses import replace
from typing import Any

import pytest
from dualfocus_engine.method.results import Turn, TurnDelta
from dualfocus_server.answering.protocol import FocusRequest
from dualfocus_server.answering.vllm_serving.answer_reader import AnswerReader, deltas_of
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from vllm.parser import ParserManager

from ..builders import turn

MARKS = ("<think>", "</think>", "<tool_call>", "</tool_call>")
WORDS = (
    "It",
    "is",
    "small.",
    "42",
    "yes",
    "\n\n",
    "{",
    "}",
    '{"name":',
    '"look",',
    '"arguments":',
    "{}}",
    '{"side":"left"}',
)
SCHEMA = {"type": "object", "properties": {"side": {"type": "string"}}, "required": ["side"]}
LOOK = {"type": "function", "function": {"name": "look", "parameters": SCHEMA}}
OTHER = {"type": "function", "function": {"name": "other"}}
THOUGHT = ["<think>", "It", "is", "small.", "</think>"]
CALL = ["<tool_call>", '{"name":', '"look",', '"arguments":', "{}}", "</tool_call>"]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """A word a token."""
    words = {word: number for number, word in enumerate(["[UNK]", "<eos>", *MARKS, *WORDS])}
    made = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<eos>", clean_up_tokenization_spaces=False)
    tokenizer.add_special_tokens({"additional_special_tokens": list(MARKS)})
    return tokenizer


def asked(**fields: Any) -> FocusRequest:
    request: FocusRequest = FocusRequest(messages=[{"role": "user", "content": "?"}], **fields)
    return request


def reader(tokenizer: Any, request: FocusRequest, thinks: str | None = None, calls: str | None = None) -> AnswerReader:
    """The reader of a server with these parsers."""
    parser = ParserManager.get_parser(calls, thinks, enable_auto_tools=calls is not None, tokenizer=tokenizer)
    make = None if parser is None else lambda request: parser(tokenizer, request.tools, chat_template_kwargs={})
    return AnswerReader(request, make, tokenizer, auto=calls is not None)


def wrote(tokenizer: Any, words: list[str], **given: Any) -> Turn:
    """A turn of these words, each less likely than the one before, and a closing token."""
    tokens = [*tokenizer.convert_tokens_to_ids(words), tokenizer.eos_token_id]
    logprobs = tuple(-0.1 * (place + 1) for place in range(len(tokens)))
    return turn(" ".join(words), token_ids=tuple(tokens), logprobs=logprobs, **given)


def streamed(tokenizer: Any, by: AnswerReader, words: list[str]) -> dict[str, Any]:
    """What a client puts together of an answer that is read word by word."""
    parse_delta, told = by.delta_parser(), {"reasoning": "", "content": "", "names": [], "arguments": ""}
    for place, word in enumerate(words):
        is_last = place == len(words) - 1
        text = word if place == 0 else f" {word}"
        delta = parse_delta(TurnDelta(text, tokenizer.convert_tokens_to_ids([word]), (1,), is_last))
        if delta is not None:
            told["reasoning"] += delta.reasoning or ""
            told["content"] += delta.content or ""
            for call in delta.tool_calls:
                told["names"] += [call.function.name] if call.function.name else []
                told["arguments"] += call.function.arguments or ""
    return told


@pytest.mark.parametrize("parser", ["qwen3", "deepseek_r1"])
def test_thoughts_are_no_part_of_the_answer_that_is_compared(tokenizer: Any, parser: str) -> None:
    by = reader(tokenizer, asked(), thinks=parser)
    read = by.read(wrote(tokenizer, [*THOUGHT, "42"]))
    assert (read.text.strip(), (read.reasoning or "").strip()) == ("42", "It is small.")
    assert read.thought_tokens == len(THOUGHT)
    assert read.mean_nll == pytest.approx((0.6 + 0.7) / 2), "42 and the closing token"
    assert by.choice(read, "assistant", None).message.content == read.text
    assert by.choice(read, "assistant", None).message.reasoning == read.reasoning


@pytest.mark.parametrize(("stream", "reason"), [(False, "tool_calls"), (True, "length")])
def test_a_call_before_a_cut_is_the_end_of_a_whole_answer_only(tokenizer: Any, stream: bool, reason: str) -> None:
    """As vLLM has it: who streams is not to go on with a part of the calls."""
    by = reader(tokenizer, asked(tools=[LOOK], tool_choice="auto", stream=stream), calls="hermes")
    read = by.read(wrote(tokenizer, CALL))
    assert by.choice(read, "assistant", None).finish_reason == "tool_calls"
    cut = replace(read, finish_reason="length")
    assert by.choice(cut, "assistant", None).finish_reason == reason


@pytest.mark.parametrize("parser", ["qwen3", "deepseek_r1"])
def test_an_answer_that_ends_within_its_thoughts_is_empty(tokenizer: Any, parser: str) -> None:
    read = reader(tokenizer, asked(), thinks=parser).read(wrote(tokenizer, THOUGHT[:-1], finish_reason="length"))
    assert read.is_empty
    assert read.answer_ids == ()
    assert read.perplexity == float("inf")


def test_an_answer_without_thoughts_is_compared_whole(tokenizer: Any) -> None:
    read = reader(tokenizer, asked(), thinks="qwen3").read(wrote(tokenizer, ["</think>", "42"]))
    assert (read.text.strip(), read.answer_ids[-1]) == ("42", tokenizer.eos_token_id)


def test_a_client_that_wants_no_thoughts_gets_neither_them_nor_their_tokens(tokenizer: Any) -> None:
    by = reader(tokenizer, asked(include_reasoning=False, return_token_ids=True), thinks="deepseek_r1")
    read = by.read(wrote(tokenizer, [*THOUGHT, "42"]))
    choice = by.choice(read, "assistant", None)
    assert (choice.message.reasoning, choice.token_ids) == (None, None)
    assert not by.thinks
    assert read.reasoning is None, "the report of each turn would tell them"
    assert read.reasoning_tokens


@pytest.mark.parametrize("parser", ["qwen3", "deepseek_r1"])
def test_a_stream_tells_thoughts_and_answer_apart(tokenizer: Any, parser: str) -> None:
    told = streamed(tokenizer, reader(tokenizer, asked(), thinks=parser), [*THOUGHT, "42"])
    assert (told["reasoning"].strip(), told["content"].strip()) == ("It is small.", "42")


def test_a_call_is_the_answer(tokenizer: Any) -> None:
    by = reader(tokenizer, asked(tools=[LOOK]), calls="hermes")
    read = by.read(wrote(tokenizer, CALL))
    choice = by.choice(read, "assistant", None)
    assert [call.name for call in read.tool_calls] == ["look"]
    assert [call.function.name for call in choice.message.tool_calls] == ["look"]
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)
    assert [delta.tool_calls[0].function.name for delta in deltas_of(choice.message) if delta.tool_calls] == ["look"]  # type: ignore[union-attr]


def test_only_the_first_call_is_told_where_one_at_a_time_is_asked_for(tokenizer: Any) -> None:
    by = reader(tokenizer, asked(tools=[LOOK], parallel_tool_calls=False), calls="hermes")
    assert len(by.choice(by.read(wrote(tokenizer, [*CALL, *CALL])), "assistant", None).message.tool_calls) == 1


def test_words_beside_tools_are_an_answer(tokenizer: Any) -> None:
    by = reader(tokenizer, asked(tools=[LOOK]), calls="hermes")
    read = by.read(wrote(tokenizer, ["It", "is", "42"]))
    assert (read.text, read.tool_calls) == ("It is 42", ())
    assert by.choice(read, "assistant", None).finish_reason == "stop"


NAMED = {"type": "function", "function": {"name": "look"}}
FORCED = [
    ({"tools": [LOOK], "tool_choice": "required"}, "tool_calls"),
    ({"tools": [OTHER, LOOK], "tool_choice": NAMED}, "stop"),
]


@pytest.mark.parametrize(("fields", "reason"), FORCED)
@pytest.mark.parametrize("parsers", [{}, {"calls": "hermes"}, {"thinks": "qwen3", "calls": "hermes"}])
def test_a_forced_tool_is_a_schema_whatever_parsers_there_are(
    tokenizer: Any, fields: dict[str, Any], reason: str, parsers: dict[str, str]
) -> None:
    by = reader(tokenizer, asked(**fields, response_format={"type": "json_object"}), **parsers)
    drawn = by.request.to_sampling_params(9, {})
    assert drawn.structured_outputs is not None
    assert drawn.structured_outputs.json == SCHEMA
    thought = ["</think>"] if "thinks" in parsers else []
    read = by.read(wrote(tokenizer, [*thought, '{"side":"left"}']))
    choice = by.choice(read, "assistant", None)
    (call,) = choice.message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("look", {"side": "left"})
    assert (choice.finish_reason, choice.message.content, read.tool_calls) == (reason, "", ())
    told = streamed(tokenizer, by, [*thought, '{"side":"left"}'])
    assert (told["names"], json.loads(told["arguments"]), told["content"]) == (["look"], {"side": "left"}, "")


def test_the_request_itself_is_left_as_it_was(tokenizer: Any) -> None:
    request = asked(tools=[LOOK], tool_choice="required")
    reader(tokenizer, request, thinks="qwen3", calls="hermes")
    assert (request.tool_choice, request.structured_outputs) == ("required", None)


def test_an_empty_answer_calls_nothing(tokenizer: Any) -> None:
    by = reader(tokenizer, asked(tools=[LOOK], tool_choice="required"))
    empty = replace(wrote(tokenizer, []), text="")
    assert by.choice(by.read(empty), "assistant", None).message.tool_calls == []
