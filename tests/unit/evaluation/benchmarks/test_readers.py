"""Each benchmark's files, read as they are published."""

import io
from collections import Counter
from pathlib import Path

import pytest
from dualfocus_eval.benchmarks import BENCHMARKS, gqa, multiple_choice, textvqa
from dualfocus_eval.boxes import overlap
from dualfocus_eval.samples import Sample
from PIL import Image

from ..layouts import COUNT, WRITERS, Drawn, drawn, write_mmbench, write_textvqa


def read(name: str, folder: Path) -> list[Sample]:
    return list(BENCHMARKS[name].read(WRITERS[name](folder)))


def picture(sample: Sample) -> bytes:
    return sample.image if isinstance(sample.image, bytes) else sample.image.read_bytes()


def told(sample: Sample) -> tuple[bytes, str, str]:
    """What a question is, whatever its benchmark: its picture, its text, its answer in words."""
    right = [sample.options["ABCDE".index(letter)] for letter in sample.answers] if sample.options else sample.answers
    return picture(sample), sample.question, right[0].lower()


def asked(one: Drawn) -> tuple[bytes, str, str]:
    return one.picture, one.question, one.answer.lower()


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmarks_questions_are_read_with_pictures_and_answers(name: str, tmp_path: Path) -> None:
    samples = read(name, tmp_path)
    assert len(samples) == len({sample.id for sample in samples}) == COUNT
    rotated = name.startswith(("mmbench", "hrbench"))
    questions = drawn(polar=name == "pope")[: COUNT // 4 if rotated else COUNT]
    times = 4 if rotated else 1
    assert Counter(map(told, samples)) == Counter({key: n * times for key, n in Counter(map(asked, questions)).items()})
    assert Image.open(io.BytesIO(picture(samples[-1]))).format == "JPEG"


@pytest.mark.parametrize("name", BENCHMARKS)
def test_reading_twice_gives_the_same_samples(name: str, tmp_path: Path) -> None:
    data = WRITERS[name](tmp_path)
    assert list(BENCHMARKS[name].read(data)) == list(BENCHMARKS[name].read(data))


def test_textvqa_has_the_ocr_line_beside_the_question_and_ten_answers(tmp_path: Path) -> None:
    sample = read("textvqa", tmp_path)[0]
    assert sample.context == f"Reference OCR token: {drawn()[0].answer}, EXIT, A."
    assert sample.id == "34602"
    assert sample.answers == (drawn()[0].answer,) * 9 + ("unanswerable",)


@pytest.mark.parametrize(
    ("lines", "context"),
    [("{ocr}\n{question}\n{hint}", True), ("{question}\n{hint}", False)],
    ids=["OCR line first", "no OCR line"],
)
def test_textvqas_ocr_line_may_stand_first_or_be_missing(lines: str, context: bool, tmp_path: Path) -> None:
    path, one = write_textvqa(tmp_path, drawn()[:1]), drawn()[0]
    ocr = f"Reference OCR token: {one.answer}, EXIT, A."
    hint = "Answer the question using a single word or phrase."
    written = f"{one.question}\n{ocr}\n{hint}".replace("\n", "\\n")
    other = lines.format(ocr=ocr, question=one.question, hint=hint).replace("\n", "\\n")
    path.write_text(path.read_text().replace(written, other))
    (sample,) = textvqa.read(tmp_path)
    assert sample.question == one.question
    assert sample.context == (ocr if context else "")


def test_gqa_tells_binary_questions_from_open_ones(tmp_path: Path) -> None:
    assert Counter(sample.category for sample in read("gqa", tmp_path)) == {"binary": 20, "open": 20}
    assert Counter(sample.category for sample in read("gqa-mcq", tmp_path)) == {"binary": 20, "open": 20}


def test_of_a_gqa_question_without_the_answer_among_its_options_no_letter_is_right(tmp_path: Path) -> None:
    folder = WRITERS["gqa-mcq"](tmp_path)
    path, one = folder / gqa.OPTIONS, drawn()[0]
    first, rest = path.read_text().split("\n", 1)
    letter = "ABCD"[one.right]
    path.write_text(f"{first.replace(f'{letter}. {one.answer}', f'{letter}. another')}\n{rest}")
    samples = list(gqa.read_mcq(folder))
    assert samples[0].answers == ()
    assert samples[0].options[one.right] == "another"
    assert all(len(sample.answers) == 1 for sample in samples[1:])


def test_popes_ids_count_anew_in_each_category(tmp_path: Path) -> None:
    samples = read("pope", tmp_path)
    assert Counter(sample.category for sample in samples) == {"adversarial": 14, "popular": 13, "random": 13}
    assert {"adversarial/1", "popular/1", "random/1"} < {sample.id for sample in samples}


def test_mmbenchs_rotations_share_a_group_that_is_the_questions_id(tmp_path: Path) -> None:
    samples = read("mmbench", tmp_path)
    assert Counter(sample.group for sample in samples) == {str(number): 4 for number in range(10)}
    assert [sample.id for sample in samples if sample.group == "3"] == ["3", "1000003", "2000003", "3000003"]
    assert len({sample.options for sample in samples if sample.group == "3"}) == 4
    assert samples[0].context == ""
    assert samples[1].context == 'The picture was "drawn".\nIt shows shapes.'


def test_mmbenchs_options_are_texts_and_an_empty_cell_is_none(tmp_path: Path) -> None:
    one = drawn()[0]
    for cells, options in {
        ("1", "2", "", ""): ("1", "2"),
        ("01", "2.0", "None", "nan"): ("01", "2.0", "None"),
        ("NA", "null", "nan", "nan"): ("NA", "null"),
    }.items():
        asked = [Drawn(one.picture, one.size, one.question, cells[0], cells, one.box)]
        write_mmbench(tmp_path, asked)
        path = tmp_path / multiple_choice.MMBENCH[0]
        path.write_text("\n".join(path.read_text().split("\n")[:2]))
        (sample,) = multiple_choice.read_mmbench(tmp_path)
        assert (sample.options, sample.answers) == (options, ("A",))


def test_a_table_of_any_size_is_read_row_by_row(tmp_path: Path) -> None:
    folder = WRITERS["mmbench"](tmp_path)
    path = folder / multiple_choice.MMBENCH[0]
    path.write_bytes(path.read_bytes() + b"cut\trow\n")
    samples = multiple_choice.read_mmbench(folder)
    assert [next(samples).id for _ in range(3)] == ["0", "1", "2"]


@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["plain", "byte order mark"])
def test_pictures_of_other_rows_are_found_whatever_stands_between(mark: str, tmp_path: Path) -> None:
    folder = WRITERS["mmbench"](tmp_path)
    path = folder / multiple_choice.MMBENCH[0]
    text = path.read_text(encoding="utf-8").replace("It shows shapes.", "Es zeigt\nsüße\n日本.")
    path.write_text(mark + text, encoding="utf-8")
    samples = list(multiple_choice.read_mmbench(folder))
    pictures = [one.picture for one in drawn()[:10]]
    assert [sample.image for sample in samples] == pictures * 4


