"""Weights as they are published: under names that both vLLM and transformers load."""

from pathlib import Path
from typing import Any

from dualfocus_engine.conversion.names import from_transformers


def save_weights(model: Any, folder: Path) -> None:
    """Save a LLaVA's weights, in bfloat16, under the names that both vLLM and transformers load (docs/vllm.md)."""
    import torch
    from safetensors.torch import save_file

    weights = dict(model.state_dict())
    if model.config.tie_word_embeddings:
        del weights["lm_head.weight"]
    tensors = {from_transformers(name): tensor.to(torch.bfloat16).contiguous() for name, tensor in weights.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
