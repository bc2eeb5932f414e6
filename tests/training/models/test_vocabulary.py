"""The small model's tokenizer and its chat template."""

from typing import Any

import pytest
from dualfocus_engine.families.profiles import Profile
from dualfocus_eval.boxes import Box
from dualfocus_training.learning.conversations import Wording, asks, says
from transformers import PreTrainedTokenizerFast


@pytest.mark.parametrize(
    "text", ["", "What?", "  spaces\t\n\n", "Straße 12,5 €", "日本語 🙂", "a\u0000b", "[0.20, 1.00]", "0.5"]
)
def test_any_text_comes_back(text: str, tokenizer: PreTrainedTokenizerFast) -> None:
    assert tokenizer.decode(tokenizer(text).input_ids) == text


@pytest.mark.parametrize("text", ["42", "1234567", "on the 99 squares", "[0.20, 0.41, 0.37, 1.00]"])
def test_digits_stand_alone(text: str, tokenizer: PreTrainedTokenizerFast) -> None:
    tokens = tokenizer.convert_ids_to_tokens(tokenizer(text).input_ids)
    # The whole part of a share is no number of its own: it is written with its bracket or comma.
    assert all(len(token) == 1 or token in ("[0.", ",Ġ0.", ",Ġ1.") for token in tokens if any(map(str.isdigit, token)))


def test_a_box_takes_thirteen_tokens(tokenizer: PreTrainedTokenizerFast, wording: Wording) -> None:
    assert len(tokenizer(wording.box(Box(0.2, 0.41, 0.37, 1.0))).input_ids) == 13


def test_fixed_wording_is_a_token_each(tokenizer: PreTrainedTokenizerFast, wording: Wording) -> None:
    assert all(len(tokenizer(phrase).input_ids) == 1 for phrase in wording.phrases)


def test_two_rounds_render(processor: Any, profile: Profile) -> None:
    messages = [
        asks(profile.grounding_text("What?")),
        says("[0.20, 0.41, 0.37, 0.74]"),
        asks(profile.micro_text("What?")),
    ]
    assert processor.apply_chat_template(messages, add_generation_prompt=True) == (
        "<s>USER: <image>\nProvide the coordinates of the region this question is asking about: What? "
        "ASSISTANT: [0.20, 0.41, 0.37, 0.74]</s>"
        "USER: <image>\nCombine these two images and answer the question: What? ASSISTANT: "
    )


def test_a_system_message_comes_first(processor: Any) -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "<image>\nWhat?"}]
    rendered = processor.apply_chat_template(messages, add_generation_prompt=True)
    assert rendered == "<s>Be brief. USER: <image>\nWhat? ASSISTANT: "
