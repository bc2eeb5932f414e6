"""Models that think: thoughts are thoughts on every wire, and no part of the answer that is compared."""

import asyncio
import json
import math
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from asking import CHAT, chunks, lend
from openai import OpenAI
from running_server import PATIENCE, Server
from scripted_asking import (
    CALL,
    LOOK,
    NAMED,
    OFF,
    SIDES,
    Told,
    about,
    as_claude,
    blocks,
    by_claude,
    by_responses,
    items,
    picture,
    tell,
)
from scripted_model import by_script, in_words, start_scripted

RED, BLUE = "<think>It is red.</think>42</s>", "<think>No, it is blue.</think>43</s>"
THOUGHTS = {"macro": "It is red.", "micro": "No, it is blue."}
TEXTS = {"macro": "42", "micro": "43"}
LEFT, RIGHT = '{"side": "left"}', '{"side": "right"}'
SCHEMA = {"type": "json_schema", "json_schema": {"name": "side", "schema": SIDES}}
BOX = "[0.25, 0.25, 0.75, 0.75]"
streamed = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


@pytest.fixture(scope="module", params=["qwen3", "deepseek_r1"])
def thinking(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of the model that thinks, by one parser or the other; it reads tool calls too."""
    flags = ("--reasoning-parser", request.param, "--enable-auto-tool-choice", "--tool-call-parser", "hermes")
    running = start_scripted(tmp_path_factory.mktemp(request.param), *flags)
    yield from lend(running)


@pytest.fixture
def client(thinking: Server) -> OpenAI:
    """The official client."""
    return OpenAI(base_url=f"{thinking.url}/v1", api_key="none", max_retries=0)


@pytest.fixture
def switches(thinking: Server) -> None:
    """Goes on where the parser heeds `enable_thinking`, as Qwen3's does."""
    if "deepseek_r1" in thinking.log.parent.name:
        pytest.skip("DeepSeek-R1 always thinks, and its parser takes what is not closed for a thought")


def looked_twice(told: Told) -> None:
    """Both looks were taken, and the grounding turn did not think."""
    assert set(told.focus["turns"]) == {"macro", "grounding", "micro"}
    assert told.focus["grounding"]["text"] == BOX


@streamed
def test_the_bed_thinks_on_vllms_own_way(client: OpenAI, stream: bool) -> None:
    told = tell(client, stream, **by_script(RED, BLUE), **OFF)
    assert (told.reasoning, told.message.content, told.finish_reason) == ("It is red.", "42", "stop")
    told = tell(client, stream, tools=[LOOK], **by_script(f"<think>Hm.</think>{CALL}", BLUE), **OFF)
    assert (told.reasoning, told.calls, told.finish_reason) == ("Hm.", [("look", LEFT)], "tool_calls")


@streamed
def test_thoughts_are_thoughts(client: OpenAI, stream: bool) -> None:
    told = tell(client, stream, **by_script(RED, BLUE))
    looked_twice(told)
    focus, winner = told.focus, told.focus["winner"]
    for name in ("macro", "micro"):
        assert (focus[name]["text"], focus[name]["reasoning"]) == (TEXTS[name], THOUGHTS[name])
    assert (told.message.content, told.reasoning) == (TEXTS[winner], THOUGHTS[winner])
    assert (told.finish_reason, focus["selection"]) == ("stop", "lower_perplexity")


@streamed
def test_thoughts_count_as_reasoning(client: OpenAI, stream: bool) -> None:
    """Beside the box and the answer that was not chosen."""
    told = tell(client, stream, **by_script(RED, BLUE))
    winner = told.focus["winner"]
    loser = {"macro": "micro", "micro": "macro"}[winner]
    by_vllm = tell(client, False, **by_script({"macro": RED, "micro": BLUE}[winner]), **OFF).usage
    turns = {name: turn["completion_tokens"] for name, turn in told.focus["turns"].items()}
    thoughts = by_vllm.completion_tokens_details.reasoning_tokens
    assert thoughts > 0
    assert told.usage.completion_tokens_details.reasoning_tokens == turns["grounding"] + turns[loser] + thoughts
    assert told.usage.completion_tokens == sum(turns.values())
    assert turns[winner] == told.focus[winner]["tokens"] == by_vllm.completion_tokens


@streamed
@pytest.mark.parametrize("mode", ["dual", "macro", "micro"])
def test_perplexity_is_of_the_answers_tokens_alone(client: OpenAI, stream: bool, mode: str) -> None:
    told = tell(client, stream, **by_script(RED, BLUE), logprobs=True, dualfocus={"mode": mode})
    tokens = [
        (token.token, token.logprob)
        for piece in told.pieces
        for choice in piece.choices
        for token in (choice.logprobs.content if choice.logprobs else None) or []
    ]
    report = told.focus[told.focus["winner"]]
    assert len(tokens) == report["tokens"], "those of the thoughts too"
    end = [token for token, _ in tokens].index("</think>")
    answer = [logprob for _, logprob in tokens[end + 1 :]]
    assert len(answer) == 3
    assert report["perplexity"] == pytest.approx(math.exp(-sum(answer) / len(answer)), rel=1e-3)


def test_longer_thoughts_change_no_comparison(client: OpenAI) -> None:
    """Thoughts of tokens that the model would never write, before the same answers."""
    odd = by_script(RED.replace("red", "zq~^" * 9), BLUE), by_script(RED, BLUE.replace("blue", "zq~^" * 9))
    for script in odd:
        told = tell(client, False, **script)
        focus = told.focus
        assert focus["selection"] == "lower_perplexity"
        lower = min(("micro", "macro"), key=lambda name: focus[name]["perplexity"])
        assert focus["winner"] == lower
        # Eq. 7 over thoughts of those tokens would be far beyond that of two digits and what closes them.
        assert told.message.content == TEXTS[lower]


@streamed
def test_answers_that_say_the_same_after_other_thoughts_are_the_same(client: OpenAI, stream: bool) -> None:
    told = tell(client, stream, **by_script(RED, BLUE.replace("43", "42")))
    assert (told.focus["selection"], told.focus["winner"]) == ("same_answer", "macro")
    assert (told.message.content, told.reasoning) == ("42", "It is red.")


@streamed
@pytest.mark.parametrize(("cut", "other"), [("macro", "micro"), ("micro", "macro")])
def test_thoughts_that_are_cut_are_no_answer(client: OpenAI, stream: bool, cut: str, other: str) -> None:
    long = "<think>" + "Is it? " * 20
    scripts = {cut: long, other: {"macro": RED, "micro": BLUE}[other]}
    told = tell(client, stream, **by_script(**scripts), max_completion_tokens=30)
    looked_twice(told)
    assert (told.focus["winner"], told.focus["selection"]) == (other, "other_answer_empty")
    assert (told.focus[cut]["text"], told.focus[cut]["finish_reason"]) == ("", "length")
    assert long.startswith("<think>" + told.focus[cut]["reasoning"])
    assert (told.message.content, told.reasoning, told.finish_reason) == (TEXTS[other], THOUGHTS[other], "stop")


@streamed
def test_where_both_are_cut_there_are_thoughts_alone(client: OpenAI, stream: bool) -> None:
    long = by_script("<think>" + "Is it? " * 20, "<think>" + "It is. " * 20)
    told = tell(client, stream, **long, max_completion_tokens=12)
    by_vllm = tell(client, stream, **long, **OFF, max_completion_tokens=12)
    assert told.finish_reason == by_vllm.finish_reason == "length"
    assert (told.message.content or "") == (by_vllm.message.content or "") == ""
    assert told.reasoning
    assert told.reasoning == told.focus[told.focus["winner"]]["reasoning"]
    assert by_vllm.reasoning == told.focus["macro"]["reasoning"]


@streamed
def test_thoughts_without_an_answer_are_an_empty_one(client: OpenAI, stream: bool) -> None:
    told = tell(client, stream, **by_script("<think>It is red.</think></s>", BLUE))
    assert (told.focus["winner"], told.focus["selection"]) == ("micro", "other_answer_empty")
    assert told.message.content == "43"


@streamed
@pytest.mark.usefixtures("switches")
def test_thinking_may_be_left_out(client: OpenAI, stream: bool) -> None:
    asked = {"chat_template_kwargs": {"enable_thinking": False}, **by_script("42</s>", "43</s>")}
    told = tell(client, stream, **asked)
    looked_twice(told)
    focus, winner = told.focus, told.focus["winner"]
    assert (told.message.content, told.reasoning) == (TEXTS[winner], None)
    for name in ("macro", "micro"):
        assert (focus[name]["text"], focus[name]["reasoning"]) == (TEXTS[name], None)
    loser = {"macro": "micro", "micro": "macro"}[winner]
    spent = focus["turns"]["grounding"]["completion_tokens"] + focus[loser]["tokens"]
    assert told.usage.completion_tokens_details.reasoning_tokens == spent


@streamed
def test_a_client_may_want_no_thoughts(client: OpenAI, stream: bool) -> None:
    told = tell(client, stream, **by_script(RED, BLUE), include_reasoning=False)
    assert (told.message.content, told.reasoning) == (TEXTS[told.focus["winner"]], None)
    assert [told.focus[name]["reasoning"] for name in ("macro", "micro")] == [None, None]


@streamed
def test_a_grammar_begins_after_the_thoughts(client: OpenAI, stream: bool) -> None:
    scripts = by_script(RED.replace("42", LEFT), BLUE.replace("43", RIGHT))
    told = tell(client, stream, response_format=SCHEMA, **scripts)
    looked_twice(told)
    focus, winner = told.focus, told.focus["winner"]
    texts = {"macro": LEFT, "micro": RIGHT}
    for name in ("macro", "micro"):
        assert (focus[name]["text"], focus[name]["reasoning"]) == (texts[name], THOUGHTS[name])
        assert focus[name]["rescored"]
    assert (told.message.content, told.reasoning) == (texts[winner], THOUGHTS[winner])


def test_an_answer_in_a_grammar_is_scored_as_one_without(client: OpenAI) -> None:
    """By the model's own log-probabilities, of the answer alone."""
    asked = {"messages": about(), "dualfocus": {"mode": "macro"}, **by_script(RED.replace("42", LEFT))}
    held, free = (tell(client, False, **asked, **more).focus["macro"] for more in ({"response_format": SCHEMA}, {}))
    assert (held["text"], held["rescored"], free["rescored"]) == (free["text"], True, False)
    assert held["perplexity"] == pytest.approx(free["perplexity"], rel=1e-2)


@streamed
def test_shared_scoring_is_of_the_answers_alone(client: OpenAI, stream: bool) -> None:
    """Whatever was thought before: the same answers have the same scores."""
    messages = about()
    asked = {"messages": messages, "dualfocus": {"scoring": "shared", "box": [0.25, 0.25, 0.75, 0.75]}}
    first, other = (
        tell(client, stream, **asked, **script).focus
        for script in (by_script(RED, BLUE), by_script(RED.replace("red", "green"), BLUE.replace("blue", "grey")))
    )
    for name in ("macro", "micro"):
        assert first[name]["shared_perplexity"] == pytest.approx(other[name]["shared_perplexity"], rel=1e-2)


@streamed
def test_a_tool_may_be_called_after_thoughts(client: OpenAI, stream: bool) -> None:
    told = tell(client, stream, tools=[LOOK], **by_script(f"<think>Hm.</think>{CALL}", BLUE))
    assert (told.reasoning, told.calls, told.finish_reason) == ("Hm.", [("look", LEFT)], "tool_calls")
    assert (told.focus["winner"], told.focus["selection"]) == ("macro", "tool_call")


@streamed
def test_words_beside_tools_after_thoughts_are_chosen_by_two_looks(client: OpenAI, stream: bool) -> None:
    told = tell(client, stream, tools=[LOOK], **by_script(RED, BLUE))
    looked_twice(told)
    winner = told.focus["winner"]
    assert (told.message.content, told.reasoning, told.calls) == (TEXTS[winner], THOUGHTS[winner], [])


@streamed
@pytest.mark.parametrize("choice", ["required", NAMED], ids=["required", "named"])
def test_a_forced_tool_is_called_after_thoughts(client: OpenAI, choice: Any, stream: bool) -> None:
    scripts = by_script(RED.replace("42", LEFT), BLUE.replace("43", RIGHT))
    told = tell(client, stream, tools=[LOOK], tool_choice=choice, **scripts)
    looked_twice(told)
    winner = told.focus["winner"]
    assert told.calls == [("look", {"macro": LEFT, "micro": RIGHT}[winner])]
    assert told.reasoning == THOUGHTS[winner]
    assert (told.focus["macro"]["text"], told.focus["micro"]["text"]) == (LEFT, RIGHT)


@streamed
def test_adaptive_goes_by_the_answers_perplexity(client: OpenAI, stream: bool) -> None:
    """Just over it the answer stands, just under it there is a second look."""
    asked = {"messages": about(), **by_script(RED, BLUE)}
    perplexity = tell(client, False, **asked, dualfocus={"mode": "macro"}).focus["macro"]["perplexity"]
    stands, doubts = (
        tell(client, stream, **asked, dualfocus={"mode": "adaptive", "skip_below": perplexity * share})
        for share in (1.1, 0.9)
    )
    assert stands.focus["selection"] == "skipped"
    assert (stands.message.content, stands.reasoning) == ("42", "It is red.")
    assert doubts.focus["selection"] == "lower_perplexity"


@pytest.mark.parametrize("mode", ["macro", "micro"])
def test_a_stream_of_one_look_tells_thoughts_as_they_come(client: OpenAI, mode: str) -> None:
    """Thoughts first, then the answer, in the pieces that vLLM's own stream has."""
    script = {"macro": RED, "micro": BLUE}[mode]
    told = tell(client, True, **by_script(script, script), dualfocus={"mode": mode})
    deltas = [piece.choices[0].delta for piece in told.pieces if piece.choices]
    kinds = [
        kind
        for delta in deltas
        for kind, text in (("reasoning", getattr(delta, "reasoning", None)), ("content", delta.content))
        if text
    ]
    assert kinds == sorted(kinds, reverse=True), "reasoning before content"
    assert (told.reasoning, told.message.content) == (THOUGHTS[mode], TEXTS[mode])


def test_a_stream_has_the_keys_of_vllms_own(thinking: Server) -> None:
    def shapes(**more: Any) -> list[Any]:
        body = {"messages": about(), "max_tokens": 200, **by_script(RED, RED), **more, "stream": True}
        with httpx.stream("POST", thinking.url + CHAT, json=body, timeout=PATIENCE) as response:
            pieces = [piece["choices"][0] for piece in chunks(list(response.iter_lines()))]
        # vLLM's last piece has text too where the engine was ahead of what it writes.
        keys = {key for piece in pieces[1:] for key, text in piece["delta"].items() if text}
        return [set(pieces[0]["delta"]), keys, pieces[-1]["finish_reason"]]

    assert shapes() == shapes(dualfocus={"mode": "macro"}) == shapes(**OFF)


async def test_thoughts_of_questions_at_once_stay_apart(thinking: Server) -> None:
    thoughts = [f"It is number {number}." for number in range(8)]
    async with httpx.AsyncClient(base_url=thinking.url, timeout=PATIENCE) as http:
        asked = [
            http.post(CHAT, json={"messages": about(), "max_tokens": 200, **by_script(script, script)})
            for script in (f"<think>{thought}</think>42</s>" for thought in thoughts)
        ]
        answers = [response.json() for response in await asyncio.gather(*asked)]
    assert [answer["choices"][0]["message"]["reasoning"] for answer in answers] == thoughts
    assert {answer["choices"][0]["message"]["content"] for answer in answers} == {"42"}


# The same by the other APIs, as vLLM's own way tells it.


@streamed
def test_messages_have_thinking_blocks(thinking: Server, stream: bool) -> None:
    words = in_words(RED, RED)
    told = by_claude(thinking, stream, words)
    by_vllm = by_claude(thinking, stream, words, extra_body=OFF)
    assert blocks(told) == blocks(by_vllm) == [("thinking", "It is red."), ("text", "42")]
    assert told.stop_reason == by_vllm.stop_reason == "end_turn"
    if not stream:
        assert set(told.dualfocus["turns"]) == {"macro", "grounding", "micro"}


@streamed
def test_messages_have_tool_use_blocks(thinking: Server, stream: bool) -> None:
    tools = [{"name": "look", "input_schema": SIDES}]
    words = in_words(f"<think>Hm.</think>{CALL}", BLUE)
    told = by_claude(thinking, stream, words, tools=tools)
    by_vllm = by_claude(thinking, stream, words, tools=tools, extra_body=OFF)
    assert blocks(told) == blocks(by_vllm) == [("thinking", "Hm."), ("tool_use", {"side": "left"})]
    assert told.stop_reason == by_vllm.stop_reason == "tool_use"
    if not stream:
        assert told.dualfocus["selection"] == "tool_call"


@streamed
@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "look"}], ids=["any", "tool"])
def test_messages_call_a_forced_tool(thinking: Server, choice: dict[str, Any], stream: bool) -> None:
    tools = [{"name": "look", "input_schema": SIDES}]
    words = in_words(RED.replace("42", LEFT), BLUE.replace("43", LEFT))
    told = by_claude(thinking, stream, words, tools=tools, tool_choice=choice)
    assert blocks(told) == [("thinking", "It is red."), ("tool_use", {"side": "left"})]
    assert told.stop_reason == "tool_use"
    if not stream:
        assert set(told.dualfocus["turns"]) == {"macro", "grounding", "micro"}


