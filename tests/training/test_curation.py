"""Curation: small files in Visual Genome's formats, ambiguity included."""

import json
from pathlib import Path
from typing import Any

import pytest
from dualfocus_engine.families.profiles import Profile
from dualfocus_training.curation.ambiguity import Verdict, judge
from dualfocus_training.curation.curate import Curation
from dualfocus_training.curation.release import Rectangle
from dualfocus_training.curation.streaming import items
from dualfocus_training.curation.visual_genome import Annotated, Asked, Region, Thing
from dualfocus_training.learning.conversations import read_conversations
from PIL import Image

REGION = (0, 0, 60, 60)
CLOCK = Thing(("clock",), (10, 10, 40, 40))
MAN, OTHER_MAN = Thing(("man",), (0, 0, 50, 100)), Thing(("man",), (100, 0, 150, 100))
TENNIS_RACKET, RACKET = Thing(("tennis racket",), (5, 5, 20, 20)), Thing(("racket",), (90, 0, 99, 9))


def verdict(question: str, *things: Thing, region: Rectangle | None = REGION) -> Verdict:
    asked = Asked(1, question, "Green.", region and Region(1, region), mapped=region is not None)
    return judge(Annotated(1, (200, 100), things, (asked,)), asked)


@pytest.mark.parametrize(
    ("question", "things", "expected"),
    [
        ("What color is the clock?", [CLOCK], Verdict.KEPT),
        ("What color are the clocks?", [CLOCK], Verdict.KEPT),
        ("What color is the clock?", [CLOCK, Thing(("clock",), (11, 9, 41, 40))], Verdict.KEPT),
        ("What color is the clock?", [CLOCK, Thing(("wall clock",), (150, 10, 180, 40))], Verdict.SEVERAL_REFERENTS),
        ("What is the man wearing?", [MAN, OTHER_MAN], Verdict.SEVERAL_REFERENTS),
        (
            "What do the people wear?",
            [Thing(("person",), (0, 0, 9, 9)), Thing(("person",), (20, 0, 29, 9))],
            Verdict.SEVERAL_REFERENTS,
        ),
        (
            "What is on the tennis racket?",
            [Thing(("tennis racket",), (5, 5, 20, 20)), Thing(("racket",), (90, 0, 99, 9))],
            Verdict.KEPT,
        ),
        ("What is the weather like?", [CLOCK], Verdict.NO_REFERENT),
        ("What color is the clock?", [Thing(("clock",), (150, 10, 180, 40))], Verdict.ELSEWHERE),
        ("What color is the clockwork?", [CLOCK], Verdict.NO_REFERENT),
    ],
)
def test_a_question_is_kept_where_one_object_fits(question: str, things: list[Thing], expected: Verdict) -> None:
    assert verdict(question, *things) is expected


def test_a_question_that_names_nothing_is_judged_by_its_answer() -> None:
    def judged(answer: str, *things: Thing) -> Verdict:
        asked = Asked(1, "What is lying there?", answer, Region(1, REGION), mapped=True)
        return judge(Annotated(1, (200, 100), things, (asked,)), asked)

    assert judged("A clock.", CLOCK) is Verdict.KEPT
    assert judged("A man.", MAN, OTHER_MAN) is Verdict.SEVERAL_REFERENTS
    assert judged("Nothing.", CLOCK) is Verdict.NO_REFERENT


