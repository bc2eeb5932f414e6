"""Packed rows: each branch is computed as if it stood alone."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from dualfocus_eval.scenes.mixes import MIXES
from dualfocus_training.learning.batches import collate
from dualfocus_training.learning.learner import SceneLearner
from dualfocus_training.learning.objective import IGNORED, TERMS, Targets, answer_losses, padded_targets
from dualfocus_training.learning.packing import SceneRows
from dualfocus_training.learning.rows import Branch, Mixture, Row
from transformers import PreTrainedTokenizerFast

RowsOf = Callable[..., SceneRows]
MIXTURE = Mixture(macro=2, grounding=2, dual=2, jittered=1, crops=1)
BEYOND = Mixture(macro=1, lists=1, regions=3, inside=1, deeper=2, enough=4, crops=1)


@pytest.mark.parametrize("mixture", [MIXTURE, BEYOND], ids=["paper", "beyond"])
@pytest.mark.parametrize("difficulty", ["standard", "fine", "several"])
def test_a_batch_costs_what_its_branches_cost_alone(
    mixture: Mixture, difficulty: str, learner: SceneLearner, rows_of: RowsOf, tokenizer: PreTrainedTokenizerFast
) -> None:
    drawn = rows_of(mixture, MIXES[difficulty].difficulty, system=0.7)
    rows = [drawn[number] for number in range(3, 8)]
    assert len({len(row.prefix) for row in rows}) > 1, "some begin with a system message, so that prefixes are padded"
    together = learner(collate(rows, tokenizer.pad_token_id))
    apart = [_alone(learner, row, branch) for row in rows for branch in row.branches]
    for term in TERMS:
        torch.testing.assert_close(together[term], torch.stack([losses[term] for losses in apart]).mean())


def _alone(learner: SceneLearner, row: Row, branch: Branch) -> dict[str, torch.Tensor]:
    """The branch's losses through the plain model: one sequence, its own pictures."""
    shown = [row.picture, *branch.crops]
    tokens = torch.tensor([row.prefix + branch.tokens])
    logits = learner.model(
        input_ids=tokens,
        pixel_values=learner.normalised(torch.from_numpy(np.stack(shown))),
        attention_mask=torch.ones_like(tokens),
    ).logits
    targets = Targets()
    targets.pass_over(len(row.prefix))
    for whole, part in zip(vars(targets).values(), vars(branch.targets).values(), strict=True):
        whole.extend(part)
    batch = padded_targets([targets], tokens.shape[1])
    return answer_losses(logits[:, :-1][batch.learned], torch.nn.Identity(), batch)


def test_the_same_number_gives_the_same_row(rows_of: RowsOf) -> None:
    first, again, other = rows_of(MIXTURE)[5], rows_of(MIXTURE)[5], rows_of(MIXTURE)[6]
    assert [b.tokens for b in first.branches] == [b.tokens for b in again.branches]
    assert (first.picture == again.picture).all()
    assert [b.tokens for b in first.branches] != [b.tokens for b in other.branches]


def test_only_answers_are_learned(rows_of: RowsOf, tokenizer: PreTrainedTokenizerFast) -> None:
    (branch,) = rows_of(Mixture(dual=1))[0].branches
    box, answer, rest = tokenizer.decode(_learned(branch)).split("</s>")
    assert box.startswith("[")
    assert answer
    assert not rest
    assert sum(branch.targets.weights) == pytest.approx(2.0)


def test_a_box_that_is_off_is_no_target(rows_of: RowsOf, tokenizer: PreTrainedTokenizerFast) -> None:
    (branch,) = rows_of(Mixture(jittered=1))[0].branches
    assert "[" in tokenizer.decode(branch.tokens)
    assert "[" not in tokenizer.decode(_learned(branch))


def test_pictures_come_with_the_labels_of_their_own_patches(
    rows_of: RowsOf, tokenizer: PreTrainedTokenizerFast
) -> None:
    row = rows_of(BEYOND)[2]
    batch = collate([row], tokenizer.pad_token_id)
    crops = [crop for branch in row.branches for crop in branch.crops]
    shown = [row.picture, *crops, *row.crops]
    assert len(shown) == len(row.patches) == len(batch.pictures)
    known = {picture.tobytes(): labels for picture, labels in zip(shown, row.patches, strict=True)}
    for picture, classes in zip(batch.pictures, batch.classes, strict=True):
        assert (known[picture.numpy().tobytes()].classes == classes.numpy()).all()


def _learned(branch: Branch) -> list[int]:
    return [label for label in branch.targets.labels if label != IGNORED]
