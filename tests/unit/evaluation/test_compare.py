"""Two runs side by side: by hand-made answers."""

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

import pytest
from dualfocus_eval.asking.records import RunError
from dualfocus_eval.report.compare import compare, comparison_table
from dualfocus_eval.report.outcomes import Judged, Outcome, Said, judge
from dualfocus_eval.report.significance import bootstrap, mcnemar
from dualfocus_eval.samples import Benchmark, Sample, Scored
from dualfocus_eval.scoring.mean import by_category

from unit.evaluation.fruit import FRUIT


def circular(scored: Sequence[Scored]) -> dict[str, float]:
    """A group counts where all its questions are right."""
    groups: dict[str, list[float]] = {}
    for one in scored:
        groups.setdefault(one.sample.group, []).append(one.score)
    return {"circular": fmean(min(scores) for scores in groups.values())}


ROTATIONS = replace(FRUIT, figures=circular)


def run(answers: str, perplexity: float = 2.0, benchmark: Benchmark = FRUIT, group: int = 0) -> list[Judged]:
    """A run that has a question for each letter: right where it is an a."""
    judged = []
    for number, letter in enumerate(answers):
        sample = Sample(str(number), b"", "?", ("apple",), group=str(number // group) if group else "")
        said = Said("apple" if letter == "a" else "pear", perplexity)
        judged.append(judge(benchmark, Outcome(sample, said, said, said.text, "macro", None)))
    return judged


def test_what_both_have_is_counted() -> None:
    found = compare(FRUIT, run("aabb"), run("abaaa"))
    assert (found["questions"], found["left_out"]) == (4, [0, 1])
    assert found["answers"]["chosen"] == [0.5, 0.75]
    assert (found["difference"]["gain"], found["difference"]["only_right"]) == (0.25, [1, 2])
    low, high = found["difference"]["interval"]
    assert low < 0 < high


def test_two_models_are_one_by_perplexity() -> None:
    first, second = run("ab", 1.5), run("ba", 2.0)
    assert compare(FRUIT, first, second)["by_perplexity"] == 0.5
    mixed = [first[0], run("bb", 3.0)[1]]
    assert compare(FRUIT, mixed, second)["by_perplexity"] == 1.0


def test_questions_that_are_judged_together_are_drawn_together() -> None:
    """A run that has one group of two right, and one that has none: differences are halves of the groups drawn."""
    first, second = run("bbbb", 2.0, ROTATIONS, 2), run("aaab", 2.0, ROTATIONS, 2)
    found = compare(ROTATIONS, first, second)
    assert found["answers"]["chosen"] == [0.0, 0.5]
    assert found["difference"]["interval"] == [0.0, 1.0]
    assert found["difference"]["only_right"] == [0, 1], "of two groups, since rotations are no trials of their own"


def test_what_is_left_out_is_told() -> None:
    names = ("one", "two")
    told = comparison_table(FRUIT, names, compare(FRUIT, run("aabb"), run("abaaa")))
    assert "4 questions that both runs have; left out, since the other has no answer to them: 0 of A, 1 of B." in told
    assert "left out" not in comparison_table(FRUIT, names, compare(FRUIT, run("ab"), run("ba")))


def test_runs_that_share_nothing_are_not_compared() -> None:
    with pytest.raises(RunError, match="no question in common"):
        compare(FRUIT, run("a"), [])


@pytest.mark.parametrize(("counts", "p"), [((0, 0), 1.0), ((3, 3), 1.0), ((0, 5), 0.0625), ((1, 7), 18 / 256)])
def test_mcnemar(counts: tuple[int, int], p: float) -> None:
    assert mcnemar(*counts) == p


def test_the_interval_is_that_of_a_share() -> None:
    """Of 100 questions of which 30 differ: the share, give or take twice its standard error of 4.6 points."""
    low, high = bootstrap(lambda drawn: drawn.get(0, 0) / 100, [30, 70])
    assert low == pytest.approx(0.21, abs=0.015)
    assert high == pytest.approx(0.39, abs=0.015)
    assert bootstrap(lambda drawn: drawn.get(0, 0) / 100, [30, 70]) == (low, high)


def test_the_interval_is_drawn_by_kinds_of_questions() -> None:
    """Of 12,000 questions there are four kinds: so many replies are counted for a sample, and no more."""
    counted: list[int] = []

    def counting(scored: Sequence[Scored]) -> dict[str, float]:
        counted.append(len(scored))
        return by_category(scored)

    found = compare(replace(FRUIT, figures=counting), run("aabb" * 3000), run("abab" * 3000))
    sampled = [number for number in counted if number < 12_000]
    assert (len(sampled), max(sampled)) == (2 * 1000 + 2 * 4, 4), "of the samples, and of each kind by itself"
    assert len(counted) - len(sampled) < 20
    low, high = found["difference"]["interval"]
    assert low == pytest.approx(-0.0126, abs=0.0015), "1.96 standard errors of a difference of 0"
    assert high == pytest.approx(0.0126, abs=0.0015)
