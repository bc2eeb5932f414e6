"""Rows beyond the paper's two rounds: several regions, a crop of the crop, is it enough, system messages."""

import re
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from random import Random

import numpy as np
import pytest
from dualfocus_engine.families.boxes import Box, CropPolicy, Region, crop_region
from dualfocus_eval.boxes import Box as SceneBox
from dualfocus_eval.scenes.generate import compose_all
from dualfocus_eval.scenes.layout import Scene
from dualfocus_eval.scenes.mixes import APART, FINE, MIXES
from dualfocus_eval.scenes.questions import ask
from dualfocus_training.learning.objective import IGNORED
from dualfocus_training.learning.packing import SceneRows
from dualfocus_training.learning.patches import label_patches
from dualfocus_training.learning.rows import Branch, Mixture, Row
from dualfocus_training.learning.views import deeper_box, is_enough, widen
from transformers import PreTrainedTokenizerFast

RowsOf = Callable[..., SceneRows]
SIDE = 128
BOX = re.compile(r"\[(\d\.\d\d), (\d\.\d\d), (\d\.\d\d), (\d\.\d\d)\]")


def scenes_of(mix: str, count: int) -> list[tuple[Scene, Random]]:
    return list(compose_all(31, count, MIXES[mix].difficulty))


def learned(branch: Branch, tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """The answers that a branch teaches."""
    text: str = tokenizer.decode([label for label in branch.targets.labels if label != IGNORED])
    return text.removesuffix("</s>").split("</s>")


def branches_of(rows: SceneRows, count: int) -> list[tuple[Row, Branch]]:
    return [(row, branch) for row in map(rows.__getitem__, range(count)) for branch in row.branches]


def test_a_box_for_each_thing_and_a_crop_for_each_box(rows_of: RowsOf, tokenizer: PreTrainedTokenizerFast) -> None:
    lists = 0
    for _, branch in branches_of(rows_of(Mixture(regions=2), APART), 12):
        written = BOX.findall(tokenizer.decode(branch.tokens).split("</s>")[0])
        assert 1 <= len(branch.crops) <= len(written) <= 3
        *boxes, answer = learned(branch, tokenizer)
        assert "[" not in answer
        if boxes:
            assert BOX.findall(boxes[0]) == written
            lists += len(written) > 1
        assert sum(branch.targets.weights) == pytest.approx(1 + len(boxes))
    assert lists > 5


def test_print_is_verified_by_two_rounds(rows_of: RowsOf, tokenizer: PreTrainedTokenizerFast) -> None:
    branches = branches_of(rows_of(Mixture(verified=2), MIXES["standard"].difficulty), 12)
    answers = Counter(learned(branch, tokenizer)[-1] for _, branch in branches)
    assert all(len(branch.crops) == 1 for _, branch in branches)
    assert (set(answers), answers.total()) == ({"yes", "no"}, 24)


def test_each_box_of_a_list_is_pointed_at(rows_of: RowsOf, tokenizer: PreTrainedTokenizerFast) -> None:
    rows, counts = rows_of(Mixture(lists=4), APART, side=SIDE), set()
    for _, branch in branches_of(rows, 12):
        (boxes,) = learned(branch, tokenizer)
        assert not branch.crops
        assert ", ".join(f"[{', '.join(box)}]" for box in BOX.findall(boxes)) == boxes
        if boxes != "[0.00, 0.00, 1.00, 1.00]":
            assert [span.stop - span.start for span, _ in branch.points] == [13] * len(BOX.findall(boxes))
            counts.add(len(branch.points))
    assert counts == {1, 2, 3}


def test_where_in_a_crop_is_taught_without_the_next_one(rows_of: RowsOf, tokenizer: PreTrainedTokenizerFast) -> None:
    for _, branch in branches_of(rows_of(Mixture(inside=2)), 4):
        (box,) = learned(branch, tokenizer)
        assert len(BOX.findall(box)) == len(branch.crops) == 1


def test_each_print_is_read_from_its_own_crop(rows_of: RowsOf, tokenizer: PreTrainedTokenizerFast) -> None:
    rows, seen = rows_of(Mixture(regions=2), APART), 0
    for row, branch in branches_of(rows, 12):
        text = tokenizer.decode(branch.tokens)
        if not re.search("Read the|What (numbers|letters)", text) or len(branch.crops) != text.count("["):
            continue
        tokens = np.array([*row.prefix, *branch.tokens])
        pictures = np.flatnonzero(tokens == tokenizer.convert_tokens_to_ids("<image>")).reshape(-1, rows.eye.patches**2)
        answers = branch.points[-len(branch.crops) :]
        assert [_picture_of(places, pictures) for _, places in answers] == list(range(1, len(branch.crops) + 1))
        assert all(before.stop <= after.start for (before, _), (after, _) in pairwise(answers))
        seen += 1
    assert seen > 3


def _picture_of(places: np.ndarray, pictures: np.ndarray) -> int:
    (number,) = {int(np.flatnonzero((pictures == place).any(1))[0]) for place in places}
    return number


def region_of(scene: Scene, box: SceneBox | Box) -> Region:
    region = crop_region(Box(*box.as_tuple()), (scene.width, scene.height), CropPolicy())
    assert region is not None
    return region


@pytest.mark.parametrize("mix", ["standard", "fine"])
def test_the_part_of_a_crop_shows_the_print_as_large_as_it_needs(mix: str) -> None:
    for scene, rng in scenes_of(mix, 30):
        for question in ask(scene, rng):
            if question.kind == "detail":
                first = region_of(scene, widen(question.box, rng))
                box = deeper_box(scene, question, first)
                second = region_of(scene, Box(*box.as_tuple()).within(first, (scene.width, scene.height)))
                assert is_enough(scene, question, [second], SIDE)
                assert second.area <= first.area
                (place,) = question.about
                x, y = scene.shapes[place].print.centre
                assert (box.x1 + box.x2) / 2 == pytest.approx((x - first.left) / (first.right - first.left), abs=0.05)
                assert (box.y1 + box.y2) / 2 == pytest.approx((y - first.top) / (first.bottom - first.top), abs=0.05)


def test_the_second_crop_is_one_of_the_first(rows_of: RowsOf, tokenizer: PreTrainedTokenizerFast) -> None:
    boxes = 0
    for _, branch in branches_of(rows_of(Mixture(deeper=3), FINE), 6):
        assert len(branch.crops) == 2
        *taught, answer = learned(branch, tokenizer)
        assert "[" not in answer
        written = BOX.findall(tokenizer.decode(branch.tokens))
        assert len(written) == 2
        assert [BOX.findall(text) for text in taught] in ([], [[written[1]]]), "the first box is given"
        boxes += len(taught)
    assert boxes > 5


def test_a_widened_box_holds_the_box() -> None:
    rng = Random(3)
    box = SceneBox(0.4, 0.1, 0.5, 0.3)
    for _ in range(200):
        wide = widen(box, rng)
        assert wide.shared_with(box).area == pytest.approx(box.area)
        assert 0 <= wide.x1 < wide.x2 <= 1
        assert wide.area < 10 * box.area


@pytest.mark.parametrize(("mix", "in_crop"), [("standard", True), ("fine", False)])
def test_what_is_enough_is_true_of_the_print(mix: str, in_crop: bool) -> None:
    for scene, rng in scenes_of(mix, 20):
        for question in ask(scene, rng):
            crop = region_of(scene, question.box)
            if question.kind == "detail":
                assert is_enough(scene, question, [], SIDE) is False
                assert is_enough(scene, question, [crop], SIDE) in ((True,) if in_crop else (False, None))
                elsewhere = Region(0, 0, 1, 1)
                assert is_enough(scene, question, [elsewhere], SIDE) is False
            if question.kind == "global":
                assert is_enough(scene, question, [], SIDE) is True


def test_all_of_several_must_be_readable() -> None:
    for scene, rng in scenes_of("several", 20):
        for question in MIXES["several"].ask(scene, rng):
            crops = [region_of(scene, box) for box in question.boxes]
            assert is_enough(scene, question, crops, SIDE) is True
            assert is_enough(scene, question, crops[1:], SIDE) is False


def test_both_verdicts_are_taught(rows_of: RowsOf, tokenizer: PreTrainedTokenizerFast) -> None:
    rows = rows_of(Mixture(enough=4), side=SIDE)
    verdicts = Counter(learned(branch, tokenizer)[0] for _, branch in branches_of(rows, 40))
    assert set(verdicts) == {"Yes", "No"}
    assert 0.3 < verdicts["Yes"] / verdicts.total() < 0.75
    assert {len(branch.crops) for _, branch in branches_of(rows, 10)} == {0, 1, 2}


def test_a_share_of_rows_begins_with_a_system_message(rows_of: RowsOf, tokenizer: PreTrainedTokenizerFast) -> None:
    rows = [rows_of(Mixture(macro=1), system=0.5)[number] for number in range(40)]
    before = [tokenizer.decode(row.prefix).removeprefix("<s>").split("USER: ")[0] for row in rows]
    with_one = [text for text in before if text]
    assert 10 < len(with_one) < 30
    assert len(set(with_one)) > len(with_one) / 2
    assert all(text.endswith(" ") for text in with_one)


def test_a_shape_smaller_than_a_patch_has_one_all_the_same() -> None:
    for scene, _ in scenes_of("fine", 5):
        labels = label_patches(scene, Region(0, 0, scene.width, scene.height), SIDE, 8)
        assert not set(range(len(scene.shapes))) <= set(labels.owners)
        square = max(scene.width, scene.height)
        for shape, patch in zip(scene.shapes, labels.centres, strict=True):
            x = shape.centre[0] + (square - scene.width) / 2
            y = shape.centre[1] + (square - scene.height) / 2
            assert divmod(patch, 8) == (y * 8 // square, x * 8 // square)
