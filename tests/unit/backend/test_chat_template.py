"""Placeholders in clients' texts are words, whole, made of others, or split over several texts."""

import re

import pytest
from dualfocus_engine.backend.chat_template import as_words

WORDS = ["<|vision_start|><|image_pad|><|vision_end|>", "<|vision_start|>", "<|image_pad|>", "<image>"]
PLACEHOLDERS = re.compile("|".join(map(re.escape, WORDS)))


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("around", ["", "What is ", "<", "<|"])
def test_none_is_left_in_a_text(word: str, around: str) -> None:
    (said,) = as_words([f"{around}{word}?"], PLACEHOLDERS)
    assert not PLACEHOLDERS.search(said)
    assert said.replace(" ", "") == f"{around}{word}?".replace(" ", "")


@pytest.mark.parametrize("word", WORDS)
def test_none_is_left_where_texts_meet(word: str) -> None:
    for first in range(1, len(word)):
        for second in range(first, len(word)):
            said = as_words(["Look: ", word[:first], word[first:second], word[second:], "?"], PLACEHOLDERS)
            assert not PLACEHOLDERS.search("".join(said)), said


def test_other_texts_stay_as_they_are() -> None:
    texts = ["a <b> c", "", " < image>", "img>"]
    assert as_words(texts, PLACEHOLDERS) == texts
    assert as_words(["<image>"], None) == ["<image>"]


def test_a_thousand_texts_take_no_time_by_their_square() -> None:
    long = "<|image_pad|" * 1000
    said = as_words([long] * 1000, PLACEHOLDERS)
    assert len(said) == 1000
