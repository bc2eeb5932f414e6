"""Which CLIP vision tower a checkpoint is to look through: its own, or the one that it names."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import CLIPVisionConfig

from dualfocus_engine.conversion.names import TOWER, from_clip, from_original
from dualfocus_engine.conversion.reading import names_in, read_json, tensors_in
from dualfocus_engine.conversion.sources import folder_of
from dualfocus_engine.errors import ConfigError

INSIDE = "model.vision_tower."
# What CLIP's towers have in common; else read off the weights.
_HEAD_WIDTH = 64
_FIELDS = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "image_size",
    "patch_size",
    "hidden_act",
    "layer_norm_eps",
)


@dataclass(frozen=True)
class Tower:
    """A vision tower: its configuration, its folder (none: it stands in the checkpoint), and why it was taken."""

    config: CLIPVisionConfig
    folder: Path | None
    why: str
    warning: str | None = None

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield the weights of a tower with a folder, by their published names. Raises ConfigError."""
        return iter(()) if self.folder is None else _clip_tensors(self.folder)


def choose_tower(checkpoint: Path, config: Mapping[str, Any], asked: str | None) -> Tower:
    """Choose the tower of a checkpoint in LLaVA's format.

    The one asked for; else the checkpoint's own where that was trained with it; else the one its config.json names, or
    its own where that can't be had. Raises ConfigError where there is none.
    """
    own = any(name.startswith(INSIDE) for name in names_in(checkpoint))
    if own and asked is not None and folder_of(asked) == checkpoint:
        return _inside(checkpoint, "the checkpoint's own, as was asked for")
    if asked is not None:
        return _named(asked, "it was asked for", checkpoint if own else None)
    if own and _trained(config):
        return _inside(checkpoint, "the checkpoint's own, which was trained with it")
    name = str(config.get("mm_vision_tower"))
    try:
        return _named(name, "config.json names it", checkpoint if own else None)
    except ConfigError as error:
        if own:
            return _inside(checkpoint, f"the checkpoint's own, since {name} can't be had")
        raise ConfigError(
            f"The checkpoint holds no vision tower, and the one that it names can't be had: {error} "
            "Download it, and name its folder with --vision-tower."
        ) from error


def _trained(config: Mapping[str, Any]) -> bool:
    """Whether a checkpoint's tower is another than the one it names: trained, or ShareGPT4V's, named by a path."""
    share = "Share4VLlamaForCausalLM" in (config.get("architectures") or ())
    return (
        bool(config.get("unfreeze_mm_vision_tower"))
        or share
        or "sharegpt4v" in str(config.get("mm_vision_tower")).lower()
    )


def _named(name: str, why: str, checkpoint: Path | None) -> Tower:
    folder = folder_of(name)
    config = read_json(folder / "config.json")
    fields = config.get("vision_config", config)
    clip = CLIPVisionConfig(**{name: fields[name] for name in _FIELDS if fields.get(name) is not None})
    return Tower(clip, folder, f"{name}: {why}", _difference(folder, checkpoint) if checkpoint else None)


def _inside(checkpoint: Path, why: str) -> Tower:
    shapes = {name: tuple(tensor.shape) for name, tensor in _inside_tensors(checkpoint)}
    try:
        width, _, patch, _ = shapes[f"{TOWER}embeddings.patch_embedding.weight"]
        patches = shapes[f"{TOWER}embeddings.position_embedding.weight"][0] - 1
        wide = shapes[f"{TOWER}encoder.layers.0.mlp.fc1.weight"][0]
    except KeyError as error:
        raise ConfigError(f"{checkpoint}: its vision tower lacks {error}. Name another with --vision-tower.") from error
    layers = sum(name.endswith("mlp.fc1.weight") for name in shapes)
    sizes = {"hidden_size": width, "intermediate_size": wide, "num_hidden_layers": layers, "patch_size": patch}
    side = round(patches**0.5) * patch
    return Tower(CLIPVisionConfig(**sizes, num_attention_heads=width // _HEAD_WIDTH, image_size=side), None, why)


def _difference(folder: Path, checkpoint: Path) -> str | None:
    """Say by how much a checkpoint's own tower differs from the one taken, beyond what rounding to bfloat16 does."""
    own = dict(_inside_tensors(checkpoint))
    differing = [
        name
        for name, tensor in _clip_tensors(folder)
        if name in own and not torch.allclose(tensor.float(), own[name].float(), rtol=2**-7, atol=1e-6)
    ]
    if not differing:
        return None
    return (
        f"The checkpoint holds a vision tower that differs from this one in {len(differing)} weights. If it was "
        "trained with its own, take that: name the checkpoint itself with --vision-tower."
    )


def _inside_tensors(checkpoint: Path) -> Iterator[tuple[str, torch.Tensor]]:
    for name, tensor in tensors_in(checkpoint):
        if name.startswith(INSIDE) and (published := from_original(name)) is not None:
            yield published, tensor


def _clip_tensors(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    for name, tensor in tensors_in(folder):
        if (published := from_clip(name)) is not None:
            yield published, tensor
