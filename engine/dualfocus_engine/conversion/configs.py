"""The configuration of a converted model, and its processor."""

from collections.abc import Mapping
from typing import Any

import torch
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from dualfocus_engine.conversion.names import from_transformers
from dualfocus_engine.errors import ConfigError

_TEXT = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "hidden_act",
    "max_position_embeddings", "rms_norm_eps", "rope_theta", "rope_scaling", "bos_token_id", "eos_token_id",
)  # fmt: skip
# vLLM and transformers multiply matrices of such a number of rows fastest; Hugging Face's converter has the same.
_ROWS = 64
_STRATEGIES = {"patch": "default", "cls_patch": "full"}


def converted_config(original: Mapping[str, Any], tower: CLIPVisionConfig) -> LlavaConfig:
    """Return the configuration, the vocabulary longer by <image> and <pad> and rounded up. Raises ConfigError."""
    try:
        vocabulary = original["vocab_size"]
        text = {name: original[name] for name in _TEXT if original.get(name) is not None}
        dtype = _dtype(original)
        rows = -(-(vocabulary + 2) // _ROWS) * _ROWS
        config = LlavaConfig(
            vision_config=tower,
            text_config=LlamaConfig(**text, vocab_size=rows, pad_token_id=vocabulary + 1),
            image_token_index=vocabulary, pad_token_id=vocabulary + 1,
            image_seq_length=(tower.image_size // tower.patch_size) ** 2,
            vision_feature_layer=original.get("mm_vision_select_layer", -2),
            vision_feature_select_strategy=_STRATEGIES[original.get("mm_vision_select_feature", "patch")],
        )  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"Its config.json can't be used: {error}") from error
    config.architectures = ["LlavaForConditionalGeneration"]
    config.dtype = config.text_config.dtype = config.vision_config.dtype = dtype
    return config


def expected_shapes(config: LlavaConfig) -> dict[str, tuple[int, ...]]:
    """Return the published names of all weights of a model, with their shapes; computes nothing."""
    with torch.device("meta"):
        model = LlavaForConditionalGeneration(config)
    return {from_transformers(name): tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def build_processor(tokenizer: Any, config: LlavaConfig) -> LlavaProcessor:
    """Return the processor: pictures are padded to a square, as LLaVA does, never cropped."""
    side = {"height": config.vision_config.image_size, "width": config.vision_config.image_size}
    images = LlavaImageProcessorPil(size={"shortest_edge": side["height"]}, crop_size=side, do_pad=True)
    return LlavaProcessor(
        images, tokenizer, patch_size=config.vision_config.patch_size, num_additional_image_tokens=1,
        vision_feature_select_strategy=config.vision_feature_select_strategy, chat_template=tokenizer.chat_template,
    )  # fmt: skip


def _dtype(original: Mapping[str, Any]) -> torch.dtype:
    name = original.get("torch_dtype") or original.get("dtype") or "float16"
    dtypes = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
    if name not in dtypes:
        raise ValueError(f"torch_dtype is {name!r}; it can be {', '.join(dtypes)}")
    return dtypes[name]
