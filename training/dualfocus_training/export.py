"""What was learned, as an ordinary Hugging Face folder that transformers and vLLM both load."""

import argparse
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml
from dualfocus_engine.families.choosing import PROFILE_FILE
from peft import PeftModel
from transformers import LlavaForConditionalGeneration

from dualfocus_training.learning.learner import SceneLearner
from dualfocus_training.learning.rounds import RoundsLearner
from dualfocus_training.models.qwen_vl.model import QwenVL
from dualfocus_training.models.weights import save_weights
from dualfocus_training.recipe import Recipe, load_recipe
from dualfocus_training.starting import build_learner, build_processor_of

ADAPTER_FOLDER, BASE_FOLDER = "adapter", "base"


def export(recipe: Recipe, learner: SceneLearner | RoundsLearner, processor: Any, folder: Path) -> None:
    """Write model, processor and profile to `folder`. Low-rank updates are merged into the model, and written apart
    beside it too: `adapter` in peft's format, and `base`, the model that it is for (with what else was learned).

    Each folder changes only once all of it is written. The learner's model is taken apart: it is exported last.
    """
    model = learner.model
    if isinstance(model, PeftModel):
        model = _exported_apart(recipe, model, processor, folder)
    _write_whole(recipe, model, processor, folder)


def _exported_apart(recipe: Recipe, model: PeftModel, processor: Any, folder: Path) -> Any:
    """Write adapter and base; return the two merged."""
    adapter, base = folder.with_name(ADAPTER_FOLDER), folder.with_name(BASE_FOLDER)
    model.active_peft_config.base_model_name_or_path = str(base)
    with _replaced(adapter) as partial:
        model.save_pretrained(str(partial), save_embedding_layers=False)
    plain = model.unload()
    _write_whole(recipe, plain, processor, base)
    return PeftModel.from_pretrained(plain, str(adapter)).merge_and_unload()


def _write_whole(recipe: Recipe, model: Any, processor: Any, folder: Path) -> None:
    with _replaced(folder) as partial:
        processor.save_pretrained(partial)
        (partial / PROFILE_FILE).write_text(_profile_text(recipe), encoding="utf-8")
        _write_model(model, processor, partial)


@contextmanager
def _replaced(folder: Path) -> Iterator[Path]:
    """Give a folder to write to, which takes the place of `folder` at the end."""
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    yield partial
    old = folder.with_name(folder.name + ".old")
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)  # of an export that was stopped at its end
        folder.replace(old)
    partial.replace(folder)
    shutil.rmtree(old, ignore_errors=True)


def _profile_text(recipe: Recipe) -> str:
    profile = recipe.load_profile()
    return yaml.safe_dump(profile.model_dump(mode="json", exclude_defaults=True), sort_keys=False)


def _write_model(model: Any, processor: Any, folder: Path) -> None:
    if isinstance(model, QwenVL):  # what else its layout has came with the processor
        model.save_pretrained(folder)
        return
    model.generation_config.eos_token_id = processor.tokenizer.eos_token_id
    model.generation_config.pad_token_id = processor.tokenizer.pad_token_id
    if not isinstance(model, LlavaForConditionalGeneration):
        model.save_pretrained(folder)
        return
    save_weights(model, folder)
    model.generation_config.save_pretrained(folder)
    model.config.architectures = ["LlavaForConditionalGeneration"]
    model.config.dtype = "bfloat16"
    model.config.save_pretrained(folder)


def main() -> None:
    """Export the checkpoint of a run that is still going."""
    parser = argparse.ArgumentParser(description="Export a run's checkpoint as a Hugging Face folder.")
    parser.add_argument("recipe", type=Path)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    recipe = load_recipe(arguments.recipe)
    processor = build_processor_of(recipe)
    learner = build_learner(recipe, processor)
    state = torch.load(arguments.checkpoint, map_location="cpu", weights_only=True)
    learner.load_state_dict(state["learned"], strict=False)
    export(recipe, learner, processor, arguments.folder)


if __name__ == "__main__":
    main()
