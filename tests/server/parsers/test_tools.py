"""Questions with tools: what is called is an answer, what is said in words is chosen by two looks."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from asking import CHAT, chunks, lend, until_unfinished
from openai import BadRequestError, OpenAI
from other_clients import of_python
from other_clients import told as run_client
from running_server import PATIENCE, Server, start_server
from scripted_asking import CALL, LOOK, NAMED, OFF, POINT, Told, about, picture, tell
from scripted_model import by_script, in_words, start_scripted

BLOCK = 32  # tokens that the CPU's prefix cache shares at once
RED, BLUE = "It is red</s>", "It is blue</s>"
LEFT, RIGHT = '{"side": "left"}', '{"side": "right"}'
streamed = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
forced = pytest.mark.parametrize("choice", ["required", NAMED], ids=["required", "named"])


@pytest.fixture(scope="module")
def parsing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that reads tool calls."""
    flags = ("--enable-auto-tool-choice", "--tool-call-parser", "hermes")
    running = start_scripted(tmp_path_factory.mktemp("tools"), *flags)
    yield from lend(running)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server without a flag."""
    running = start_server(tmp_path_factory.mktemp("plain") / "log", model=())
    yield from lend(running)


@pytest.fixture
def agent(parsing: Server) -> OpenAI:
    """The official client of the first."""
    return OpenAI(base_url=f"{parsing.url}/v1", api_key="none", max_retries=0)


@pytest.fixture
def client_of_plain(plain: Server) -> OpenAI:
    """The official client of the second."""
    return OpenAI(base_url=f"{plain.url}/v1", api_key="none", max_retries=0)


def looked_twice(told: Told) -> None:
    """Both looks were taken, and one of their answers was chosen."""
    assert set(told.focus["turns"]) == {"macro", "grounding", "micro"}
    assert told.focus["grounding"]["text"] == "[0.25, 0.25, 0.75, 0.75]"
    assert told.focus["box"] == [0.25, 0.25, 0.75, 0.75]


@streamed
def test_the_bed_calls_tools_on_vllms_own_way(agent: OpenAI, stream: bool) -> None:
    told = tell(agent, stream, tools=[LOOK], **by_script(CALL, BLUE), **OFF)
    assert (told.calls, told.finish_reason, told.focus) == ([("look", LEFT)], "tool_calls", None)
    told = tell(agent, stream, tools=[LOOK], **by_script(RED, BLUE), **OFF)
    assert (told.calls, told.message.content, told.finish_reason) == ([], "It is red", "stop")


# What is called.


@streamed
def test_a_tool_that_macro_calls_is_the_answer(agent: OpenAI, stream: bool) -> None:
    told = tell(agent, stream, tools=[LOOK], **by_script(CALL, BLUE))
    assert (told.calls, told.finish_reason) == ([("look", LEFT)], "tool_calls")
    assert not told.message.content
    assert (told.focus["winner"], told.focus["selection"]) == ("macro", "tool_call")


@streamed
def test_words_before_a_call_stay(agent: OpenAI, stream: bool) -> None:
    asked = {"tools": [LOOK], **by_script(f"I look.{CALL}", BLUE)}
    told, off = tell(agent, stream, **asked), tell(agent, stream, **asked, **OFF)
    assert (told.calls, told.message.content) == (off.calls, off.message.content) == ([("look", LEFT)], "I look.")


@streamed
def test_several_calls_are_one_answer(agent: OpenAI, stream: bool) -> None:
    both = CALL.removesuffix("</s>") + CALL.replace("look", "point")
    told = tell(agent, stream, tools=[LOOK, POINT], **by_script(both, BLUE))
    assert told.calls == [("look", LEFT), ("point", LEFT)]
    assert told.focus["selection"] == "tool_call"
    assert len({call.id for call in told.message.tool_calls}) == 2


async def test_the_second_look_ends_where_a_tool_is_called(parsing: Server) -> None:
    """It would write on for hundreds of steps."""
    body = {"messages": about(), "tools": [LOOK], "max_tokens": 900, **by_script(CALL, "a" * 900)}
    async with httpx.AsyncClient(base_url=parsing.url, timeout=PATIENCE) as http:
        answer = (await http.post(CHAT, json=body)).json()
        assert answer["dualfocus"]["selection"] == "tool_call"
        assert answer["dualfocus"]["micro"] is None
        await until_unfinished(http, lambda turns: turns == 0)


@streamed
def test_an_agent_goes_round(agent: OpenAI, stream: bool) -> None:
    """Asks, is told to call a tool, sends the picture that the tool made, and is answered in words by two looks."""
    messages: list[Any] = about("What is there?", picture((200, 150)))
    first = tell(agent, stream, messages, tools=[LOOK], **by_script(CALL, BLUE))
    call = first.message.tool_calls[0]
    result = [picture((400, 300)), {"type": "text", "text": "The left half."}]
    messages += [
        {"role": "assistant", "tool_calls": [{"id": call.id, "type": "function", "function": dict(call.function)}]},
        {"role": "tool", "tool_call_id": call.id, "content": result},
    ]
    told = tell(agent, stream, messages, tools=[LOOK], **by_script(RED, BLUE))
    looked_twice(told)
    said = {"macro": "It is red", "micro": "It is blue"}
    assert (told.message.content, told.finish_reason, told.calls) == (said[told.focus["winner"]], "stop", [])
    assert [told.focus["turns"][name]["image_tokens"] for name in ("macro", "micro")] == [128, 192]
    assert told.focus["crop"][2] > 200, "of the tool's picture, which is the conversation's last"
    messages.append({"role": "assistant", "content": told.message.content})
    later = tell(
        agent, stream, [*messages, {"role": "user", "content": "And now?"}], tools=[LOOK], **by_script(RED, BLUE)
    )
    looked_twice(later)


@streamed
@pytest.mark.parametrize("where", ["the question", "the result"])
def test_the_picture_may_be_the_questions_or_the_tools(agent: OpenAI, stream: bool, where: str) -> None:
    words, look = {"type": "text", "text": "Look."}, [picture()]
    function = {"name": "look", "arguments": LEFT}
    messages = [
        {"role": "user", "content": [*(look if where == "the question" else []), words]},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "a", "type": "function", "function": function}]},
        {"role": "tool", "tool_call_id": "a", "content": look if where == "the result" else "The left half."},
    ]
    told = tell(agent, stream, messages, tools=[LOOK], **by_script(RED, BLUE))
    looked_twice(told)
    asked = {"tools": [LOOK], "return_token_ids": True, **by_script(RED, BLUE)}
    prompts = [
        tell(agent, False, messages, **asked, dualfocus={"mode": mode}).pieces[0].prompt_token_ids
        for mode in ("macro", "off")
    ]
    assert prompts[0] == prompts[1], "the macro turn is the request as it came"


def test_an_agent_of_pydantic_ai_goes_round(parsing: Server, tmp_path: Path) -> None:
    (tmp_path / "image.url").write_text(picture()["image_url"]["url"])
    # The second look asks the agent's question again, and with it goes by its script.
    words = ("What is there?", in_words(CALL, BLUE)), ("On the left.", in_words(RED, RED))
    script = map(" ".join, words)
    told = run_client(of_python("ask_agent.py"), parsing, str(tmp_path / "image.url"), *script, model="scripted")
    assert told["called"] == ["left", "left"]
    assert told["text"] == told["streamed"]
    assert told["text"] in ("It is red", "It is blue")
    chosen = [focus["selection"] for focus in told["dualfocus"]]
    assert chosen == ["tool_call", "lower_perplexity"] * 2
    assert all(set(focus["turns"]) == {"macro", "grounding", "micro"} for focus in told["dualfocus"][1::2])


# What is said in words.


@streamed
def test_words_beside_tools_are_chosen_by_two_looks(agent: OpenAI, stream: bool) -> None:
    told = tell(agent, stream, tools=[LOOK], **by_script(RED, BLUE))
    looked_twice(told)
    focus = told.focus
    assert focus["selection"] == "lower_perplexity"
    assert (focus["macro"]["text"], focus["micro"]["text"]) == ("It is red", "It is blue")
    assert (told.message.content, told.finish_reason, told.calls) == (focus[focus["winner"]]["text"], "stop", [])


def test_every_turn_has_the_tools_before_the_picture_and_they_are_computed_once(agent: OpenAI) -> None:
    with_tools, without = (
        tell(agent, False, **tools, **by_script(RED, BLUE)).focus["turns"] for tools in ({"tools": [LOOK, POINT]}, {})
    )
    more = {name: turn["prompt_tokens"] - without[name]["prompt_tokens"] for name, turn in with_tools.items()}
    assert more["macro"] == more["micro"] == more["grounding"] > 2 * BLOCK
    computed = [sum(turn["computed_tokens"] for turn in turns.values()) for turns in (with_tools, without)]
    assert computed[0] <= computed[1] + more["macro"] + BLOCK * len(without)
    assert with_tools["micro"]["cached_tokens"] >= without["micro"]["cached_tokens"] + more["micro"] - BLOCK


@streamed
def test_a_call_of_the_second_look_is_no_answer(agent: OpenAI, stream: bool) -> None:
    told = tell(agent, stream, tools=[LOOK], **by_script(RED, CALL))
    assert (told.message.content, told.calls, told.finish_reason) == ("It is red", [], "stop")
    assert told.focus["winner"] == "macro"
    assert told.focus["selection"] != "lower_perplexity", "there was nothing to compare"


@streamed
def test_strict_tools_hold_a_call_to_their_schema_and_words_to_nothing(agent: OpenAI, stream: bool) -> None:
    """As pydantic-ai and OpenAI's agents send them."""
    strict = LOOK | {"function": LOOK["function"] | {"strict": True}}
    call = CALL.replace("<tool_call>{", "<tool_call>\n{").replace("}<", "}\n<")
    called = tell(agent, stream, tools=[strict], **by_script(call, BLUE))
    assert (called.calls, called.focus["selection"]) == ([("look", LEFT)], "tool_call")
    told = tell(agent, stream, tools=[strict], **by_script(RED, BLUE))
    looked_twice(told)
    assert (told.focus["macro"]["text"], told.focus["micro"]["text"]) == ("It is red", "It is blue")


