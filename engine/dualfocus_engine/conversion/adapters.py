"""Folders that change a base: LoRA adapters and trained projectors."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from dualfocus_engine.conversion.reading import has_weights, read_json, tensors_of
from dualfocus_engine.errors import ConfigError

_OTHERS = ("non_lora_trainables.bin", "mm_projector.bin")
_ADAPTERS = ("adapter_model.safetensors", "adapter_model.bin")


@dataclass(frozen=True)
class Changes:
    """What a folder changes of its base, by LLaVA's names: weights of its own, and deltas of low rank."""

    replaced: Mapping[str, torch.Tensor] = field(default_factory=dict)
    deltas: Mapping[str, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)
    scale: float = 1.0

    def apply(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """Return the weight as it is with the change: W + scale * B A, rounded once."""
        if name not in self.deltas:
            return tensor
        low, high = self.deltas[name]
        return (tensor.float() + self.scale * (high.float() @ low.float())).to(tensor.dtype)

    def check_met(self, names: set[str]) -> None:
        """Raise ConfigError where the base lacks a weight that a delta is for."""
        if unmet := sorted(self.deltas.keys() - names):
            raise ConfigError(
                f"The base has no {unmet[0]}, which the adapter changes: name the base it was trained on."
            )


def read_changes(folder: Path) -> Changes | None:
    """Read what a folder changes of its base; None for one that holds a whole model. Raises ConfigError."""
    if has_weights(folder):
        return None
    adapters = [folder / name for name in _ADAPTERS if (folder / name).is_file()]
    others = [folder / name for name in _OTHERS if (folder / name).is_file()]
    if not adapters and not others:
        raise ConfigError(f"{folder}: there are no weights: no model's, no adapter's, no projector's.")
    replaced = {_bare(name): tensor for file in others for name, tensor in tensors_of(file)}
    if not adapters:
        return Changes(replaced)
    return Changes(replaced, _deltas(adapters[0]), _scale(folder))


def _deltas(file: Path) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Return the pairs (A, B) of an adapter. Raises ConfigError for adapters of another kind."""
    found: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors_of(file):
        target, _, which = _bare(name).removesuffix(".weight").removesuffix(".default").rpartition(".")
        if which not in ("lora_A", "lora_B"):
            raise ConfigError(f"{file}: it holds {name}, which is no LoRA matrix of a linear layer.")
        found.setdefault(f"{target}.weight", {})[which] = tensor
    if halves := [target for target, pair in found.items() if len(pair) < 2]:
        raise ConfigError(f"{file}: only half of the LoRA of {halves[0]} is there. Download it again.")
    return {target: (pair["lora_A"], pair["lora_B"]) for target, pair in found.items()}


def _scale(folder: Path) -> float:
    config = read_json(folder / "adapter_config.json")
    if config.get("use_dora") or config.get("alpha_pattern") or config.get("rank_pattern"):
        raise ConfigError(f"{folder}: an adapter with DoRA or ranks of its own for some layers can't be merged.")
    try:
        rank, alpha = float(config["r"]), float(config["lora_alpha"])
        return alpha / (rank**0.5 if config.get("use_rslora") else rank)
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise ConfigError(f"{folder}/adapter_config.json: r and lora_alpha must be positive numbers.") from error


def _bare(name: str) -> str:
    """Return LLaVA's name of a weight that peft saved with its own prefixes."""
    name = name.removeprefix("base_model.")
    if name.startswith("mm_projector."):
        return f"model.{name}"
    return name.removeprefix("model.") if name.startswith(("model.model.", "model.lm_head.")) else name
