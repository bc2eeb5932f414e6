"""The configuration of a converted model, and its processor."""

from collections.abc import Mapping
from typing import Any, TypeAlias

import torch
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextProcessor,
    LlavaProcessor,
)
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

from dualfocus_engine.conversion.names import NEWLINE, from_transformers
from dualfocus_engine.conversion.sources import is_tiled, is_unpadded
from dualfocus_engine.errors import ConfigError
from dualfocus_engine.models import LLAVA_HIGH_RES

_TEXT = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "hidden_act",
    "max_position_embeddings", "rms_norm_eps", "rope_theta", "rope_scaling", "bos_token_id", "eos_token_id",
)  # fmt: skip
# vLLM and transformers multiply matrices of such a number of rows fastest; Hugging Face's converter has the same.
_ROWS = 64
_STRATEGIES = {"patch": "default", "cls_patch": "full"}


Config: TypeAlias = LlavaConfig | LlavaNextConfig


def converted_config(original: Mapping[str, Any], tower: CLIPVisionConfig) -> Config:
    """Return the configuration, the vocabulary longer by <image> and <pad> and rounded up. Raises ConfigError."""
    try:
        config = _config(original, tower)
        dtype = _dtype(original)
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"Its config.json can't be used: {error}") from error
    is_flat = is_tiled(original) and not is_unpadded(original)
    config.architectures = [LLAVA_HIGH_RES if is_flat else _model_class(config).__name__]
    config.dtype = config.text_config.dtype = config.vision_config.dtype = dtype
    return config


def expected_shapes(config: Config) -> dict[str, tuple[int, ...]]:
    """Return the published names of all weights of a model, with their shapes; computes nothing."""
    with torch.device("meta"):
        model = _model_class(config)(config)
    shapes = {from_transformers(name): tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if is_high_res(config):
        del shapes[NEWLINE]
    return shapes


def is_high_res(config: Config) -> bool:
    """Whether a configuration is LLaVA-HighRes's: LLaVA-NeXT's, with patches joined flat."""
    return bool(config.architectures == [LLAVA_HIGH_RES])


def build_processor(tokenizer: Any, config: Config) -> LlavaProcessor | LlavaNextProcessor:
    """Return the processor: pictures are padded to a square, or to tiles, as LLaVA does, never cropped."""
    side = config.vision_config.image_size
    sizes = {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}, "do_pad": True}
    settings = {
        "patch_size": config.vision_config.patch_size, "num_additional_image_tokens": 1,
        "vision_feature_select_strategy": config.vision_feature_select_strategy,
        "chat_template": tokenizer.chat_template,
    }  # fmt: skip
    if isinstance(config, LlavaNextConfig):
        images = LlavaNextImageProcessorPil(**sizes, image_grid_pinpoints=config.image_grid_pinpoints)
        return LlavaNextProcessor(images, tokenizer, **settings)
    return LlavaProcessor(LlavaImageProcessorPil(**sizes), tokenizer, **settings)


def _config(original: Mapping[str, Any], tower: CLIPVisionConfig) -> Config:
    vocabulary = original["vocab_size"]
    rows = -(-(vocabulary + 2) // _ROWS) * _ROWS
    text = {name: original[name] for name in _TEXT if original.get(name) is not None}
    fields = {
        "vision_config": tower, "text_config": LlamaConfig(**text, vocab_size=rows, pad_token_id=vocabulary + 1),
        "image_token_index": vocabulary, "pad_token_id": vocabulary + 1,
        "image_seq_length": (tower.image_size // tower.patch_size) ** 2,
        "vision_feature_layer": original.get("mm_vision_select_layer", -2),
        "vision_feature_select_strategy": _STRATEGIES[original.get("mm_vision_select_feature", "patch")],
    }  # fmt: skip
    if is_tiled(original):
        # LLaVA has them as width and height; the order decides where two fit a picture equally well.
        grid = [[height, width] for width, height in original["image_grid_pinpoints"]]
        return LlavaNextConfig(**fields, image_grid_pinpoints=grid)
    return LlavaConfig(**fields)


def _model_class(config: Config) -> Any:
    return LlavaNextForConditionalGeneration if isinstance(config, LlavaNextConfig) else LlavaForConditionalGeneration


def _dtype(original: Mapping[str, Any]) -> torch.dtype:
    name = original.get("torch_dtype") or original.get("dtype") or "float16"
    dtypes = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
    if name not in dtypes:
        raise ValueError(f"torch_dtype is {name!r}; it can be {', '.join(dtypes)}")
    return dtypes[name]
