"""Qwen3.5 with experts in small: eight in each text layer, two of which a token goes through, and one for all."""

from pathlib import Path

from transformers import Qwen3_5MoeConfig, Qwen3_5MoeForConditionalGeneration

from dualfocus_training.models.families.making import WIDTH, write_model
from dualfocus_training.models.families.qwen import qwen3_vl
from dualfocus_training.models.families.qwen.qwen3_5 import CHAT_TEMPLATE, make_config

_EXPERTS = {
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": WIDTH,
    "shared_expert_intermediate_size": WIDTH,
}


def write_tiny(folder: Path, seed: int) -> None:
    """Write the model, its tokenizer and its processors' configurations into an existing or new folder."""
    tokenizer = qwen3_vl.make_tokenizer(CHAT_TEMPLATE)
    config = make_config(Qwen3_5MoeConfig, tokenizer, **_EXPERTS)
    write_model(folder, Qwen3_5MoeForConditionalGeneration, config, seed)
    qwen3_vl.write_processor(folder, tokenizer)
