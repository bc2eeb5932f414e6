"""The widths and depths of a Qwen-VL, read from its config.json."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

ARCHITECTURE = "QWenLMHeadModel"
# Of every picture, whatever its size: 16 x 16.
PICTURE_TOKENS = 256


def is_qwen_vl(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is Qwen-VL's: the text-only Qwen has the same architecture, and no `visual`."""
    return ARCHITECTURE in (config.get("architectures") or ()) and "visual" in config


@dataclass(frozen=True)
class VisionShape:
    """The vision tower: pictures of `side` pixels in patches of `patch`; `output` is the language model's width."""

    side: int
    patch: int
    width: int
    layers: int
    heads: int
    inner: int
    output: int

    @classmethod
    def from_config(cls, visual: Mapping[str, Any]) -> Self:
        """Read the field `visual`."""
        return cls(
            side=visual["image_size"],
            patch=visual["patch_size"],
            width=visual["width"],
            layers=visual["layers"],
            heads=visual["heads"],
            inner=int(visual["width"] * visual["mlp_ratio"]),
            output=visual["output_dim"],
        )


@dataclass(frozen=True)
class Shape:
    """The language model, and the tower; `picture_token` stands for each of a picture's 256 features."""

    vocabulary: int
    width: int
    layers: int
    heads: int
    inner: int
    norm_eps: float
    rotary_base: float
    context: int
    picture_token: int
    vision: VisionShape

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Read a config.json."""
        return cls(
            vocabulary=config["vocab_size"],
            width=config["hidden_size"],
            layers=config["num_hidden_layers"],
            heads=config["num_attention_heads"],
            inner=config["intermediate_size"] // 2,  # two halves: what is scaled, and its gate
            norm_eps=config["layer_norm_epsilon"],
            rotary_base=config["rotary_emb_base"],
            context=config["seq_length"],
            picture_token=config["visual"]["image_start_id"] + 2,  # after <img> and </img>
            vision=VisionShape.from_config(config["visual"]),
        )
