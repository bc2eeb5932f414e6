"""The quick look at what comes behind the second look, by models that know all and nothing."""

from collections.abc import Callable, Sequence
from itertools import chain

import pytest
from dualfocus_engine.families.boxes import Box, Region, crop_region
from dualfocus_engine.families.profiles import Profile
from dualfocus_eval.report.outcomes import Said
from dualfocus_eval.scenes.held_out import Asked, held_out
from dualfocus_training.further_looks import look_for_enough, look_on
from dualfocus_training.learning.views import deeper_box, is_enough
from dualfocus_training.looker import Turn

Answer = Callable[[Turn], str]


class Fake:
    """Answers by rule, and keeps what it was asked."""

    def __init__(self, profile: Profile, answer: Answer) -> None:
        self.profile, self._answer = profile.model_copy(update={"image_size": 128}), answer
        self.turns: list[Turn] = []

    def answer(self, turns: Sequence[Turn], most_tokens: int = 0) -> list[Said]:
        self.turns += turns
        return [Said(self._answer(turn), 1.0) for turn in turns]


@pytest.fixture(scope="module")
def asked() -> list[Asked]:
    return list(chain(held_out(900, 3, mix="several"), held_out(900, 1, mix="fine")))


def text_of(turn: Turn) -> str:
    return str(turn.messages[-1]["content"][-1]["text"])


def all_knowing(profile: Profile, asked: Sequence[Asked]) -> Answer:
    """Everything right, each by what the last message asks."""

    def write(*boxes: Box) -> str:
        return ", ".join(map(profile.box_format.write, boxes))

    def answer(turn: Turn) -> str:
        text = text_of(turn)
        (one,) = {one.question.question: one for one in asked if text.endswith(one.question.question)}.values()
        box = Box(*one.question.box.as_tuple())
        if text == profile.grounding_text(one.question.question):
            return write(box)
        if text == profile.grounding_text(one.question.question, regions=True):
            return write(*(Box(*each.as_tuple()) for each in one.question.boxes))
        first = crop_region(box, one.picture.size, profile.crop)
        assert first is not None
        if text == profile.deeper_text(one.question.question):
            return write(Box(*deeper_box(one.scene, one.question, first).as_tuple()))
        if text.startswith("Can"):
            views = [Region(0, 0, *one.picture.size), first] if len(turn.pictures) == 2 else []
            return "Yes" if len(turn.pictures) == 3 or is_enough(one.scene, one.question, views, 128) else "No"
        return one.question.answer

    return answer


def test_a_model_that_knows_all_is_right_in_all(profile: Profile, asked: list[Asked]) -> None:
    looker = Fake(profile, all_knowing(profile, asked))
    figures = look_on(looker, asked)  # type: ignore[arg-type]
    assert set(figures) == {"lists", "regions", "regions_true", "inside_iou", "deeper", "deeper_true"}
    assert all(min(column) > 0.8 for column in figures.values())
    # Each turn holds as many pictures as its messages show, and no answer but boxes.
    for turn in looker.turns:
        parts = [part for message in turn.messages for part in message["content"]]
        assert sum(part["type"] == "image" for part in parts) == len(turn.pictures)
        assert all(m["content"][0]["text"].startswith("[") for m in turn.messages if m["role"] == "assistant")


def test_a_model_without_boxes_is_right_by_the_true_ones_alone(profile: Profile, asked: list[Asked]) -> None:
    knows = all_knowing(profile, asked)
    blind = Fake(profile, lambda turn: "nowhere" if knows(turn).startswith("[") else knows(turn))
    figures = {name: sum(column) for name, column in look_on(blind, asked).items()}  # type: ignore[arg-type]
    everything = len(asked)
    assert figures == {
        "lists": 0,
        "regions": 0,
        "regions_true": everything,
        "inside_iou": 0,
        "deeper": 0,
        "deeper_true": everything,
    }


def test_verdicts_are_held_against_what_the_views_show(profile: Profile, asked: list[Asked]) -> None:
    figures = look_for_enough(Fake(profile, lambda turn: "Yes"), asked)  # type: ignore[arg-type]
    assert figures["whole"] == 0, "no print here can be read in the whole picture"
    assert (figures["Yes"], figures["No"]) == (1, 0)
    assert len(asked) < figures["views"] <= 3 * len(asked)
