"""The pieces of a streamed answer: every key where strict decoders want it, text that adds up, what is being done."""

import json
from typing import Any

import pytest
from dualfocus_engine import FocusResult, Mode, SecondLook, Selection
from dualfocus_server.answering.protocol import FocusResponse
from dualfocus_server.answering.report import completion
from dualfocus_server.api.pieces import FocusWriter, Pieces
from openai.types.chat import ChatCompletionChunk
from vllm.entrypoints.generate.base.protocol import DeltaMessage

from ..builders import turn
from ..readers import choice_of, piece, reader

Body = dict[str, Any]


class Written:
    """Stands for the events of an answer: keeps them, and whether the answer has begun."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.has_begun = False

    def put(self, event: str) -> None:
        self.lines.append(event)

    def begin(self) -> None:
        self.has_begun = True

    def bodies(self) -> list[Body]:
        """The pieces, without what ends them all."""
        assert self.lines[-1] == "data: [DONE]\n\n"
        assert all(line.startswith("data: ") and line.endswith("\n\n") for line in self.lines)
        return [json.loads(line.removeprefix("data: ")) for line in self.lines[:-1]]


# Whether usage follows an answer, and whether each piece says it.
NONE, AT_THE_END, ALWAYS = (False, False), (True, False), (True, True)


def written(*texts: str, progress: bool = False, usage: tuple[bool, bool] = NONE, **said: Any) -> list[Body]:
    """The pieces of an answer that came as these texts, after macro began."""
    answer = turn("".join(texts), **said)
    result = FocusResult("macro", Selection.ONLY_ANSWER, answer, SecondLook(), 1.0)
    response: FocusResponse = completion([result], Mode.MACRO, "model", "1", [choice_of(answer)])
    response.system_fingerprint = "vllm-1"
    written = Written()
    pieces, parse_delta = Pieces("chatcmpl-1", "model", "assistant"), reader().delta_parser()
    writer = FocusWriter(written, parse_delta, pieces, progress, usage)  # type: ignore[arg-type]
    writer.on_turn_start("macro")
    for text in texts:
        writer.on_text(piece(text))
    writer.write_end(response)
    return written.bodies()


@pytest.mark.parametrize("texts", [("one ", "two ", "three"), ("all at once",), ("",)])
def test_every_piece_but_the_last_has_finish_reason_null(texts: tuple[str, ...]) -> None:
    choices = [body["choices"][0] for body in written(*texts)]
    assert [choice["finish_reason"] for choice in choices] == [None] * (len(choices) - 1) + ["stop"]


def test_the_last_piece_has_no_content_and_the_stop_reason() -> None:
    *_, last = written("one", stop_reason="END")
    assert last["choices"][0]["delta"] == {"content": ""}
    assert last["choices"][0]["stop_reason"] == "END"
    assert written("one")[-1]["choices"][0]["stop_reason"] is None


def test_a_delta_with_nothing_in_it_is_not_written() -> None:
    """Parsers of calls return such ones once a call is done; on `/v1/messages` each would open a block of text."""
    told = [{"content": ""}, {"content": "red"}, {"content": ""}, {"reasoning": ""}, {"content": "cup"}]
    deltas = iter([DeltaMessage(**fields) for fields in told])
    events = Written()
    writer = FocusWriter(events, lambda _: next(deltas), Pieces("1", "model", "assistant"), False, NONE)  # type: ignore[arg-type]
    for text in "abcde":
        writer.on_text(piece(text))
    events.put("data: [DONE]\n\n")
    told_so_far = [body["choices"][0]["delta"]["content"] for body in events.bodies()]
    assert told_so_far == ["", "red"], "the role, then all but the last, which waits for the dualfocus field"


@pytest.mark.parametrize("progress", [False, True])
def test_content_can_be_added_up_without_looking(progress: bool) -> None:
    bodies = written("one ", "two ", "three", progress=progress)
    assert "".join(body["choices"][0]["delta"]["content"] for body in bodies) == "one two three"


def test_openais_types_find_every_key_that_they_require() -> None:
    for body in written("one ", "two", progress=True, usage=AT_THE_END):
        chunk = ChatCompletionChunk.model_validate(body, strict=True)
        assert all(choice.delta.content is not None for choice in chunk.choices)


def test_the_last_of_the_text_carries_how_the_answer_was_found() -> None:
    bodies = written("one ", "two ", "three", usage=AT_THE_END)
    assert ["dualfocus" in body for body in bodies] == [False, False, False, True, False, False]
    assert bodies[3]["dualfocus"]["selection"] == "only_answer"
    assert bodies[3]["dualfocus"]["micro"] is None


def test_usage_follows_in_a_piece_without_choices_and_names_the_fingerprint() -> None:
    *_, last, usage = written("one", usage=AT_THE_END)
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == 3
    assert (usage["system_fingerprint"], "system_fingerprint" in last) == ("vllm-1", False)
    assert written("one")[-1]["system_fingerprint"] == "vllm-1"


def test_all_pieces_are_of_one_answer() -> None:
    bodies = written("one ", "two", progress=True, usage=AT_THE_END)
    heads = {(body["id"], body["object"], body["created"], body["model"]) for body in bodies}
    assert [head[:2] for head in heads] == [("chatcmpl-1", "chat.completion.chunk")]


def test_what_is_being_done_is_told_to_a_client_that_asks() -> None:
    bodies = written("one", progress=True)
    told = [body for body in bodies if "progress" in body.get("dualfocus", {})]
    assert [body["dualfocus"] for body in told] == [{"progress": "waiting"}, {"progress": "macro"}]
    assert {json.dumps(body["choices"][0]["delta"]) for body in told} == {'{"content": ""}'}
    assert bodies.index(told[0]) == 1, "after the role"


def test_and_to_no_other() -> None:
    assert not any("progress" in body.get("dualfocus", {}) for body in written("one"))


def test_an_answer_begins_when_the_engine_has_taken_a_turn_not_when_the_turn_starts() -> None:
    events = Written()
    pieces, parse_delta = Pieces("chatcmpl-1", "model", "assistant"), reader().delta_parser()
    writer = FocusWriter(events, parse_delta, pieces, True, NONE)  # type: ignore[arg-type]
    for name in ("grounding", "macro", "micro"):
        writer.on_turn_start(name)
    assert not events.has_begun
    writer.on_turn_accepted("macro")
    assert events.has_begun


def test_each_piece_says_what_was_used_so_far_where_that_is_asked_for() -> None:
    bodies = written("one ", "two", progress=True, usage=ALWAYS)
    used = [body["usage"]["completion_tokens"] for body in bodies]
    assert used == [0] * (len(bodies) - 3) + [3, 3, 3], "a turn is counted once it has ended"
    assert not any("usage" in body for body in written("one", usage=AT_THE_END)[:-1])


def test_an_answer_is_said_by_the_role_that_the_server_was_given() -> None:
    first = json.loads(Pieces("chatcmpl-1", "model", "narrator").role().removeprefix("data: "))
    assert first["choices"][0]["delta"]["role"] == "narrator"
