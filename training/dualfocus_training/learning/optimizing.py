"""Optimizers and their rates."""

from collections.abc import Sequence

import torch
from torch import distributed, nn
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.optim import Muon, Optimizer

from dualfocus_training.recipe import Rates, Stage

# Weights that look things up rather than mix them: Muon is not for these.
_TABLES = ("embed", "lm_head", "readout")


def build_optimizers(learner: nn.Module, muon: bool) -> list[Optimizer]:
    """AdamW for what is learned; with `muon`, Muon for the matrices of the blocks instead.

    Rates are set at every step (`set_rates`).
    """
    learned = [(name, weight) for name, weight in learner.named_parameters() if weight.requires_grad]
    matrices = [weight for name, weight in learned if muon and _is_mixing(name, weight)]
    held = {id(weight) for weight in matrices}
    rest = [weight for _, weight in learned if id(weight) not in held]
    optimizers: list[Optimizer] = [torch.optim.AdamW(rest, lr=0.0, weight_decay=0.0, betas=(0.9, 0.98))]
    if matrices:
        optimizers.append(_build_muon(matrices))
    return optimizers


def _build_muon(matrices: Sequence[nn.Parameter]) -> Optimizer:
    """Muon; of several processes each updates its share of the matrices, since that takes a while on a CPU."""
    settings = {"lr": 0.0, "adjust_lr_fn": "match_rms_adamw"}
    if distributed.is_initialized():
        return ZeroRedundancyOptimizer(matrices, Muon, **settings)
    return Muon(matrices, **settings)


def gather_states(optimizers: Sequence[Optimizer]) -> None:
    """Bring to the main process what is kept in shares, before its states are read; every process calls this."""
    for optimizer in optimizers:
        if isinstance(optimizer, ZeroRedundancyOptimizer):
            optimizer.consolidate_state_dict()


def _is_mixing(name: str, weight: nn.Parameter) -> bool:
    return weight.ndim == 2 and not any(table in name for table in _TABLES)


def set_rates(optimizers: Sequence[Optimizer], stage: Stage, step: int) -> None:
    """Set each optimizer's learning rate and weight decay for a step of a stage."""
    share = rate_share(stage, step)
    full = (stage.rates.adam, stage.rates.muon or 0.0)
    for optimizer, rate in zip(optimizers, full, strict=False):
        for group in optimizer.param_groups:
            group["lr"], group["weight_decay"] = rate * share, stage.rates.decay


def rate_share(stage: Stage, step: int) -> float:
    """The share of the full rates at a step: up over the warm-up, down over the cool-down."""
    rates: Rates = stage.rates
    rising = (step + 1) / max(1, rates.warmup)
    falling = (stage.steps - step) / rates.cooldown if rates.cooldown else 1.0
    return min(1.0, rising, falling)