def test_a_question_needs_a_region_in_the_image() -> None:
    assert verdict("What color is the clock?", CLOCK, region=None) is Verdict.NO_REGION
    assert verdict("What color is the clock?", CLOCK, region=(300, 0, 350, 50)) is Verdict.EMPTY_REGION


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """Three images: two questions kept, one ambiguous, one without region, one image file missing."""
    folder = tmp_path / "release"
    folder.mkdir()
    for number in (1, 2):
        Image.new("RGB", (200, 100), (number * 90, 0, 0)).save(folder / f"{number}.jpg")
    clock = {"object_id": 1, "x": 10, "y": 10, "w": 30, "h": 30, "names": ["Clock"]}
    other = {"object_id": 2, "x": 90, "y": 10, "w": 30, "h": 30, "names": ["clock"]}
    files: dict[str, Any] = {
        "image_data.json": [{"image_id": n, "width": 200, "height": 100, "url": ""} for n in (1, 2, 3)],
        "objects.json": [
            {"image_id": 1, "objects": [clock]},
            {"image_id": 2, "objects": [clock, other]},
            {"image_id": 3, "objects": [clock]},
        ],
        "region_descriptions.json": [
            {
                "id": n,
                "regions": [
                    {"region_id": 10 + n, "image_id": n, "phrase": "a clock", "x": 0, "y": 0, "width": 60, "height": 60}
                ],
            }
            for n in (1, 2, 3)
        ],
        "qa_to_region_mapping.json": {"100": 11, "101": 11, "200": 12, "300": 13},
        "question_answers.json": [
            {"id": 1, "qas": [_qa(1, 100, "What color is the clock?"), _qa(1, 101, "Where is the clock?")]},
            {"id": 2, "qas": [_qa(2, 200, "What color is the clock?"), _qa(2, 201, "Is the clock big?")]},
            {"id": 3, "qas": [_qa(3, 300, "What color is the clock?")]},
        ],
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    return folder


def _qa(image: int, number: int, question: str) -> dict[str, Any]:
    return {"qa_id": number, "image_id": image, "question": question, "answer": "Green.", "a_objects": []}


def _quiet(what: str, count: int) -> None:
    """Show no progress."""


def test_conversations_have_two_rounds_and_a_crop(release: Path, tmp_path: Path, profile: Profile) -> None:
    counts = Curation(release, release, tmp_path / "out", profile, _quiet).run()
    made = list(read_conversations(tmp_path / "out" / "conversations.jsonl"))
    assert len(made) == 2
    texts = [message["content"][-1]["text"] for message in made[0].messages]
    assert texts == [
        profile.grounding_text("What color is the clock?"),
        "[0.00, 0.00, 0.30, 0.60]",
        profile.micro_text("What color is the clock?"),
        "Green",
    ]
    picture, crop = (tmp_path / "out" / name for name in made[0].images)
    assert Image.open(picture).size == (200, 100)
    assert Image.open(crop).size == (85, 85)
    written = json.loads((tmp_path / "out" / "counts.json").read_text())
    assert set(written.pop("files")) == {path.name for path in release.glob("*.json")}
    assert counts == written
    assert {name: count for name, count in counts.items() if count} == {
        "images": 3,
        "image files missing": 1,
        "regions of qa_to_region_mapping.json with several questions": 1,
        "answers whose full stop was taken off": 2,
        "questions": 5,
        "kept": 3,
        "no region": 1,
        "several objects fit": 1,
    }


def test_a_stopped_curation_goes_on(
    release: Path, tmp_path: Path, profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    Curation(release, release, tmp_path / "whole", profile, _quiet).run()
    monkeypatch.setattr("dualfocus_training.curation.curate._KEEP_EVERY", 1)

    def stops(what: str, count: int) -> None:
        if (what, count) == ("images", 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Curation(release, release, tmp_path / "part", profile, stops).run()
    Curation(release, release, tmp_path / "part", profile, _quiet).run()
    for name in ("conversations.jsonl", "counts.json"):
        assert (tmp_path / "part" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_file_is_read_an_item_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dualfocus_training.curation.streaming._CHUNK", 3)
    content = [{"a": [1, "]ü,"]}, 12345, "x" * 50, None, []]
    path = tmp_path / "items.json"
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")
    assert list(items(path)) == content


@pytest.mark.parametrize("text", ["{}", "", '[{"a": 1}', "[1, 2"])
def test_a_broken_file_is_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"broken\.json"):
        list(items(path))
