"""Scenes: what they hold, and what can be read where."""

import json
from collections import Counter
from pathlib import Path
from random import Random

import pytest
from dualfocus_engine.families.boxes import Box, CropPolicy, crop_region
from dualfocus_eval.scenes.drawing import draw
from dualfocus_eval.scenes.layout import Difficulty, Scene, compose, print_extent
from dualfocus_eval.scenes.questions import WHOLE, Question, ask, referents
from dualfocus_eval.scenes.writing import write_scenes

SIDE = 128


@pytest.fixture(scope="module")
def asked() -> list[tuple[Scene, list[Question]]]:
    pairs = []
    for number in range(300):
        rng = Random(f"test/{number}")
        scene = compose(rng, Difficulty())
        pairs.append((scene, ask(scene, rng)))
    return pairs


def test_the_same_seed_writes_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_scenes(5, 3, tmp_path / name)
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == ["questions.jsonl", *(f"scene-00000{n}.png" for n in range(3))]
    assert all((tmp_path / "one" / f).read_bytes() == (tmp_path / "two" / f).read_bytes() for f in files)
    line = json.loads((tmp_path / "one" / "questions.jsonl").read_text().splitlines()[0])
    assert set(line) == {"image", "question", "answer", "kind", "box", "boxes"}


def test_print_is_readable_in_a_crop_and_not_in_the_picture(asked: list[tuple[Scene, list[Question]]]) -> None:
    for scene, _ in asked:
        for shape in scene.shapes:
            left, top, right, bottom = crop_region(shape_box(scene, shape.extent), size(scene), CropPolicy())
            height = shape.print.height
            in_picture = height * SIDE / max(size(scene))
            in_crop = height * SIDE / max(right - left, bottom - top)
            assert in_picture < (1.7 if shape.print.kind == "dot" else 3.2)
            assert in_crop > (2.8 if shape.print.kind == "dot" else 6.5)


def shape_box(scene: Scene, extent: tuple[float, float, float, float]) -> Box:
    left, top, right, bottom = extent
    return Box(left / scene.width, top / scene.height, right / scene.width, bottom / scene.height)


def size(scene: Scene) -> tuple[int, int]:
    return scene.width, scene.height


def test_no_shape_covers_anothers_print(asked: list[tuple[Scene, list[Question]]]) -> None:
    for scene, _ in asked:
        for place, shape in enumerate(scene.shapes):
            left, top, right, bottom = print_extent(shape.print)
            for above in scene.shapes[place + 1 :]:
                l2, t2, r2, b2 = above.extent
                assert min(right, r2) <= max(left, l2) or min(bottom, b2) <= max(top, t2)


def test_scenes_vary(asked: list[tuple[Scene, list[Question]]]) -> None:
    scenes = [scene for scene, _ in asked]
    assert len({round(scene.width / scene.height, 1) for scene in scenes}) == 5
    assert {scene.background.texture for scene in scenes} == {"plain", "clouds", "grain", "stripes", "checks"}
    assert {len(scene.shapes) for scene in scenes} >= {2, 3, 4, 5, 6}
    overlapping = sum(_overlaps(scene) for scene in scenes)
    assert overlapping > 30


def _overlaps(scene: Scene) -> bool:
    extents = [shape.extent for shape in scene.shapes]
    return any(
        min(a[2], b[2]) > max(a[0], b[0]) and min(a[3], b[3]) > max(a[1], b[1])
        for n, a in enumerate(extents)
        for b in extents[:n]
    )


def test_every_kind_of_question_is_asked_with_yes_and_no(asked: list[tuple[Scene, list[Question]]]) -> None:
    questions = [question for _, some in asked for question in some]
    kinds = Counter(question.kind for question in questions)
    assert set(kinds) == {"detail", "several", "global"}
    answers = Counter(question.answer for question in questions)
    assert 0.7 < answers["yes"] / answers["no"] < 1.4
    assert any(question.kind == "global" and question.box == WHOLE for question in questions)
    assert any(question.kind == "global" and question.box != WHOLE for question in questions)


def test_a_description_fits_one_shape(asked: list[tuple[Scene, list[Question]]]) -> None:
    for scene, _ in asked:
        meant = [name for shape in scene.shapes for name in set(referents(scene, shape))]
        assert len(meant) == len(set(meant))


def test_a_picture_has_the_scenes_size(asked: list[tuple[Scene, list[Question]]]) -> None:
    scene = asked[0][0]
    picture = draw(scene)
    assert picture.size == size(scene)
    assert picture.mode == "RGB"
