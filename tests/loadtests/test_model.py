"""The model with LLaVA-1.5's shape, without its weights."""

from pathlib import Path

import torch
from dualfocus_engine.families.choosing import profile_of
from transformers import AutoTokenizer, LlavaForConditionalGeneration

from loadtests.asking.model import (
    BOX_TOKENS,
    SEVEN_BILLION,
    SMALL,
    _config,
    bench_profile,
    build_tokenizer,
    ensure_model,
)


def test_it_has_the_shape_that_is_claimed() -> None:
    with torch.device("meta"):
        model = LlavaForConditionalGeneration(_config(SMALL, 400))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert 0.45e9 < parameters < 0.47e9
    assert model.config.image_seq_length == 576


def test_a_box_is_as_long_as_one_of_llavas_and_words_are_whole() -> None:
    tokenizer = build_tokenizer(bench_profile())
    assert len(tokenizer.encode("[0.20, 0.41, 0.37, 0.74]</s>", add_special_tokens=False)) == BOX_TOKENS
    question = "What number is on the red circle?"
    assert len(tokenizer.encode(question, add_special_tokens=False)) == len(question.split()) + 1
    assert tokenizer.decode(tokenizer.encode(question, add_special_tokens=False)) == question


def test_the_grammar_allows_only_boxes_inside_the_picture() -> None:
    box_format = bench_profile().box_format
    assert box_format.grammar is not None
    box = box_format.read("[0.49, 0.49, 0.50, 0.50]")
    assert box is not None
    assert not box.is_empty


def test_the_large_shape_is_written_without_weights(tmp_path: Path) -> None:
    folder = ensure_model(tmp_path / "model", SEVEN_BILLION)
    assert not list(folder.glob("*.safetensors"))
    assert profile_of(str(folder)).max_box_tokens == BOX_TOKENS
    assert AutoTokenizer.from_pretrained(folder).eos_token == "</s>"
    before = (folder / "config.json").stat().st_mtime_ns
    assert ensure_model(folder, SEVEN_BILLION) == folder
    assert (folder / "config.json").stat().st_mtime_ns == before
