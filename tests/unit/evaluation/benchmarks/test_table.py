"""The table that puts readers, words and rules together."""

from dataclasses import replace
from pathlib import Path
from string import ascii_uppercase

import pytest
from dualfocus_eval.benchmarks import BENCHMARKS
from dualfocus_eval.samples import Sample, Scored

from ..layouts import WRITERS

# By category, or by what the benchmark's figures are told beside the headline.
TOLD = {
    "gqa": {"binary", "open"},
    "gqa-mcq": {"exact letter", "binary", "open"},
    "pope": {"random F1", "popular accuracy", "adversarial yes ratio"},
    "mmbench": {"single pass", "object_localization"},
    "seed": {"exact letter", "Instances Counting"},
    "vstar": {"direct_attributes", "relative_position"},
    "hrbench-4k": {"single", "cross"},
    "mme-realworld": {"Perception", "Reasoning"},
}


def scored(name: str, samples: list[Sample], wrong: bool) -> list[Scored]:
    benchmark = BENCHMARKS[name]
    replies = [_wrong(sample) if wrong else sample.answers[0] for sample in samples]
    pairs = zip(samples, replies, strict=True)
    return [Scored(sample, reply, benchmark.score(sample, reply)) for sample, reply in pairs]


def _wrong(sample: Sample) -> str:
    if sample.answers[0] in ("yes", "no"):
        return "no" if sample.answers[0] == "yes" else "yes"
    return next(letter for letter in ascii_uppercase if letter not in sample.answers) if sample.options else "a zebra"


def test_every_benchmark_has_a_data_set_in_the_tests() -> None:
    assert list(WRITERS) == list(BENCHMARKS)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_what_is_right_counts_and_what_is_wrong_does_not(name: str, tmp_path: Path) -> None:
    benchmark = BENCHMARKS[name]
    samples = list(benchmark.read(WRITERS[name](tmp_path)))
    right, wrong = (benchmark.figures(scored(name, samples, wrong)) for wrong in (False, True))
    assert next(iter(right.values())) == 1.0
    assert next(iter(wrong.values())) == 0.0
    assert TOLD.get(name, set()) <= set(right) == set(wrong)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_reply_that_counts_thrice_is_as_good_as_three(name: str, tmp_path: Path) -> None:
    """Of what is judged together, each copy is a group of its own. Every third group or question is wrong somewhere."""
    benchmark = BENCHMARKS[name]
    samples = list(benchmark.read(WRITERS[name](tmp_path)))
    mixed = [scored(name, [sample], number % 3 == 0)[0] for number, sample in enumerate(samples)]
    units = list(dict.fromkeys(one.sample.group or one.sample.id for one in mixed))
    weights = [1 + units.index(one.sample.group or one.sample.id) % 3 for one in mixed]
    weighted = [replace(one, weight=weight) for one, weight in zip(mixed, weights, strict=True)]
    copies = [_copy(one, copy) for one, weight in zip(mixed, weights, strict=True) for copy in range(weight)]
    assert benchmark.figures(weighted) == pytest.approx(benchmark.figures(copies))
    assert benchmark.figures(weighted) != benchmark.figures(mixed)


def _copy(one: Scored, number: int) -> Scored:
    named = {"id": f"{one.sample.id}/{number}", "group": f"{one.sample.group}/{number}" if one.sample.group else ""}
    return replace(one, sample=replace(one.sample, **named))


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_is_asked_in_the_papers_words_unless_told_otherwise(name: str) -> None:
    assert next(iter(BENCHMARKS[name].wordings)) == "llava"


def test_one_wrong_rotation_costs_the_whole_question(tmp_path: Path) -> None:
    benchmark = BENCHMARKS["mmbench"]
    samples = list(benchmark.read(WRITERS["mmbench"](tmp_path)))
    replies = [_wrong(sample) if sample.id == "3000003" else sample.answers[0] for sample in samples]
    pairs = zip(samples, replies, strict=True)
    figures = benchmark.figures([Scored(sample, reply, benchmark.score(sample, reply)) for sample, reply in pairs])
    assert (figures["circular"], figures["single pass"]) == (0.9, 1.0)


def test_a_file_of_ones_own_takes_any_of_its_answers_and_letters_or_options() -> None:
    score = BENCHMARKS["file"].score
    open_question = Sample("1", b"", "What is it?", ("Bay St.", "Bay Street"))
    assert [score(open_question, reply) for reply in ("bay street.", " BAY ST", "Bay")] == [1.0, 1.0, 0.0]
    with_options = Sample("1", b"", "What is it?", ("B",), ("a cup", "a plate"))
    assert [score(with_options, reply) for reply in ("B", "B. a plate", "plate", "A")] == [1.0, 1.0, 1.0, 0.0]
