"""Qwen-VL's way from pixels to what its language model reads: a ViT-bigG, then a resampler of 256 queries.

Modules have the names that the weights have on the hub. Leans on vLLM 0.32's parallel linear layers, `Conv2dLayer`,
`MMEncoderAttention`, and on `Resampler2` and `get_abs_pos`, which it kept from its own Qwen-VL (tests/engine/qwen_vl).
"""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import nn
from vllm.distributed import divide, get_tensor_model_parallel_world_size
from vllm.model_executor.layers.attention import MMEncoderAttention
from vllm.model_executor.layers.conv import Conv2dLayer
from vllm.model_executor.layers.linear import ColumnParallelLinear, RowParallelLinear
from vllm.model_executor.layers.resampler import Resampler2, get_abs_pos

# Of the grid of positions that was trained, and of the grid of queries: both are 16 x 16.
_TRAINED_POSITIONS = 256
QUERIES = 256
_RESAMPLER_HEAD = 128
_norm = partial(nn.LayerNorm, eps=1e-6)


class VisionTower(nn.Module):
    """Makes (pictures, 256, output_dim) of pixels (pictures, 3, image_size, image_size).

    `visual` is that of config.json.
    """

    def __init__(self, visual: Mapping[str, Any], prefix: str) -> None:
        super().__init__()
        width, patch, output = visual["width"], visual["patch_size"], visual["output_dim"]
        self.grid = visual["image_size"] // patch
        self.conv1 = Conv2dLayer(3, width, kernel_size=patch, stride=patch, bias=False)
        self.positional_embedding = nn.Parameter(torch.empty(_TRAINED_POSITIONS, width))
        self.ln_pre, self.ln_post = _norm(width), _norm(output)
        self.proj = nn.Parameter(torch.empty(output, output))
        blocks = [_Block(visual, f"{prefix}.transformer.resblocks.{layer}") for layer in range(visual["layers"])]
        self.transformer = nn.ModuleDict({"resblocks": nn.ModuleList(blocks)})
        pool = Resampler2(
            math.isqrt(QUERIES),
            output,
            output // _RESAMPLER_HEAD,
            kv_dim=width,
            norm_layer=_norm,
            do_post_projection=False,
            prefix=f"{prefix}.attn_pool",
        )
        self.attn_pool = pool.to(self.proj.dtype)  # it makes its table of positions in 32 bits

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """See the class."""
        states = self.conv1(pixels).flatten(2).transpose(1, 2)
        states = self.ln_pre(states + get_abs_pos(self.positional_embedding, self.grid))
        for block in self.transformer["resblocks"]:
            states = block(states)
        return self.ln_post(self.attn_pool(states)) @ self.proj


class _Block(nn.Module):
    def __init__(self, visual: Mapping[str, Any], prefix: str) -> None:
        super().__init__()
        width = visual["width"]
        self.ln_1, self.ln_2 = _norm(width), _norm(width)
        self.attn = _Attention(width, visual["heads"], f"{prefix}.attn")
        self.mlp = _Mlp(width, int(width * visual["mlp_ratio"]), f"{prefix}.mlp")

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        states = states + self.attn(self.ln_1(states))
        return states + self.mlp(self.ln_2(states))


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int, prefix: str) -> None:
        super().__init__()
        self.heads, self.size = divide(heads, get_tensor_model_parallel_world_size()), divide(width, heads)
        self.in_proj = ColumnParallelLinear(width, 3 * width, prefix=f"{prefix}.in_proj")
        self.out_proj = RowParallelLinear(width, width, prefix=f"{prefix}.out_proj")
        self.attn = MMEncoderAttention(self.heads, self.size, prefix=f"{prefix}.attn")

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        mixed, _ = self.in_proj(states)
        # Query, key and value of one head stand side by side, then the next head's: so a rank's rows are whole heads.
        query, key, value = mixed.unflatten(-1, (self.heads, 3 * self.size)).split(self.size, -1)
        attended, _ = self.out_proj(self.attn(query, key, value).flatten(-2))
        return attended


class _Mlp(nn.Module):
    def __init__(self, width: int, inner: int, prefix: str) -> None:
        super().__init__()
        self.c_fc = ColumnParallelLinear(width, inner, prefix=f"{prefix}.c_fc")
        self.c_proj = RowParallelLinear(inner, width, prefix=f"{prefix}.c_proj")

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        inner, _ = self.c_fc(states)
        states, _ = self.c_proj(nn.functional.gelu(inner))
        return states
