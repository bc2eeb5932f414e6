"""Eq. 4: the loss is L1 + L2, and nothing but A1 and A2 counts."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from dualfocus_engine.families.profiles import Profile
from dualfocus_training.learning.conversations import Conversation, asks, says
from dualfocus_training.learning.learner import SceneLearner
from dualfocus_training.learning.objective import IGNORED, TERMS, TargetBatch, Targets, answer_losses, padded_targets
from dualfocus_training.learning.rounds import RoundsBatch, RoundsLearner, Template, collate_rounds
from PIL import Image

CONVERSATION = Conversation(
    ["picture.png", "crop.png"],
    [
        asks("Provide the coordinates of the region this question is asking about: What?"),
        says("[0.20, 0.41, 0.37, 0.74]"),
        asks("Combine these two images and answer the question: What?"),
        says("42"),
    ],
)
PICTURES = [Image.new("RGB", (32, 32), "red"), Image.new("RGB", (32, 32), "blue")]


@pytest.fixture
def template(processor: Any, profile: Profile) -> Template:
    return Template(processor, profile)


@pytest.fixture
def rounds(template: Template) -> RoundsBatch:
    return collate_rounds(template, [(CONVERSATION, PICTURES)])


def test_both_rounds_in_one_pass_equal_two_passes(
    learner: SceneLearner, template: Template, rounds: RoundsBatch
) -> None:
    rounds_learner = RoundsLearner(learner.model)
    together = rounds_learner(rounds)
    first = Conversation(["picture.png"], CONVERSATION.messages[:2])
    alone = rounds_learner(collate_rounds(template, [(first, PICTURES[:1])]))
    second = rounds_learner(RoundsBatch(rounds.inputs, _only_the_answer(rounds.targets)))
    # On its own the first round has one picture, as a macro sample does.
    torch.testing.assert_close(together["box"], alone["macro"])
    torch.testing.assert_close(together["answer"], second["answer"])
    torch.testing.assert_close(sum(together.values()), alone["macro"] + second["answer"])


def _only_the_answer(targets: TargetBatch) -> TargetBatch:
    return replace(targets, labels=targets.labels.masked_fill(targets.terms != TERMS.index("answer"), IGNORED))


def test_the_loss_ignores_all_but_the_answers() -> None:
    torch.manual_seed(0)
    targets = Targets()
    targets.pass_over(2)
    targets.learn([3, 1], "box")
    targets.pass_over(1)
    targets.learn([2], "answer")
    batch, logits = padded_targets([targets], 7), torch.randn(1, 7, 5)
    losses = _losses(logits, batch)
    other = logits.clone()
    # Position 1 predicts 2, 2 predicts 3, 4 predicts 5; the rest predict nothing that is learned.
    other[:, [0, 3, 5, 6]] = torch.randn(1, 4, 5)
    assert _losses(other, batch) == losses
    other[:, 4] += torch.arange(5)
    changed = _losses(other, batch)
    assert changed["box"] == losses["box"]
    assert changed["answer"] != losses["answer"]


def _losses(logits: torch.Tensor, batch: TargetBatch) -> dict[str, torch.Tensor]:
    return answer_losses(logits[:, :-1][batch.learned], torch.nn.Identity(), batch)


def test_the_places_that_predict_come_in_order_and_padded() -> None:
    one, other = Targets(), Targets()
    one.pass_over(2)
    one.learn([3, 1], "box")
    one.pass_over(1)
    one.learn([2], "answer")
    other.pass_over(1)
    other.learn([4], "macro")
    places, there = padded_targets([one, other], 7).predicting()
    assert places[there].tolist() == [1, 2, 4, 0]
    assert there.tolist() == [[True, True, True], [True, False, False]]


def test_each_answer_weighs_the_same_whatever_its_length(rounds: RoundsBatch) -> None:
    learned = rounds.targets.labels != IGNORED
    assert rounds.targets.weights[learned].sum() == pytest.approx(2.0)
    assert rounds.targets.weights[~learned].sum() == 0
