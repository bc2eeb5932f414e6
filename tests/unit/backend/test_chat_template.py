"""Placeholders in clients' texts are words, whole, made of others, or split over several texts."""

import re
from types import SimpleNamespace
from typing import Any

import pytest
from dualfocus_engine.backend import chat_template
from dualfocus_engine.backend.chat_template import as_words, placeholder_tokens
from dualfocus_engine.families.profiles import load_profile
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast

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


def test_none_is_left_where_a_template_trims_texts_that_meet() -> None:
    for word in WORDS[1:]:
        for first in range(1, len(word) - 1):  # a last character by itself can't be parted
            said = as_words([word[:first], word[first:]], PLACEHOLDERS)
            assert not PLACEHOLDERS.search("".join(text.strip() for text in said)), said


def test_other_texts_stay_as_they_are() -> None:
    texts = ["a <b> c", "", " < image>", "img>"]
    assert as_words(texts, PLACEHOLDERS) == texts
    assert as_words(["<image>"], None) == ["<image>"]


def test_a_thousand_texts_take_no_time_by_their_square() -> None:
    long = "<|image_pad|" * 1000
    said = as_words([long] * 1000, PLACEHOLDERS)
    assert len(said) == 1000


class Seeing:
    """A model that is shown pictures, and no films."""

    @staticmethod
    def get_placeholder_str(modality: str, number: int) -> str:
        if modality != "image":
            raise ValueError(modality)
        return "<start><pad><end>"


def test_tokens_that_stand_for_pictures_are_those_of_the_configuration_and_of_the_placeholder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(chat_template, "get_model_cls", lambda config: Seeing)
    added = {"<start>": 4, "<pad>": 5, "<end>": 6, "<tool>": 7}
    config = SimpleNamespace(image_token_id=5, video_token_id=8, vision_token_index=None, eos_token_id=1)
    llm: Any = SimpleNamespace(
        renderer=SimpleNamespace(get_tokenizer=lambda: SimpleNamespace(get_added_vocab=lambda: added)),
        model_config=SimpleNamespace(hf_config=config),
    )
    assert placeholder_tokens(llm) == {4, 5, 6, 8}


_VOCABULARY = {word: number for number, word in enumerate(("a", "q", "aXqZa", "</s>", "<end>", "<other>"))}
_TURNS = "{%% for message in messages %%}{{ message['content'][0]['text'] + ' %s ' }}{%% endfor %%}"


@pytest.mark.parametrize(
    ("closing", "stops", "closed_by"),
    [
        ("<end>", [3, 4], "<end>"),
        ("<end>", 4, "<end>"),
        ("<end>", None, "</s>"),
        ("</s>", None, "</s>"),
        ("<other>", [3, 4], "</s>"),
        ("{{ raise_exception('No.') }}", [3, 4], "</s>"),
    ],
)
def test_an_answer_is_closed_by_what_its_template_writes_where_the_model_stops_at_it(
    closing: str, stops: Any, closed_by: str
) -> None:
    words = Tokenizer(WordLevel(_VOCABULARY, unk_token="a"))
    words.pre_tokenizer = WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="</s>")
    llm: Any = SimpleNamespace(
        renderer=SimpleNamespace(get_tokenizer=lambda: tokenizer),
        input_processor=SimpleNamespace(generation_config_fields={"eos_token_id": stops}),
    )
    closed = chat_template._closing_token(llm, _TURNS % closing, "openai", load_profile("paper"))
    assert closed == _VOCABULARY[closed_by]


_BY_TYPE = (
    "{% for kind in ('image', 'text') %}{% for part in messages[0]['content'] if part['type'] == kind %}"
    "{{ '<image>' if kind == 'image' else part['text'] }}{% endfor %}{% endfor %}"
)
_AS_SENT = "{% for part in messages[0]['content'] %}{{ part['text'] or '<image>' }}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "is_first"),
    [(_BY_TYPE, True), (_AS_SENT, False), ("{{ raise_exception('No pictures here.') }}", False)],
)
def test_a_template_that_puts_pictures_first_is_known_by_what_it_writes(template: str, is_first: bool) -> None:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({"a": 0}, unk_token="a")))
    assert chat_template._puts_pictures_first(tokenizer, template, load_profile("paper")) is is_first
