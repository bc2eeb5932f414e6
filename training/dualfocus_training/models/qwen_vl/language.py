"""Qwen's language model: each module has the name that the released weights have."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from dualfocus_training.models.qwen_vl.shape import Shape


class Attention(nn.Module):
    """Causal attention with rotary positions; queries, keys and values by one matrix, which alone has a bias."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self._heads = shape.heads
        self.c_attn = nn.Linear(shape.width, 3 * shape.width)
        self.c_proj = nn.Linear(shape.width, shape.width, bias=False)

    def forward(self, hidden: Tensor, turns: Tensor) -> Tensor:
        """(sequences, length, width) in and out; `turns`: (length, head width), by how much positions are turned."""
        split = self.c_attn(hidden).unflatten(-1, (3, self._heads, -1)).permute(2, 0, 3, 1, 4)
        queries, keys, values = split
        seen = functional.scaled_dot_product_attention(
            _turned(queries, turns), _turned(keys, turns), values, is_causal=True
        )
        out: Tensor = self.c_proj(seen.transpose(1, 2).flatten(2))
        return out


def _turned(heads: Tensor, turns: Tensor) -> Tensor:
    """Each pair of a head's halves turned by its position's angle, in 32 bits."""
    first, second = heads.float().chunk(2, -1)
    turned = heads.float() * turns.cos() + torch.cat([-second, first], -1) * turns.sin()
    return turned.to(heads.dtype)


def position_turns(length: int, shape: Shape, device: torch.device) -> Tensor:
    """(length, head width): the angle of each position, the slower the further on in a half of a head."""
    size = shape.width // shape.heads
    speeds = shape.rotary_base ** -(torch.arange(0, size, 2, device=device).float() / size)
    angles = torch.arange(length, device=device).float()[:, None] * speeds
    return torch.cat([angles, angles], -1)


class Mlp(nn.Module):
    """`w2` is the gate, `w1` what it scales."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.w1 = nn.Linear(shape.width, shape.inner, bias=False)
        self.w2 = nn.Linear(shape.width, shape.inner, bias=False)
        self.c_proj = nn.Linear(shape.inner, shape.width, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        out: Tensor = self.c_proj(self.w1(hidden) * functional.silu(self.w2(hidden)))
        return out


class Block(nn.Module):
    """One layer."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.ln_1 = nn.RMSNorm(shape.width, eps=shape.norm_eps)
        self.attn = Attention(shape)
        self.ln_2 = nn.RMSNorm(shape.width, eps=shape.norm_eps)
        self.mlp = Mlp(shape)

    def forward(self, hidden: Tensor, turns: Tensor) -> Tensor:
        hidden = hidden + self.attn(self.ln_1(hidden), turns)
        out: Tensor = hidden + self.mlp(self.ln_2(hidden))
        return out
