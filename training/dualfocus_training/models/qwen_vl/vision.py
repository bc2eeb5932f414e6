"""Qwen-VL's vision tower and its resampler, which makes 256 features of any picture."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from dualfocus_training.models.qwen_vl.shape import PICTURE_TOKENS, VisionShape

_EPS = 1e-6
# The resampler's heads are this wide.
_HEAD = 128


class VisionTower(nn.Module):
    """Patches, blocks, resampler; no token for the whole picture."""

    def __init__(self, shape: VisionShape) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, shape.width, shape.patch, stride=shape.patch, bias=False)
        self.positional_embedding = nn.Parameter(shape.width**-0.5 * torch.randn(PICTURE_TOKENS, shape.width))
        self.ln_pre = nn.LayerNorm(shape.width, eps=_EPS)
        self.transformer = nn.ModuleDict({"resblocks": nn.ModuleList(Block(shape) for _ in range(shape.layers))})
        self.attn_pool = Resampler(shape)
        self.ln_post = nn.LayerNorm(shape.output, eps=_EPS)
        self.proj = nn.Parameter(shape.output**-0.5 * torch.randn(shape.output, shape.output))

    def forward(self, pixels: Tensor) -> Tensor:
        """(pictures, 3, side, side) to (pictures, 256, text width)."""
        patches = self.conv1(pixels).flatten(2).transpose(1, 2)
        hidden = self.ln_pre(patches + stretched(self.positional_embedding, patches.shape[1]))
        for block in self.transformer["resblocks"]:
            hidden = block(hidden)
        features: Tensor = self.ln_post(self.attn_pool(hidden)) @ self.proj
        return features


def stretched(places: Tensor, count: int) -> Tensor:
    """A square of places (rows x columns, width) as another of `count` places."""
    side, wanted = math.isqrt(len(places)), math.isqrt(count)
    if side == wanted:
        return places
    square = places.float().unflatten(0, (1, side, side)).permute(0, 3, 1, 2)
    resized = functional.interpolate(square, size=(wanted, wanted), mode="bicubic", align_corners=False)
    return resized.permute(0, 2, 3, 1).flatten(0, 2).to(places.dtype)


class Block(nn.Module):
    """One layer of the tower."""

    def __init__(self, shape: VisionShape) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(shape.width, eps=_EPS)
        self.attn = VisionAttention(shape)
        self.ln_2 = nn.LayerNorm(shape.width, eps=_EPS)
        inner = [("c_fc", nn.Linear(shape.width, shape.inner)), ("c_proj", nn.Linear(shape.inner, shape.width))]
        self.mlp = nn.ModuleDict(dict(inner))

    def forward(self, hidden: Tensor) -> Tensor:
        hidden = hidden + self.attn(self.ln_1(hidden))
        out: Tensor = hidden + self.mlp["c_proj"](functional.gelu(self.mlp["c_fc"](self.ln_2(hidden))))
        return out


class VisionAttention(nn.Module):
    """Attention whose matrix holds query, key and value of a head beside one another, then the next head's."""

    def __init__(self, shape: VisionShape) -> None:
        super().__init__()
        self._heads = shape.heads
        self.in_proj = nn.Linear(shape.width, 3 * shape.width)
        self.out_proj = nn.Linear(shape.width, shape.width)

    def forward(self, hidden: Tensor) -> Tensor:
        queries, keys, values = self.in_proj(hidden).unflatten(-1, (self._heads, 3, -1)).permute(3, 0, 2, 1, 4)
        seen = functional.scaled_dot_product_attention(queries, keys, values)
        out: Tensor = self.out_proj(seen.transpose(1, 2).flatten(2))
        return out


class Resampler(nn.Module):
    """256 learned queries that look at the patches; their places are fixed waves."""

    def __init__(self, shape: VisionShape) -> None:
        super().__init__()
        width = shape.output
        self.query = nn.Parameter(0.02 * torch.randn(PICTURE_TOKENS, width))
        self.pos_embed = nn.Parameter(waves(math.isqrt(PICTURE_TOKENS), width), requires_grad=False)
        self.kv_proj = nn.Linear(shape.width, width, bias=False)
        self.ln_q = nn.LayerNorm(width, eps=_EPS)
        self.ln_kv = nn.LayerNorm(width, eps=_EPS)
        self.attn = nn.MultiheadAttention(width, width // _HEAD, batch_first=True)

    def forward(self, patches: Tensor) -> Tensor:
        """(pictures, patches, tower's width) to (pictures, 256, width)."""
        values = self.ln_kv(self.kv_proj(patches))
        keys = values + stretched(self.pos_embed, patches.shape[1])
        queries = (self.ln_q(self.query) + self.pos_embed).expand(len(patches), -1, -1)
        seen: Tensor = self.attn(queries, keys, values, need_weights=False)[0]
        return seen


def waves(side: int, width: int) -> Tensor:
    """(side x side, width): a quarter each of sines and cosines of the column, then of the row."""
    speeds = 10000.0 ** -(torch.arange(width // 4) / (width // 4))
    angles = torch.arange(side)[:, None] * speeds
    axis = torch.cat([angles.sin(), angles.cos()], 1)
    columns = axis[None].expand(side, side, -1)
    rows = axis[:, None].expand(side, side, -1)
    return torch.cat([columns, rows], -1).flatten(0, 1)
