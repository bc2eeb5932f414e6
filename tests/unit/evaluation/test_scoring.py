"""Scores by cases derived by hand from what is known of the rules, those of no package above all (test_parity.py)."""

import pytest
from dualfocus_eval.samples import Sample, Scored
from dualfocus_eval.scoring import gqa, letters, mme_realworld, pope, text_vqa, vstar
from dualfocus_eval.scoring.mean import by_category

CATS = ("cat", "red dog", "12")


def asked(
    answer: str, options: tuple[str, ...] = (), category: str = "", group: str = "", id_: str = "1", stratum: str = ""
) -> Sample:
    return Sample(id_, b"", "What?", (answer,), options, category=category, group=group, stratum=stratum)


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ("cat", 1),
        ("Cat.", 1),
        ("cat...", 1),
        (" cat\n", 1),
        ("cat .", 0),
        ("a cat", 0),
        ("cat!", 0),
        ("", 0),
    ],
)
def test_gqa_wants_the_answer_without_full_stops_behind_it(reply: str, score: int) -> None:
    """LLaVA's `convert_gqa_for_eval.py` and GQA's `eval.py`."""
    assert gqa.score(asked("cat"), reply) == score


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ("No.", "no"),
        ("no", "no"),
        ("No, there is none", "no"),
        ("There is not one", "no"),
        ("Yes. No", "yes"),
        ("NO", "yes"),
        ("Nothing", "yes"),
        ("no\nmore", "yes"),
        ("", "yes"),
        ("I think it's a cat", "yes"),
    ],
)
def test_pope_reads_the_first_sentence(reply: str, said: str) -> None:
    """LLaVA's `eval_pope.py`."""
    assert pope.said(reply) == said
    assert pope.score(asked("no"), reply) == (said == "no")


def test_popes_headline_is_the_mean_of_the_categories_f1() -> None:
    replies = [("random", "yes", "Yes"), ("random", "no", "Yes"), ("popular", "yes", "No."), ("popular", "no", "no")]
    scored = [
        Scored(sample, reply, pope.score(sample, reply))
        for category, answer, reply in replies
        for sample in [asked(answer, category=category, stratum=answer)]
    ]
    figures = pope.figures(scored)
    assert next(iter(figures)) == "F1"
    assert figures == pytest.approx(
        {
            "F1": 1 / 3,
            "random F1": 2 / 3,
            "random accuracy": 1 / 2,
            "random precision": 1 / 2,
            "random recall": 1,
            "random yes ratio": 1,
            "popular F1": 0,
            "popular accuracy": 1 / 2,
            "popular precision": 0,
            "popular recall": 0,
            "popular yes ratio": 0,
        }
    )


@pytest.mark.parametrize(("reply", "score"), [("B", 1), (" B\n", 1), ("b", 0), ("B.", 0), ("(B)", 0), ("", 0)])
def test_the_exact_letter_is_the_letter_and_nothing_else(reply: str, score: int) -> None:
    """LLaVA's `convert_seed_for_submission.py`."""
    assert letters.exact_letter(asked("B", CATS), reply) == score


@pytest.mark.parametrize(
    ("reply", "letter"),
    [
        ("B", "B"),
        ("b", "B"),
        ("Apple", "A"),
        ("a dog", "A"),
        ("D", "D"),
        ("C. 12", "C"),
        ("(B)", ""),
        ("red", "B"),
        ("It's the RED DOG there", "B"),
        ("2", "C"),
        ("the cat and the red dog", "A"),
        ("E", "B"),
        ("nothing", ""),
        ("", ""),
    ],
)
def test_the_mapped_letter_is_the_released_scripts(reply: str, letter: str) -> None:
    """Their first character, else the first option that holds the reply or stands in it; D even of three options."""
    got = [name for name in "ABCDE" if letters.mapped_letter(asked(name, CATS), reply)]
    assert got == list(letter)


def test_the_mapped_letter_knows_a_fifth_option() -> None:
    assert letters.mapped_letter(asked("E", ("1", "2", "3", "4", "none of them")), "e") == 1
    assert letters.mapped_letter(asked("E", ("1", "2", "3", "4", "none of them")), "None of them.") == 1


