"""What a listener is told of turns while they run; on a scripted engine."""

from dataclasses import replace

import pytest
from dualfocus_engine.errors import BadQuestion
from dualfocus_engine.method.questions import Question
from dualfocus_engine.method.results import Mode, TurnDelta

from ..builders import asked, plain
from ..fake_engine import FakeEngine, focus_on

IMAGE = plain(size=(1000, 500))
QUESTION = Question((asked("What colour?\nAnswer the question using a single word or phrase.", IMAGE),))


class Notes:
    """A watcher that keeps what it is told."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.accepted: list[str] = []
        self.written: list[str] = []

    def on_turn_start(self, turn: str) -> None:
        self.begun.append(turn)

    def on_turn_accepted(self, turn: str) -> None:
        self.accepted.append(turn)

    def on_text(self, written: TurnDelta) -> None:
        self.written.append(written.text)


@pytest.mark.parametrize(
    ("mode", "begun", "written"),
    [
        (Mode.DUAL, {"macro", "grounding", "micro"}, []),
        (Mode.MICRO, {"grounding", "micro"}, []),
        (Mode.MACRO, {"macro"}, ["macro", "answer"]),
    ],
)
async def test_watcher_sees_turns_begin_and_an_answer_that_can_not_lose(
    mode: Mode, begun: set[str], written: list[str]
) -> None:
    notes = Notes()
    await focus_on(FakeEngine()).answer(replace(QUESTION, mode=mode), notes)
    assert (set(notes.begun), len(notes.begun), notes.written) == (begun, len(begun), written)
    if mode is not Mode.MACRO:
        assert notes.begun.index("grounding") < notes.begun.index("micro")


@pytest.mark.parametrize(
    ("mode", "accepted"), [(Mode.DUAL, ["macro", "micro"]), (Mode.MACRO, ["macro"]), (Mode.MICRO, ["micro"])]
)
async def test_watcher_is_told_of_each_answer_that_the_engine_has_taken(mode: Mode, accepted: list[str]) -> None:
    """Never of the grounding turn: the client has no say in how that is sampled."""
    notes = Notes()
    await focus_on(FakeEngine()).answer(replace(QUESTION, mode=mode), notes)
    assert notes.accepted == accepted


@pytest.mark.parametrize("mode", list(Mode))
async def test_watcher_is_not_told_of_an_answer_that_the_engine_refuses(mode: Mode) -> None:
    notes, refused = Notes(), BadQuestion("out of vocabulary", "logit_bias")
    with pytest.raises(BadQuestion):
        await focus_on(FakeEngine(macro=refused, micro=refused)).answer(replace(QUESTION, mode=mode), notes)
    assert notes.accepted == []
