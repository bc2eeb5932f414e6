"""LLaVA-1.6: pictures in tiles, the tower inside the checkpoint."""

import json
from pathlib import Path

import pytest
import torch
from dualfocus_engine.conversion.convert import plan
from dualfocus_engine.errors import ConfigError
from dualfocus_engine.families.choosing import choose_profile
from dualfocus_engine.families.profiles import load_profile

from .conversations import conversations, converted_logprobs, original_ids
from .original import (
    GRID,
    config,
    inside,
    language_weights,
    newline_weights,
    projector_weights,
    tower_weights,
    write_checkpoint,
)
from .plain_forward import best_grid, next_logits
from .test_convert import converted

LANGUAGE = language_weights() | projector_weights() | newline_weights()
FIELDS = {
    "image_aspect_ratio": "anyres",
    "mm_patch_merge_type": "spatial_unpad",
    "image_grid_pinpoints": GRID,
    "unfreeze_mm_vision_tower": True,
    "torch_dtype": "float16",
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    fields = config("openai/clip-vit-large-patch14-336", **FIELDS)
    return write_checkpoint(tmp_path / "llava-v1.6", fields, LANGUAGE | inside(tower_weights()))


def test_it_computes_what_its_original_weights_do(tmp_path: Path, source: Path) -> None:
    folder, asked = converted(source, tmp_path / "out"), conversations()
    assert len({best_grid(picture.size) for one in asked for picture in one.pictures}) > 2
    for theirs, one in zip(converted_logprobs(folder, asked, torch.float32), asked, strict=True):
        expected = next_logits(LANGUAGE, tower_weights(), original_ids(one.text), one.pictures).log_softmax(-1)
        torch.testing.assert_close(theirs, expected, atol=1e-4, rtol=0)


def test_it_is_asked_in_llava_nexts_words_and_vicunas_form(tmp_path: Path, source: Path) -> None:
    folder = converted(source, tmp_path / "out")
    profile, vicuna = choose_profile(str(folder)).profile, load_profile("llava-dualfocus")
    assert (profile.name, profile.system, profile.chat_template) == ("llava-next", vicuna.system, vicuna.chat_template)
    settings = json.loads((folder / "config.json").read_text())
    assert settings["architectures"] == ["LlavaNextForConditionalGeneration"]
    assert settings["image_grid_pinpoints"][0] == [112, 56]  # height, width


@pytest.mark.parametrize(
    ("lacking", "told"),
    [
        ("image_aspect_ratio", r"only LLaVA-1\.6, which has both"),
        ("mm_patch_merge_type", r"patches joined flat, and its weights hold model\.image_newline"),
    ],
)
def test_half_of_its_settings_are_refused(tmp_path: Path, lacking: str, told: str) -> None:
    fields = config("/nowhere", **FIELDS | {lacking: None})
    source = write_checkpoint(tmp_path / "llava-v1.6", fields, LANGUAGE | inside(tower_weights()))
    with pytest.raises(ConfigError, match=told):
        plan(str(source))


@pytest.mark.parametrize("merge", ["flat", None])  # flat is what LLaVA takes where nothing is named
def test_tiles_that_are_joined_flat_are_llava_highress(tmp_path: Path, merge: str | None) -> None:
    """What it computes, vLLM alone can say: tests/engine/test_fifth_patch.py."""
    fields = config("/nowhere", **FIELDS | {"mm_patch_merge_type": merge})
    weights = {name: tensor for name, tensor in LANGUAGE.items() if name not in newline_weights()}
    source = write_checkpoint(tmp_path / "llava-highres", fields, weights | inside(tower_weights()))
    folder = converted(source, tmp_path / "out")
    chosen = choose_profile(str(folder)).profile
    assert (chosen.name, chosen.crop_in_picture) == ("fifth-patch", True)
    settings = json.loads((folder / "config.json").read_text())
    assert (settings["architectures"], settings["model_type"]) == (
        ["LlavaHighResForConditionalGeneration"],
        "llava_next",
    )
