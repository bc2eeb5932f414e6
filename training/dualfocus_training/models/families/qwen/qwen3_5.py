"""Qwen3.5 in small: Qwen3-VL's pictures; half of the text layers keep a state in the place of keys and values."""

from pathlib import Path
from typing import Any

from transformers import Qwen2Tokenizer, Qwen3_5Config, Qwen3_5ForConditionalGeneration

from dualfocus_training.models.families.making import small_text, write_model
from dualfocus_training.models.families.qwen import qwen3_vl

# It thinks unless it is told not to; then the thoughts that it does not have are written for it.
_OPENING = "{{- '<|im_start|>assistant\\n' -}}"
_THINKING = "{{- '<think>\\n\\n</think>\\n\\n' if enable_thinking is false else '<think>\\n' -}}"
CHAT_TEMPLATE = qwen3_vl.CHAT_TEMPLATE.replace(_OPENING, _OPENING + _THINKING)


def write_tiny(folder: Path, seed: int) -> None:
    """Write the model, its tokenizer and its processors' configurations into an existing or new folder."""
    tokenizer = qwen3_vl.make_tokenizer(CHAT_TEMPLATE)
    write_model(folder, Qwen3_5ForConditionalGeneration, make_config(Qwen3_5Config, tokenizer), seed)
    qwen3_vl.write_processor(folder, tokenizer)


def make_config(kind: Any, tokenizer: Qwen2Tokenizer, **text: Any) -> Any:
    """Return the configuration in its dense form or that of experts; `text` is what the text model has besides."""
    rotary = {
        "rope_type": "default",
        "mrope_section": [3, 3, 2],
        "mrope_interleaved": True,
        "rope_theta": 1e7,
        "partial_rotary_factor": 0.25,
    }
    states = {
        "num_hidden_layers": 4,
        # Published are three to one; then weights as few as these hardly look at the picture.
        "layer_types": ["linear_attention", "full_attention"] * 2,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 2,
        "linear_key_head_dim": 64,
        "linear_value_head_dim": 64,
    }
    return kind(
        text_config=small_text(tokenizer, head_dim=64, rope_parameters=rotary, **states, **text),
        vision_config=qwen3_vl.small_vision(),
        **qwen3_vl.picture_tokens(tokenizer),
    )