def test_the_mapped_letter_compares_whole_lines_where_the_scripts_do() -> None:
    sample = asked("A", CATS)
    assert letters.mapped_letter(sample, "It's a cat") == 1
    assert letters.mapped_letter(sample, "It's a cat", lines=True) == 0
    assert letters.mapped_letter(sample, "It's A. Cat", lines=True) == 1


def test_the_letter_is_inferred_for_a_fifth_option_too() -> None:
    assert letters.inferred_letter(asked("E", ("1", "2", "3", "4", "none")), "(E)") == 1
    assert letters.inferred_letter(asked("D", CATS), "D") == 0


def test_a_group_counts_if_every_rotation_is_right() -> None:
    rotations = [("1", "x", 1.0), ("1", "1", 1.0), ("2", "2", 1.0), ("2", "y", 0.0)]
    category = {"1": "logic", "2": "attribute"}
    scored = [Scored(asked("A", CATS, category[group], group, id_), "", score) for group, id_, score in rotations]
    assert list(letters.circular(scored).items()) == [
        ("circular", 0.5),
        ("single pass", 1.0),
        ("attribute", 0.0),
        ("logic", 1.0),
    ]


def test_a_group_of_which_the_question_as_written_is_missing_has_no_single_pass() -> None:
    scored = [Scored(asked("A", CATS, "logic", "1", id_), "", 1.0) for id_ in ("x", "y")]
    assert letters.circular(scored) == {"circular": 1.0, "logic": 1.0}


def test_cycles_weigh_the_same_whatever_they_hold() -> None:
    hits = [("0", 1.0), ("0", 1.0), ("0", 1.0), ("1", 0.0)]
    scored = [Scored(asked("A", CATS, "single", stratum=cycle), "", score) for cycle, score in hits]
    assert letters.cycles(scored) == {"accuracy": 0.5, "single": 0.5}


@pytest.mark.parametrize(
    ("reply", "letter"),
    [
        ("E", "E"),
        ("(C) a dog", "C"),
        ("The best answer is: (B)", "B"),
        ("Best option: D", "D"),
        ("Answer: D", "A"),
        ("b", "B"),
        ("", "A"),
        ("none", ""),
    ],
)
def test_mme_realworld_takes_the_first_capital_of_five(reply: str, letter: str) -> None:
    got = [name for name in "ABCDE" if mme_realworld.score(asked(name), reply)]
    assert got == list(letter)


def test_mme_realworld_tells_perception_from_reasoning() -> None:
    hits = [("Perception/OCR", 1.0), ("Perception/OCR", 0.0), ("Reasoning/OCR", 1.0)]
    scored = [Scored(asked("A", category=category), "", score) for category, score in hits]
    assert list(mme_realworld.figures(scored)) == [
        "accuracy",
        "Perception",
        "Reasoning",
        "Perception/OCR",
        "Reasoning/OCR",
    ]
    assert mme_realworld.figures(scored)["Perception"] == 0.5


def test_vstar_takes_the_letter_that_is_named() -> None:
    assert vstar.score(asked("C"), "The answer is (C).") == 1
    assert vstar.score(asked("C"), "") == 0


def test_text_vqa_leaves_the_full_stops_behind_the_first_32() -> None:
    assert text_vqa.normalized("stop" + "." * 32) == "stop"
    assert text_vqa.normalized("stop" + "." * 33) == "stop."


@pytest.mark.parametrize(("agree", "score"), [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (10, 1)])
def test_text_vqa_counts_who_agrees_among_the_others(agree: int, score: float) -> None:
    answers = ("two",) * agree + ("seven",) * (10 - agree)
    assert text_vqa.score(Sample("1", b"", "How many?", answers), "The 2.") == pytest.approx(score)


def test_categories_stand_behind_the_accuracy_in_order() -> None:
    scored = [Scored(asked("A", category=category), "", score) for category, score in [("b", 1.0), ("a", 0.0)]]
    assert list(by_category(scored).items()) == [("accuracy", 0.5), ("a", 0.0), ("b", 1.0)]
    with pytest.raises(ValueError, match="data point"):
        by_category([])