@streamed
@pytest.mark.parametrize("mode", ["macro", "adaptive"])
def test_other_modes_call_tools_too(agent: OpenAI, stream: bool, mode: str) -> None:
    told = tell(agent, stream, tools=[LOOK], **by_script(CALL, BLUE), dualfocus={"mode": mode})
    assert (told.calls, told.finish_reason, told.focus["winner"]) == ([("look", LEFT)], "tool_calls", "macro")


# What is forced.


@streamed
@forced
@pytest.mark.parametrize("which", ["parsing", "plain"])
def test_a_forced_tool_is_a_schema_for_both_looks(
    request: pytest.FixtureRequest, which: str, choice: Any, stream: bool
) -> None:
    """By the model itself where it has no script, and with no flag where it reads no calls."""
    server: Server = request.getfixturevalue(which)
    client = OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    script = by_script(f"{LEFT}</s>", f"{RIGHT}</s>") if which == "parsing" else {"logit_bias": no_spaces()}
    told = tell(client, stream, tools=[LOOK], tool_choice=choice, **script)
    focus = told.focus
    assert (which, set(focus["turns"])) == (which, {"macro", "grounding", "micro"})
    for name in ("macro", "micro"):
        assert json.loads(focus[name]["text"])["side"] in ("left", "right")
        assert focus[name]["rescored"]
    if which == "parsing":
        assert (focus["macro"]["text"], focus["micro"]["text"]) == (LEFT, RIGHT)
    assert told.calls == [("look", focus[focus["winner"]]["text"])]
    assert told.finish_reason == ("tool_calls" if choice == "required" else "stop")
    assert not told.message.content
    assert focus["selection"] in ("lower_perplexity", "same_answer")


