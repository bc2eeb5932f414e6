"""Qwen2-VL in small: Qwen2.5-VL's pictures, template and tokens, and an encoder that attends to whole pictures."""

from pathlib import Path

from transformers import Qwen2Tokenizer, Qwen2VLConfig, Qwen2VLForConditionalGeneration

from dualfocus_training.models.families.making import SPREAD, WIDTH, small_text, write_model
from dualfocus_training.models.families.qwen.qwen2_5_vl import make_tokenizer, picture_tokens, write_processor

_VISION = {
    "depth": 2,
    "embed_dim": 64,
    "hidden_size": WIDTH,
    "mlp_ratio": 2,
    "num_heads": 2,
    "patch_size": 14,
    "initializer_range": SPREAD,
}


def write_tiny(folder: Path, seed: int) -> None:
    """Write the model, its tokenizer and its processor's configuration into an existing or new folder."""
    tokenizer = make_tokenizer()
    write_model(folder, Qwen2VLForConditionalGeneration, _config(tokenizer), seed)
    write_processor(folder, tokenizer, "Qwen2VLProcessor")


def _config(tokenizer: Qwen2Tokenizer) -> Qwen2VLConfig:
    rotary = {"rope_type": "default", "mrope_section": [8, 12, 12], "rope_theta": 1e6}
    return Qwen2VLConfig(
        text_config=small_text(tokenizer, rope_parameters=rotary), vision_config=_VISION, **picture_tokens(tokenizer)
    )
