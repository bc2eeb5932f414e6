"""Packed rows: each branch is computed as if it stood alone."""

from collections.abc import Callable

import pytest
import torch
from dualfocus_training.batches import collate
from dualfocus_training.learner import SceneLearner
from dualfocus_training.objective import IGNORED
from dualfocus_training.rows import Mixture, Row, SceneRows
from transformers import PreTrainedTokenizerFast

RowsOf = Callable[[Mixture], SceneRows]
MIXTURE = Mixture(macro=2, grounding=2, dual=2, jittered=1)


def test_a_branch_reads_as_it_would_alone(
    learner: SceneLearner, rows_of: RowsOf, tokenizer: PreTrainedTokenizerFast
) -> None:
    row = rows_of(MIXTURE)[3]
    batch = collate([row], tokenizer.pad_token_id)
    features = learner.features(batch.pictures)
    packed = learner.model.lm_head(learner.hidden(features, batch))[0]
    used = 1
    for branch in range(1, max(row.branches) + 1):
        places, tokens = _alone(row, branch)
        crops = (tokens.count(learner.model.config.image_token_id) - 4) // 4
        pictures = batch.pictures[[0, *range(used, used + crops)]]
        alone = learner.model(
            input_ids=torch.tensor([tokens]),
            pixel_values=learner.normalised(pictures),
            attention_mask=torch.ones(1, len(tokens), dtype=torch.long),
        ).logits[0]
        torch.testing.assert_close(packed[places], alone, atol=1e-4, rtol=1e-4)
        used += crops
    assert used == len(batch.pictures)


def _alone(row: Row, branch: int) -> tuple[list[int], list[int]]:
    places = [place for place, number in enumerate(row.branches) if number in (0, branch)]
    return places, [row.tokens[place] for place in places]


def test_the_same_number_gives_the_same_row(rows_of: RowsOf) -> None:
    first, again, other = rows_of(MIXTURE)[5], rows_of(MIXTURE)[5], rows_of(MIXTURE)[6]
    assert first.tokens == again.tokens
    assert all((one == two).all() for one, two in zip(first.pictures, again.pictures, strict=True))
    assert first.tokens != other.tokens


def test_only_answers_are_learned(rows_of: RowsOf, tokenizer: PreTrainedTokenizerFast) -> None:
    row = rows_of(Mixture(dual=1))[0]
    learned = [label for label in row.labels if label != IGNORED]
    box, answer, rest = tokenizer.decode(learned).split("</s>")
    assert box.startswith("[")
    assert answer
    assert not rest
    assert sum(row.weights) == pytest.approx(2.0)


def test_a_box_that_is_off_is_no_target(rows_of: RowsOf, tokenizer: PreTrainedTokenizerFast) -> None:
    row = rows_of(Mixture(jittered=1))[0]
    learned = [label for label in row.labels if label != IGNORED]
    assert "[" in tokenizer.decode(row.tokens)
    assert "[" not in tokenizer.decode(learned)