def no_spaces() -> dict[str, int]:
    """Tab, line feed, carriage return, space: what a grammar of JSON allows anywhere, and small models like."""
    return dict.fromkeys(("201", "202", "205", "224"), -100)


@streamed
@forced
def test_a_forced_tool_is_written_under_its_schema_whatever_the_model_would_say(
    agent: OpenAI, choice: Any, stream: bool
) -> None:
    told = tell(agent, stream, tools=[LOOK], tool_choice=choice, **by_script(RED, BLUE), logit_bias=no_spaces())
    assert [name for name, _ in told.calls] == ["look"]
    assert set(json.loads(told.calls[0][1])) == {"side"}


@streamed
def test_one_of_several_is_named(agent: OpenAI, stream: bool) -> None:
    choice = {"type": "function", "function": {"name": "point"}}
    told = tell(agent, stream, tools=[LOOK, POINT], tool_choice=choice, **by_script(f"{LEFT}</s>", f"{RIGHT}</s>"))
    looked_twice(told)
    assert told.calls == [("point", told.focus[told.focus["winner"]]["text"])]


@streamed
@forced
def test_a_forced_tool_without_parameters(client_of_plain: OpenAI, choice: Any, stream: bool) -> None:
    """Libraries send functions that take nothing; the arguments are an object all the same."""
    tool = {"type": "function", "function": {"name": "look"}}
    told = tell(client_of_plain, stream, tools=[tool], tool_choice=choice, logit_bias=no_spaces(), max_tokens=60)
    assert told.calls[0][0] == "look"
    assert set(told.focus["turns"]) >= {"macro", "grounding"}


