"""What was learned, as an ordinary Hugging Face folder that transformers and vLLM both load."""

import argparse
import shutil
from pathlib import Path
from typing import Any

import torch
import yaml
from dualfocus_engine.families.choosing import PROFILE_FILE
from peft import PeftModel
from transformers import LlavaForConditionalGeneration

from dualfocus_training.learning.learner import SceneLearner
from dualfocus_training.learning.rounds import RoundsLearner
from dualfocus_training.models.weights import save_weights
from dualfocus_training.recipe import Recipe, load_recipe
from dualfocus_training.starting import build_learner, build_processor_of


def export(recipe: Recipe, learner: SceneLearner | RoundsLearner, processor: Any, folder: Path) -> None:
    """Write model, processor and profile to `folder`, which changes only once all is written.

    The model itself is merged and halved: a learner is exported last.
    """
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    processor.save_pretrained(partial)
    (partial / PROFILE_FILE).write_text(_profile_text(recipe), encoding="utf-8")
    _write_model(learner.model, processor, partial)
    old = folder.with_name(folder.name + ".old")
    if folder.exists():
        folder.replace(old)
    partial.replace(folder)
    shutil.rmtree(old, ignore_errors=True)


def _profile_text(recipe: Recipe) -> str:
    profile = recipe.load_profile()
    return yaml.safe_dump(profile.model_dump(mode="json", exclude_defaults=True), sort_keys=False)


def _write_model(model: Any, processor: Any, folder: Path) -> None:
    merged = model.merge_and_unload() if isinstance(model, PeftModel) else model
    merged.generation_config.eos_token_id = processor.tokenizer.eos_token_id
    merged.generation_config.pad_token_id = processor.tokenizer.pad_token_id
    if not isinstance(merged, LlavaForConditionalGeneration):
        merged.save_pretrained(folder)
        return
    save_weights(merged.to(torch.bfloat16), folder)
    merged.generation_config.save_pretrained(folder)
    merged.config.architectures = ["LlavaForConditionalGeneration"]
    merged.config.dtype = "bfloat16"
    merged.config.save_pretrained(folder)


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