@streamed
def test_messages_take_a_tools_result_with_a_picture(thinking: Server, stream: bool) -> None:
    (image, _) = as_claude("", (400, 300))[0]["content"]
    messages = [
        *as_claude("What is there?"),
        {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "look", "input": {"side": "left"}}]},
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "a", "content": [image]},
                {"type": "text", "text": in_words(RED, RED)},
            ],
        },
    ]
    tools = [{"name": "look", "input_schema": SIDES}]
    told = by_claude(thinking, stream, "", messages=messages, tools=tools)
    assert blocks(told) == [("thinking", "It is red."), ("text", "42")]
    if not stream:
        assert told.dualfocus["turns"]["micro"]["image_tokens"] == 192


FUNCTION = {"type": "function", "name": "look", "parameters": SIDES, "strict": False}


@streamed
def test_responses_have_reasoning_items(client: OpenAI, stream: bool) -> None:
    told = by_responses(client, stream, by_script(RED, RED))
    by_vllm = by_responses(client, stream, by_script(RED, RED), extra_body=OFF)
    assert items(told) == items(by_vllm) == [("reasoning", "It is red."), ("message", "42")]
    assert told.status == "completed"
    assert set(told.dualfocus["turns"]) == {"macro", "grounding", "micro"}
    turns = told.dualfocus["turns"]
    assert told.usage.output_tokens == sum(turn["completion_tokens"] for turn in turns.values())
    assert told.usage.output_tokens_details.reasoning_tokens > turns["grounding"]["completion_tokens"]


