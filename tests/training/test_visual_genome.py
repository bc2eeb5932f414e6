"""Visual Genome's files as they really are: each irregularity met, counted and reported."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dualfocus_engine.families.profiles import Profile, load_profile
from dualfocus_training.curation import __main__ as command
from dualfocus_training.curation.curate import Curation
from dualfocus_training.curation.exclusion import excluded_images
from dualfocus_training.learning.conversations import read_conversations
from PIL import Image

Files = dict[str, Any]
WIDTH, HEIGHT = 200, 100


def files() -> Files:
    """A release without irregularities: two images, each with a clock that is asked about."""
    numbers = (1, 2)
    return {
        "image_data.json": [_size(number) for number in numbers],
        "objects.json": [{"image_id": number, "objects": [_clock()]} for number in numbers],
        "region_descriptions.json": [{"id": number, "regions": [_region(number)]} for number in numbers],
        "qa_to_region_mapping.json": {str(100 * number): 10 * number for number in numbers},
        "question_answers.json": [{"id": number, "qas": [_qa(number)]} for number in numbers],
    }


def _size(number: int) -> dict[str, Any]:
    url = f"https://cs.stanford.edu/people/rak248/VG_100K_2/{number}.jpg"
    return {"image_id": number, "url": url, "width": WIDTH, "height": HEIGHT, "coco_id": None, "flickr_id": None}


def _clock(**place: int) -> dict[str, Any]:
    return {"object_id": 1, "names": ["clock"], "synsets": [], "merged_object_ids": [], "x": 10, "y": 10, "w": 30,
            "h": 30, **place}  # fmt: skip


def _region(image: int, **changed: Any) -> dict[str, Any]:
    return {"region_id": 10 * image, "image_id": image, "phrase": "a clock on the wall", "x": 0, "y": 0, "width": 60,
            "height": 60, **changed}  # fmt: skip


def _qa(image: int, **changed: Any) -> dict[str, Any]:
    return {"qa_id": 100 * image, "image_id": image, "question": "What color is the clock?", "answer": "Green.",
            "a_objects": [], "q_objects": [], **changed}  # fmt: skip


@pytest.fixture
def curated(tmp_path: Path, profile: Profile) -> Callable[..., dict[str, int]]:
    """Curate files into `out`, and give the counts that are not 0, those apart that every release has."""

    def curate(release: Files, **more: Any) -> dict[str, int]:
        return {name: count for name, count in _curation(release, tmp_path, profile, **more).run().items() if count}

    return curate


def _curation(release: Files, place: Path, profile: Profile, **more: Any) -> Curation:
    folder = place / "release"
    folder.mkdir(exist_ok=True)
    for name, content in release.items():
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    for number in (1, 2, 3):
        Image.new("RGB", (WIDTH, HEIGHT), (number * 80, 0, 0)).save(folder / f"{number}.jpg")
    return Curation(folder, folder, place / "out", profile, lambda what, count: None, **more)


REGULAR = {"images": 2, "answers whose full stop was taken off": 2, "questions": 2, "kept": 2}
# What goes wrong with the second image's question, and what is then still kept of both.
DROPPED = {"answers whose full stop was taken off": 1, "kept": 1}


def test_a_release_without_irregularities_has_none(curated: Callable[..., dict[str, int]]) -> None:
    assert curated(files()) == REGULAR


def _orphan_question(release: Files) -> None:
    release["qa_to_region_mapping.json"]["999"] = 10


def _orphan_region(release: Files) -> None:
    release["qa_to_region_mapping.json"]["200"] = 999


def _regions_other_image(release: Files) -> None:
    release["qa_to_region_mapping.json"]["200"] = 10


def _changed_region(**changed: Any) -> Callable[[Files], None]:
    def change(release: Files) -> None:
        release["region_descriptions.json"][1]["regions"][0].update(changed)

    return change


def _second_region(**changed: Any) -> Callable[[Files], None]:
    def change(release: Files) -> None:
        release["region_descriptions.json"][1]["regions"].append(_region(2, region_id=21, **changed))

    return change


def _object(**place: int) -> Callable[[Files], None]:
    def change(release: Files) -> None:
        release["objects.json"][1]["objects"].append(_clock(**place))

    return change


def _clipped_object(release: Files) -> None:
    release["objects.json"][1]["objects"] = [_clock(x=-5)]


def _no_questions(release: Files) -> None:
    release["question_answers.json"][1]["qas"] = []


def _several_questions(release: Files) -> None:
    release["qa_to_region_mapping.json"]["201"] = 20
    release["question_answers.json"][1]["qas"].append(_qa(2, qa_id=201, question="Is the clock big?"))


def _lacks(name: str) -> Callable[[Files], None]:
    def change(release: Files) -> None:
        del release[name][1]

    return change


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (_no_questions, {"images without questions": 1, "questions": 1, **DROPPED}
         | {"questions of qa_to_region_mapping.json not in question_answers.json": 1}),
        (_orphan_question, {"questions of qa_to_region_mapping.json not in question_answers.json": 1}
         | {"regions of qa_to_region_mapping.json with several questions": 1}),
        (_orphan_region, {"its region is not there": 1, **DROPPED}),
        (_regions_other_image, {"its region is of another image": 1, **DROPPED}
         | {"regions of qa_to_region_mapping.json with several questions": 1}),
        (_several_questions, {"regions of qa_to_region_mapping.json with several questions": 1}
         | {"questions": 3, "kept": 3, "answers whose full stop was taken off": 3}),
        (_changed_region(x=-20), {"regions with a negative coordinate": 1}),
        (_changed_region(y=-904), {"regions with a negative coordinate": 1, "regions wholly outside their image": 1}
         | {"region outside the image": 1, **DROPPED}),
        (_changed_region(width=900), {"regions past the right or lower edge": 1}),
        (_changed_region(height=0), {"regions without width or height": 1, "region outside the image": 1, **DROPPED}),
        (_second_region(phrase="a bird"), {"regions in the place of another": 1}),
        (_second_region(x=5, phrase="The clock on a wall."), {"regions in nearly the words of another": 1}),
        (_object(x=190, w=0), {"objects without area in their image, left out": 1}),
        (_object(x=900), {"objects without area in their image, left out": 1}),
        (_clipped_object, {"objects clipped to their image": 1}),
        (_lacks("image_data.json"), {"images of question_answers.json not in image_data.json": 1}
         | {"images of objects.json not in image_data.json": 1, "its image's size is not known": 1, **DROPPED}
         | {"images of region_descriptions.json not in image_data.json": 1}),
        (_lacks("objects.json"), {"images of image_data.json not in objects.json": 1}
         | {"names no annotated object": 1, **DROPPED}),
        (_lacks("region_descriptions.json"), {"images of image_data.json not in region_descriptions.json": 1}
         | {"its region is not there": 1, **DROPPED}),
        (_lacks("question_answers.json"), {"images of image_data.json not in question_answers.json": 1, "images": 1}
         | {"questions": 1, **DROPPED, "questions of qa_to_region_mapping.json not in question_answers.json": 1}),
    ],
)  # fmt: skip
def test_an_irregularity_is_counted(
    change: Callable[[Files], None], expected: dict[str, int], curated: Callable[..., dict[str, int]]
) -> None:
    release = files()
    change(release)
    assert curated(release) == REGULAR | expected


def test_a_region_is_clipped_to_its_image(
    curated: Callable[..., dict[str, int]], tmp_path: Path, profile: Profile
) -> None:
    release = files()
    _changed_region(x=-20, y=-20, width=500, height=90)(release)
    curated(release)
    boxes = [
        made.messages[1]["content"][0]["text"] for made in read_conversations(tmp_path / "out/conversations.jsonl")
    ]
    assert boxes == ["[0.00, 0.00, 0.30, 0.60]", "[0.00, 0.00, 1.00, 0.70]"]


def _as_version_1_0(release: Files) -> Files:
    for image in release["image_data.json"]:
        image["id"] = image.pop("image_id")
    for image in release["region_descriptions.json"]:
        for region in image["regions"]:
            region["id"], region["image"] = region.pop("region_id"), region.pop("image_id")
    for image in release["objects.json"]:
        for thing in image["objects"]:
            thing["name"] = thing.pop("names")[0]
    return release


def _as_flat_questions(release: Files) -> Files:
    asked = [qa for image in release["question_answers.json"] for qa in image["qas"]]
    flat = [{"id": qa["qa_id"], "image": qa["image_id"], "question": qa["question"], "answer": qa["answer"]}
            for qa in asked]  # fmt: skip
    return release | {"question_answers.json": flat}


def _as_documented(release: Files) -> Files:
    for image in release["region_descriptions.json"]:
        image["image_id"] = image.pop("id")
    return release


@pytest.mark.parametrize("form", [_as_version_1_0, _as_flat_questions, _as_documented])
def test_older_forms_give_the_same(form: Callable[[Files], Files], curated: Callable[..., dict[str, int]]) -> None:
    assert curated(form(files())) == REGULAR


def test_what_the_files_are_is_said_at_opening(tmp_path: Path, profile: Profile) -> None:
    found = _curation(files(), tmp_path, profile).files
    size = (tmp_path / "release" / "question_answers.json").stat().st_size
    assert found["question_answers.json"] == (
        f"{size:,} bytes (the whole file has about 803,000,000), entries of id, qas"
    )
    assert found["qa_to_region_mapping.json"].endswith("2 entries")


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("question_answers.json", [{"image": 1, "questions": []}], "begins with an entry of image, questions"),
        ("question_answers.json", [], "begins with an entry of None"),
        ("objects.json", [{"image_id": 1, "attributes": []}], "it needs image_id, objects"),
        ("qa_to_region_mapping.json", [], "holds no object"),
    ],
)
def test_a_file_in_another_form_is_named(name: str, content: Any, told: str, tmp_path: Path, profile: Profile) -> None:
    with pytest.raises(ValueError, match=told) as raised:
        _curation(files() | {name: content}, tmp_path, profile)
    assert name in str(raised.value)


def test_pictures_that_are_damaged_or_turned_are_left_out(tmp_path: Path, profile: Profile) -> None:
    """A turned one's regions may be of either way round."""
    curation = _curation(files(), tmp_path, profile)
    whole = (tmp_path / "release" / "1.jpg").read_bytes()
    (tmp_path / "release" / "1.jpg").write_bytes(whole[: len(whole) // 2])
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "release" / "2.jpg", exif=exif)
    counts = curation.run()
    assert (counts["image files that can't be read"], counts["image files that their EXIF turns"]) == (1, 1)
    assert not (tmp_path / "out" / "conversations.jsonl").read_bytes()


def test_a_curation_that_was_stopped_as_it_read_the_files_keeps_to_its_release(
    tmp_path: Path, profile: Profile, curated: Callable[..., dict[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stops(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dualfocus_training.curation.curate.Genome", stops)
    with pytest.raises(KeyboardInterrupt):
        curated(files())
    monkeypatch.undo()
    with pytest.raises(ValueError, match="was begun with another --release"):
        curated(files() | {"objects.json": [{"image_id": 1, "objects": []}]})
    assert curated(files()) == REGULAR


def test_pictures_lie_in_the_folder_that_their_url_names(
    tmp_path: Path, profile: Profile, curated: Callable[..., dict[str, int]]
) -> None:
    curation = _curation(files(), tmp_path, profile)
    (tmp_path / "release" / "VG_100K_2").mkdir()
    (tmp_path / "release" / "2.jpg").rename(tmp_path / "release" / "VG_100K_2" / "2.jpg")
    assert curation.run()["image files missing"] == 0
    made = list(read_conversations(tmp_path / "out" / "conversations.jsonl"))
    assert [conversation.images[0] for conversation in made] == ["../release/1.jpg", "../release/VG_100K_2/2.jpg"]


@pytest.mark.parametrize(
    "text",
    [
        '{"20": {"imageId": "n2", "question": "Is it red?", "semantic": []}, "30": {"imageId": "3"}}',
        '{"question_id": "20", "image": "n2.jpg", "text": "Is it red?"}\n{"question_id": 30, "image": "3.jpg"}\n',
        '["2", 3]',
        "2\n3\n",
        "gqa/images/2.jpg\ngqa/images/n3.jpg\n",
    ],
)
def test_excluded_images_are_left_out(
    text: str, tmp_path: Path, profile: Profile, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _curation(files(), tmp_path, profile)
    (tmp_path / "testdev").write_text(text)
    folder = str(tmp_path / "release")
    flags = ["--release", folder, "--pictures", folder, "--out", str(tmp_path / "cli"), "--profile", "llava-dualfocus"]
    monkeypatch.setattr("sys.argv", ["curation", *flags, "--exclude", str(tmp_path / "testdev")])
    command.main()
    told = capsys.readouterr().out.splitlines()
    assert "images named by --exclude: 2" in told
    assert "images left out by --exclude: 1" in told
    assert {"questions: 1", "kept: 1"} <= set(told)
    (made,) = read_conversations(tmp_path / "cli" / "conversations.jsonl")
    assert made.images[0].endswith("/1.jpg")


def test_a_file_that_names_no_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "names").write_text('{"question": "Is it red?"}')
    with pytest.raises(ValueError, match="names names no image"):
        excluded_images([tmp_path / "names"])


def test_a_curation_goes_on_with_the_same_exclusion_only(
    tmp_path: Path, profile: Profile, curated: Callable[..., dict[str, int]]
) -> None:
    curated(files(), excluded=frozenset({2}))
    with pytest.raises(ValueError, match="--profile or --exclude"):
        curated(files())


def test_one_begun_with_another_profile_or_release_is_not_taken_for_done(tmp_path: Path, profile: Profile) -> None:
    _curation(files(), tmp_path, profile).run()
    others = profile.model_copy(update={"micro_prompt": "Look again: {question}"})
    with pytest.raises(ValueError, match="another --release, --profile"):
        _curation(files(), tmp_path, others)


def test_boxes_in_pixels_as_shown_can_not_be_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"qwen2\.5-vl writes boxes in pixels"):
        _curation(files(), tmp_path, load_profile("qwen2.5-vl"))
