"""Eq. 4: the loss is L1 + L2, and nothing but A1 and A2 counts."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from dualfocus_training.batches import Batch, collate
from dualfocus_training.conversations import Conversation, asks, says
from dualfocus_training.learner import SceneLearner
from dualfocus_training.objective import IGNORED, answer_loss
from dualfocus_training.rounds import RoundsBatch, RoundsLearner, collate_rounds
from dualfocus_training.rows import Mixture, SceneRows
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
def rounds(processor: Any) -> RoundsBatch:
    return collate_rounds(processor, [(CONVERSATION, PICTURES)])


def test_both_rounds_in_one_pass_equal_two_passes(learner: SceneLearner, processor: Any, rounds: RoundsBatch) -> None:
    together = RoundsLearner(learner.model)(rounds)["words"]
    first = Conversation(["picture.png"], CONVERSATION.messages[:2])
    box = RoundsLearner(learner.model)(collate_rounds(processor, [(first, PICTURES[:1])]))["words"]
    answer = _without_first_answer(rounds)
    torch.testing.assert_close(together, box + RoundsLearner(learner.model)(answer)["words"])


def _without_first_answer(batch: RoundsBatch) -> RoundsBatch:
    learned = (batch.labels != IGNORED).int()
    ends = torch.cumsum(torch.diff(learned, prepend=torch.zeros(1, 1, dtype=torch.int)).clamp(min=0), 1)
    return RoundsBatch(batch.inputs, batch.labels.masked_fill(ends < 2, IGNORED), batch.weights)


def test_the_loss_ignores_all_but_the_answers() -> None:
    torch.manual_seed(0)
    logits = torch.randn(1, 6, 5)
    labels = torch.tensor([[IGNORED, IGNORED, 3, 1, IGNORED, 2]])
    weights = torch.tensor([[0.0, 0.0, 0.5, 0.5, 0.0, 1.0]])
    other = logits.clone()
    # Position 1 predicts 2, 2 predicts 3, 4 predicts 5; the rest predict nothing that is learned.
    other[:, [0, 3, 5]] = torch.randn(1, 3, 5)
    assert answer_loss(other, labels, weights, 1) == answer_loss(logits, labels, weights, 1)
    other[:, 4] += torch.arange(5)
    assert answer_loss(other, labels, weights, 1) != answer_loss(logits, labels, weights, 1)


def test_each_answer_weighs_the_same_whatever_its_length(rounds: RoundsBatch) -> None:
    learned = rounds.labels != IGNORED
    assert rounds.weights[learned].sum() == pytest.approx(2.0)
    assert rounds.weights[~learned].sum() == 0


def test_a_packed_row_costs_what_its_branches_cost(
    learner: SceneLearner, rows_of: Callable[[Mixture], SceneRows], processor: Any
) -> None:
    batch = collate([rows_of(Mixture(macro=1, grounding=1, dual=1))[1]], processor.tokenizer.pad_token_id)
    together = learner(batch)["words"]
    branches = [_only(batch, branch) for branch in range(1, 4)]
    apart = sum(learner(branch)["words"] for branch in branches)
    torch.testing.assert_close(together, apart)


def _only(batch: Batch, branch: int) -> Batch:
    labels = batch.labels.masked_fill(batch.branches != branch, IGNORED)
    return Batch(**{**vars(batch), "labels": labels})