@streamed
def test_responses_have_function_calls(client: OpenAI, stream: bool) -> None:
    script = by_script(f"<think>Hm.</think>{CALL}", BLUE)
    told = by_responses(client, stream, script, tools=[FUNCTION])
    by_vllm = by_responses(client, stream, script, tools=[FUNCTION], extra_body=OFF)
    assert items(told) == items(by_vllm) == [("reasoning", "Hm."), ("function_call", ("look", LEFT))]
    assert told.dualfocus["selection"] == "tool_call"


@streamed
@pytest.mark.parametrize("choice", ["required", {"type": "function", "name": "look"}], ids=["required", "named"])
def test_responses_call_a_forced_tool(client: OpenAI, choice: Any, stream: bool) -> None:
    scripts = by_script(RED.replace("42", LEFT), RED.replace("42", LEFT))
    told = by_responses(client, stream, scripts, tools=[FUNCTION], tool_choice=choice)
    assert items(told) == [("reasoning", "It is red."), ("function_call", ("look", LEFT))]
    assert set(told.dualfocus["turns"]) == {"macro", "grounding", "micro"}


@streamed
def test_an_agent_goes_round_by_responses(client: OpenAI, stream: bool) -> None:
    url = picture()["image_url"]["url"]
    content = [{"type": "input_image", "image_url": url, "detail": "auto"}, {"type": "input_text", "text": "What?"}]
    asked: list[Any] = [{"role": "user", "content": content}]
    script = by_script(f"<think>Hm.</think>{CALL}", BLUE)
    call = by_responses(client, stream, script, asked, tools=[FUNCTION]).output[-1]
    seen = [{"type": "input_image", "image_url": picture((400, 300))["image_url"]["url"], "detail": "auto"}]
    asked += [
        {"type": "function_call", "call_id": call.call_id, "name": call.name, "arguments": call.arguments},
        {"type": "function_call_output", "call_id": call.call_id, "output": seen},
    ]
    told = by_responses(client, stream, by_script(RED, RED), asked, tools=[FUNCTION])
    assert items(told) == [("reasoning", "It is red."), ("message", "42")]
    assert told.dualfocus["turns"]["micro"]["image_tokens"] == 192
    assert json.loads(call.arguments) == {"side": "left"}
