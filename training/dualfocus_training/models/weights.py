"""Weights as they are published: under names that both vLLM and transformers load."""

from pathlib import Path
from typing import Any


def save_weights(model: Any, folder: Path) -> None:
    """Save a LLaVA model's weights under the names that both vLLM and transformers load (docs/vllm.md)."""
    from safetensors.torch import save_file

    weights = dict(model.state_dict())
    if model.config.tie_word_embeddings:
        del weights["lm_head.weight"]
    tensors = {_published_name(name): tensor.contiguous() for name, tensor in weights.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _published_name(name: str) -> str:
    name = name.removeprefix("model.")
    if name.startswith("vision_tower.") and not name.startswith("vision_tower.vision_model."):
        return name.replace("vision_tower.", "vision_tower.vision_model.", 1)
    if name.startswith("language_model."):
        return name.replace("language_model.", "language_model.model.", 1)
    return f"language_model.{name}" if name.startswith("lm_head.") else name