def test_hr_bench_asks_each_question_in_four_cycles(tmp_path: Path) -> None:
    samples = read("hrbench-4k", tmp_path)
    assert Counter(sample.stratum for sample in samples) == {"0": 10, "1": 10, "2": 10, "3": 10}
    groups = [sample.group for sample in samples]
    assert groups == [name for name in dict.fromkeys(groups) for _ in range(4)]
    assert len(set(groups)) == 10
    assert {sample.category for sample in samples} == {"single", "cross"}


def test_seed_gives_images_alone_by_dimension(tmp_path: Path) -> None:
    samples = read("seed", tmp_path)
    assert Counter(sample.category for sample in samples) == {"Scene Understanding": 20, "Instances Counting": 20}


def test_vstars_options_are_shuffled_and_its_boxes_are_shares(tmp_path: Path) -> None:
    samples = read("vstar", tmp_path)
    assert {sample.answers[0] for sample in samples} == set("ABCD")
    boxes = {(one.question, one.picture): one.box for one in drawn()}
    for sample in samples:
        assert sample.box is not None
        assert overlap(sample.box, boxes[sample.question, picture(sample)]) > 0.8


def test_mme_realworld_has_five_options_and_categories_of_task_and_subtask(tmp_path: Path) -> None:
    samples = read("mme-realworld", tmp_path)
    assert all(len(sample.options) == 5 for sample in samples)
    assert {sample.category for sample in samples} == {"Perception/Remote Sensing", "Reasoning/Remote Sensing"}


def test_a_file_of_ones_own_may_have_options_and_boxes(tmp_path: Path) -> None:
    samples = read("file", tmp_path)
    assert [sample.id for sample in samples] == [str(number) for number in range(1, COUNT + 1)]
    assert [bool(sample.options) for sample in samples[:3]] == [False, True, False]
    assert samples[0].box is None
    assert samples[1].box == drawn()[1].box