@streamed
def test_a_forced_call_that_is_cut_says_so(agent: OpenAI, stream: bool) -> None:
    script = by_script(f"{LEFT}</s>", f"{RIGHT}</s>")
    told = tell(agent, stream, tools=[LOOK], tool_choice=NAMED, **script, max_completion_tokens=4)
    assert told.finish_reason == "length"
    assert LEFT.startswith(told.calls[0][1]) or RIGHT.startswith(told.calls[0][1])


@streamed
def test_required_among_several_is_vllms(agent: OpenAI, stream: bool) -> None:
    script = by_script(CALL.replace("<tool_call>{", "<tool_call>\n{").replace("}<", "}\n<"), BLUE)
    asked = {"tools": [LOOK, POINT], "tool_choice": "required", **script}
    told, off = tell(agent, stream, **asked), tell(agent, stream, **asked, **OFF)
    assert told.focus == {"mode": "off", "because": "tools"}
    assert (told.calls, told.finish_reason) == (off.calls, off.finish_reason)


# What is refused, and what is not.


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tools": [LOOK]}, "--enable-auto-tool-choice"),
        ({"tools": [LOOK], "tool_choice": "auto"}, "--enable-auto-tool-choice"),
        ({"tool_choice": "required"}, "tools"),
        ({"tools": [], "tool_choice": "required"}, "tools"),
        ({"tool_choice": NAMED}, "tools"),
        ({"tools": [POINT], "tool_choice": NAMED}, "tools"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_can_not_be_called_is_refused_as_on_vllms_own_way(
    client_of_plain: OpenAI, fields: dict[str, Any], message: str, stream: bool
) -> None:
    refused = []
    for focus in ({}, OFF):
        with pytest.raises(BadRequestError, match=message) as error:
            tell(client_of_plain, stream, **fields, **focus)
        refused.append(error.value.body)
    assert refused[0] == refused[1]


@streamed
@pytest.mark.parametrize(
    "fields",
    [{"tools": []}, {"tools": [], "tool_choice": "auto"}, {"tool_choice": "auto"}, {"tool_choice": "none"}],
)
def test_no_tools_are_no_tools(client_of_plain: OpenAI, fields: dict[str, Any], stream: bool) -> None:
    told = tell(client_of_plain, stream, **fields)
    assert set(told.focus["turns"]) >= {"macro", "grounding"}
    assert told.calls == []


async def test_questions_with_tools_and_without_are_answered_at_once(parsing: Server) -> None:
    kinds: list[dict[str, Any]] = [
        {"tools": [LOOK], **by_script(CALL, BLUE)},
        {"tools": [LOOK], **by_script(RED, BLUE)},
        {"tools": [LOOK], "tool_choice": NAMED, **by_script(f"{LEFT}</s>", f"{LEFT}</s>")},
        by_script(RED, RED),
    ]
    async with httpx.AsyncClient(base_url=parsing.url, timeout=PATIENCE) as http:
        asked = [http.post(CHAT, json={"messages": about(), "max_tokens": 200, **kind}) for kind in kinds * 3]
        answers = [response.json() for response in await asyncio.gather(*asked)]
    assert [answer["dualfocus"]["selection"] for answer in answers] == [
        "tool_call",
        "lower_perplexity",
        "same_answer",
        "same_answer",
    ] * 3


def test_a_stream_of_a_call_has_the_keys_of_vllms_own(parsing: Server) -> None:
    """Piece by piece: the role, the call's beginning, its arguments, the last piece. Chosen, it comes in one piece."""
    by_vllm, macro, dual = (shapes(parsing, **more) for more in (OFF, {"dualfocus": {"mode": "macro"}}, {}))
    assert by_vllm == macro == dual | {"calls": by_vllm["calls"]}
    assert dual["calls"] < by_vllm["calls"]


def shapes(server: Server, **more: Any) -> dict[str, Any]:
    """What a stream of a call is made of."""
    body = {"messages": about(), "tools": [LOOK], "max_tokens": 200, **by_script(CALL, BLUE), **more}
    with httpx.stream("POST", server.url + CHAT, json=body | {"stream": True}, timeout=PATIENCE) as response:
        choices = [piece["choices"][0] for piece in chunks(list(response.iter_lines()))]
    calls = [call for choice in choices for call in choice["delta"].get("tool_calls", [])]
    return {
        "first": set(choices[0]["delta"]),
        "calls": {frozenset(call) for call in calls},
        "places": {call["index"] for call in calls},
        "reason": choices[-1]["finish_reason"],
    }
