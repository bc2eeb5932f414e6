"""Qwen-VL's forward in plain torch, from the original weights by their original names: what vLLM's is held to.

Written from a description of the model; shares no code with vLLM, transformers or the model that is served.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from tests.engine.qwen_vl.original import HEADS, LAYERS, PATCH, QUERIES, SIDE, SPECIAL_IDS, TOWER_HEADS, TOWER_LAYERS

_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_EPS = 1e-6
_RESAMPLER_HEAD = 128
_START = SPECIAL_IDS["<img>"]
Weights = Mapping[str, torch.Tensor]


def logits(weights: Weights, ids: Sequence[int], pictures: Sequence[Image.Image]) -> torch.Tensor:
    """Return logits (tokens, vocabulary) of a prompt in which 256 tokens stand for each picture in turn.

    What is computed has the type that the weights have.
    """
    states = weights["transformer.wte.weight"][torch.tensor(ids)]
    starts = [place + 1 for place, token in enumerate(ids) if token == _START]
    for start, picture in zip(starts, pictures, strict=True):
        states[start : start + QUERIES] = picture_states(weights, picture)
    for layer in range(LAYERS):
        states = _layer(_below(weights, f"transformer.h.{layer}."), states)
    return _rms(states, weights["transformer.ln_f.weight"]) @ weights["lm_head.weight"].T


def picture_states(weights: Weights, picture: Image.Image) -> torch.Tensor:
    """Return what the language model reads of a picture, (256, width)."""
    tower = _below(weights, "transformer.visual.")
    pixels = _pixels(picture).to(tower["conv1.weight"].dtype)
    patches = functional.conv2d(pixels[None], tower["conv1.weight"], stride=PATCH)[0].flatten(1).T
    states = _norm(tower, "ln_pre", patches + _stretched(tower["positional_embedding"], SIDE // PATCH))
    for layer in range(TOWER_LAYERS):
        states = _tower_block(_below(tower, f"transformer.resblocks.{layer}."), states)
    return _norm(tower, "ln_post", _resampled(_below(tower, "attn_pool."), states)) @ tower["proj"]


def _pixels(picture: Image.Image) -> torch.Tensor:
    """Return (3, SIDE, SIDE): squeezed to a square, whatever the picture's aspect."""
    square = picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    array = torch.from_numpy(np.asarray(square).copy()).float() / 255
    return ((array - torch.tensor(_MEAN)) / torch.tensor(_STD)).permute(2, 0, 1)


def _stretched(positions: torch.Tensor, side: int) -> torch.Tensor:
    """Return a square grid of positions, (side², width), from a smaller one."""
    trained = round(len(positions) ** 0.5)
    grid = positions.float().T.reshape(1, -1, trained, trained)
    larger = functional.interpolate(grid, (side, side), mode="bicubic", align_corners=False)
    return larger.flatten(2)[0].T.to(positions.dtype)


def _tower_block(weights: Weights, states: torch.Tensor) -> torch.Tensor:
    mixed = _linear(weights, "attn.in_proj", _norm(weights, "ln_1", states))
    # Row by row: query, key, value of the first head, then those of the next.
    heads = mixed.reshape(len(states), TOWER_HEADS, 3, -1)
    attended = _attend(*(heads[:, :, part].transpose(0, 1) for part in range(3)))
    states = states + _linear(weights, "attn.out_proj", attended)
    inner = _linear(weights, "mlp.c_fc", _norm(weights, "ln_2", states))
    return states + _linear(weights, "mlp.c_proj", functional.gelu(inner))


def _resampled(weights: Weights, states: torch.Tensor) -> torch.Tensor:
    """Return the 256 queries' states: they attend to the tower's, once."""
    values = _norm(weights, "ln_kv", states @ weights["kv_proj.weight"].T)
    queries = _norm(weights, "ln_q", weights["query"])
    keys = values + _stretched(weights["pos_embed"], SIDE // PATCH)
    sides = zip((queries + weights["pos_embed"], keys, values), _thirds(weights), strict=True)
    heads = [_heads(side @ matrix.T + bias, bias.numel() // _RESAMPLER_HEAD) for side, (matrix, bias) in sides]
    return _linear(weights, "attn.out_proj", _attend(*heads))


def _thirds(weights: Weights) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return the matrices and biases of query, key and value."""
    pairs = zip(weights["attn.in_proj_weight"].chunk(3), weights["attn.in_proj_bias"].chunk(3), strict=True)
    return list(pairs)


def _layer(weights: Weights, states: torch.Tensor) -> torch.Tensor:
    mixed = _linear(weights, "attn.c_attn", _rms(states, weights["ln_1.weight"]))
    query, key, value = (_heads(part, HEADS) for part in mixed.chunk(3, -1))
    states = states + _attend(_turned(query), _turned(key), value, causal=True) @ weights["attn.c_proj.weight"].T
    normed = _rms(states, weights["ln_2.weight"])
    inner = (normed @ weights["mlp.w1.weight"].T) * functional.silu(normed @ weights["mlp.w2.weight"].T)
    return states + inner @ weights["mlp.c_proj.weight"].T


def _turned(heads: torch.Tensor) -> torch.Tensor:
    """Return heads (heads, tokens, width) with rotary positions, halves turned against each other."""
    half = heads.shape[-1] // 2
    angles = torch.arange(heads.shape[1])[:, None] * 10000.0 ** -(torch.arange(half) / half)
    first, second = heads.float().chunk(2, -1)
    turned = [first * angles.cos() - second * angles.sin(), second * angles.cos() + first * angles.sin()]
    return torch.cat(turned, -1).to(heads.dtype)


def _attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, causal: bool = False) -> torch.Tensor:
    scores = (query @ key.transpose(1, 2)).float() * query.shape[-1] ** -0.5
    if causal:
        scores = scores + torch.full(scores.shape[1:], float("-inf")).triu(1)
    return (scores.softmax(-1).to(value.dtype) @ value).transpose(0, 1).flatten(1)


def _heads(states: torch.Tensor, heads: int) -> torch.Tensor:
    return states.reshape(len(states), heads, -1).transpose(0, 1)


def _rms(states: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    wide = states.float()
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + _EPS)).to(states.dtype) * weight


def _norm(weights: Weights, name: str, states: torch.Tensor) -> torch.Tensor:
    return functional.layer_norm(states, states.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], _EPS)


def _linear(weights: Weights, name: str, states: torch.Tensor) -> torch.Tensor:
    return states @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def _below(weights: Weights, prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}
