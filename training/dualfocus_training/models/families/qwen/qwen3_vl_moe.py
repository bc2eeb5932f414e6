"""Qwen3-VL with experts in small: eight of them in each text layer, two of which a token goes through."""

from pathlib import Path
from typing import Any

from transformers import Qwen3VLMoeConfig, Qwen3VLMoeForConditionalGeneration

from dualfocus_training.models.families.making import WIDTH, make_model
from dualfocus_training.models.families.qwen.qwen3_vl import make_config, make_tokenizer, write_processor

_EXPERTS = {
    "num_experts": 8,
    "num_experts_per_tok": 2,
    # Twice this is not WIDTH: by their shapes transformers tells whether loaded experts lie across (see below).
    "moe_intermediate_size": 3 * WIDTH // 4,
    "norm_topk_prob": True,
    "tie_word_embeddings": False,
}


def write_tiny(folder: Path, seed: int) -> None:
    """Write the model, its tokenizer and its processors' configurations into an existing or new folder."""
    tokenizer = make_tokenizer()
    model = make_model(Qwen3VLMoeForConditionalGeneration, make_config(Qwen3VLMoeConfig, tokenizer, **_EXPERTS), seed)
    weights = {name: _as_published(name, tensor) for name, tensor in model.state_dict().items()}
    model.save_pretrained(folder, state_dict=weights, save_original_format=False)
    write_processor(folder, tokenizer)


def _as_published(name: str, tensor: Any) -> Any:
    """Lay a layer's experts across, as published: vLLM reads no others, and transformers saves them as it computes."""
    return tensor.transpose(1, 2).contiguous() if ".experts." in name else tensor
