"""Multiple choice: which option an answer means."""

import pytest
from dualfocus_engine.method.multiple_choice import chosen_option, options_of

QUESTION = "What is on the table?\nA. a cup\nB. a B-52 (toy)\n(C) two cups \nD: nothing\nAnswer with a letter."
OPTIONS = {"A": "a cup", "B": "a B-52 (toy)", "C": "two cups", "D": "nothing"}


def test_options_are_the_lettered_lines() -> None:
    assert options_of(QUESTION) == OPTIONS


def test_a_long_run_of_spaces_is_read_at_once() -> None:
    """By a way that takes the square of its length this would take hours."""
    assert options_of(f"Which?\nA. x{' ' * 1_000_000}y\nB. z{' ' * 1_000_000}")["B"] == "z"


@pytest.mark.parametrize("text", ["What is it?", "A. Einstein was born where?", "I. think\nso", ""])
def test_one_lettered_line_is_no_choice(text: str) -> None:
    assert options_of(text) == {}


@pytest.mark.parametrize(
    ("answer", "option"),
    [
        *(("A", "a cup"), (" (C)", "two cups"), ("D.", "nothing"), ("B: a toy\nplane", "a B-52 (toy)")),
        *(("A cup", None), ("E", None), ("a", None), ("", None), ("It is A", None)),
    ],
)
def test_an_answer_names_an_option_by_its_letter(answer: str, option: str | None) -> None:
    assert chosen_option(answer, OPTIONS) == option
