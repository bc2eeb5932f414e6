"""Converted models compute what the original weights do."""

import filecmp
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from dualfocus_engine.conversion import command, writing
from dualfocus_engine.conversion.convert import convert, plan
from dualfocus_engine.families.choosing import choose_profile
from safetensors.torch import load_file

from .conversations import conversations, converted_logprobs, original_logprobs
from .original import (
    VOCABULARY,
    Weights,
    config,
    language_weights,
    projector_weights,
    tower_weights,
    write_checkpoint,
    write_tower,
)

Convert = Callable[..., Path]


@pytest.fixture
def tower(tmp_path: Path) -> Path:
    return write_tower(tmp_path / "clip", tower_weights(), whole_clip=True)


@pytest.fixture
def llava(tmp_path: Path, tower: Path) -> Path:
    return write_checkpoint(tmp_path / "llava", config(str(tower)), language_weights() | projector_weights())


def converted(source: Path, target: Path, **options: str) -> Path:
    convert(plan(str(source), **options), target, lambda done: None)
    return target


def assert_same(folder: Path, language: Mapping[str, torch.Tensor], tower: Mapping[str, torch.Tensor]) -> None:
    """Hold a converted model to the plain forward: all tokens of twenty conversations."""
    asked = conversations()
    for theirs, one in zip(converted_logprobs(folder, asked, torch.float32), asked, strict=True):
        torch.testing.assert_close(theirs, original_logprobs(language, tower, one), atol=1e-4, rtol=0)


@pytest.mark.parametrize("bins", [False, True], ids=["safetensors", "bin"])
def test_llava_computes_what_its_original_weights_do(tmp_path: Path, tower: Path, bins: bool) -> None:
    weights = language_weights() | projector_weights()
    source = write_checkpoint(tmp_path / "llava", config(str(tower)), weights, bins=bins)
    assert_same(converted(source, tmp_path / "out"), weights, tower_weights())


def test_in_bfloat16_it_is_the_same_within_its_rounding(tmp_path: Path, llava: Path) -> None:
    folder, asked = converted(llava, tmp_path / "out"), conversations()
    weights = language_weights() | projector_weights()
    for theirs, one in zip(converted_logprobs(folder, asked, torch.bfloat16), asked, strict=True):
        difference = theirs - original_logprobs(weights, tower_weights(), one)
        assert difference.abs().mean() < 0.05


def test_another_projector_is_told_from_this_one(tmp_path: Path, llava: Path) -> None:
    """The comparison can fail."""
    folder = converted(llava, tmp_path / "out")
    with pytest.raises(AssertionError):
        assert_same(folder, language_weights() | projector_weights(seed=9), tower_weights())


def test_two_conversions_are_the_same_bytes(tmp_path: Path, llava: Path) -> None:
    first, second = converted(llava, tmp_path / "first"), converted(llava, tmp_path / "second")
    names = sorted(file.name for file in first.iterdir())
    assert names == sorted(file.name for file in second.iterdir())
    assert filecmp.cmpfiles(first, second, names, shallow=False) == (names, [], [])


def test_rows_that_are_added_are_the_mean(tmp_path: Path, llava: Path) -> None:
    folder = converted(llava, tmp_path / "out")
    weights = all_weights(folder)
    for name, original in (("model.embed_tokens", "model.embed_tokens"), ("lm_head", "lm_head")):
        rows = weights[f"language_model.{name}.weight"]
        old = language_weights()[f"{original}.weight"]
        assert len(rows) == 448
        assert torch.equal(rows[:VOCABULARY], old)
        assert torch.equal(rows[VOCABULARY:], old.double().mean(0).half().expand(448 - VOCABULARY, -1))


def test_weights_are_split_among_files_of_a_limit(tmp_path: Path, llava: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = all_weights(converted(llava, tmp_path / "whole"))
    monkeypatch.setattr(writing, "_SHARD_BYTES", 200_000)
    folder = converted(llava, tmp_path / "out")
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    files = sorted(set(index["weight_map"].values()))
    assert files == [f"model-{number:05}-of-{len(files):05}.safetensors" for number in range(1, len(files) + 1)]
    assert files == sorted(file.name for file in folder.glob("*.safetensors"))
    held = {name: sum(tensor.nbytes for tensor in load_file(folder / name).values()) for name in files}
    assert max(held.values()) <= 200_000
    assert index["metadata"]["total_size"] == sum(held.values())
    split = all_weights(folder)
    assert split.keys() == whole.keys() == index["weight_map"].keys()
    assert all(torch.equal(split[name], whole[name]) for name in whole)


def test_settings_say_what_vllm_needs(tmp_path: Path, llava: Path) -> None:
    folder = converted(llava, tmp_path / "out")
    settings = json.loads((folder / "config.json").read_text())
    assert (settings["image_token_index"], settings["text_config"]["pad_token_id"]) == (VOCABULARY, VOCABULARY + 1)
    assert (settings["dtype"], settings["vision_feature_layer"], settings["image_seq_length"]) == ("float16", -2, 16)
    pictures = json.loads((folder / "processor_config.json").read_text())["image_processor"]
    assert (pictures["do_pad"], pictures["image_processor_type"]) == (True, "LlavaImageProcessor")
    chosen = choose_profile(str(folder))
    assert (chosen.profile.name, chosen.why) == ("llava-dualfocus", "the model's own dualfocus.yaml")


def test_a_tower_that_is_asked_for_is_taken(tmp_path: Path, llava: Path) -> None:
    other = write_tower(tmp_path / "other", tower_weights(seed=7))
    folder = converted(llava, tmp_path / "out", vision_tower=str(other))
    assert_same(folder, language_weights() | projector_weights(), tower_weights(seed=7))


def test_the_command_tells_tower_and_token_ids(
    tmp_path: Path, llava: Path, tower: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([str(llava), str(tmp_path / "out")]) == 0
    told = capsys.readouterr().out
    assert f"vision tower: {tower}: config.json names it" in told
    assert told.count("the same by sentencepiece's legacy rule") == 4


def all_weights(folder: Path) -> Weights:
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}
