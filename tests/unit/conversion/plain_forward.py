"""LLaVA-1.5's forward in plain torch, from the original weights by their original names: what conversions are held to.

Written from the papers' description and LLaVA's own steps; shares no code with transformers, vLLM or the conversion.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from .original import GRID, HEADS, LAYERS, PATCH, SIDE, TOWER_HEADS, TOWER_LAYERS

_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
IMAGE = -200


def logits(
    language: Mapping[str, torch.Tensor],
    tower: Mapping[str, torch.Tensor],
    ids: Sequence[int],
    pictures: Sequence[Image.Image],
) -> torch.Tensor:
    """Return logits (tokens, vocabulary) of a prompt in which IMAGE stands for each picture in turn."""
    language = {name: tensor.float() for name, tensor in language.items()}
    left = iter(pictures)
    seen = [_picture(language, tower, next(left)) if id == IMAGE else _embedded(language, id) for id in ids]
    return _language(language, torch.cat(seen))


def _language(language: Mapping[str, torch.Tensor], states: torch.Tensor) -> torch.Tensor:
    for layer in range(LAYERS):
        states = _block(language, f"model.layers.{layer}.", states)
    return _rms(states, language["model.norm.weight"]) @ language["lm_head.weight"].T


def next_logits(
    language: Mapping[str, torch.Tensor],
    tower: Mapping[str, torch.Tensor],
    ids: Sequence[int],
    pictures: Sequence[Image.Image],
) -> torch.Tensor:
    """The same of LLaVA-1.6: a picture whole, then in tiles, without what pads them, each row closed by a newline."""
    language = {name: tensor.float() for name, tensor in language.items()}
    left = iter(pictures)
    seen = [_tiled(language, tower, next(left)) if id == IMAGE else _embedded(language, id) for id in ids]
    return _language(language, torch.cat(seen))


def flat_logits(
    language: Mapping[str, torch.Tensor],
    tower: Mapping[str, torch.Tensor],
    ids: Sequence[int],
    pictures: Sequence[Sequence[Image.Image]],
    grid: tuple[int, int],
    side: int,
) -> torch.Tensor:
    """The same of LLaVA-HighRes: a picture whole, in tiles of `side` pixels, then its crop if any, one by one."""
    language = {name: tensor.float() for name, tensor in language.items()}
    left = iter(pictures)
    seen = [_flat(language, tower, next(left), grid, side) if id == IMAGE else _embedded(language, id) for id in ids]
    return _language(language, torch.cat(seen))


def _flat(
    language: Mapping[str, torch.Tensor],
    tower: Mapping[str, torch.Tensor],
    shown: Sequence[Image.Image],
    grid: tuple[int, int],
    side: int,
) -> torch.Tensor:
    picture, *crop = shown
    patches = [picture.resize((side, side)), *_tiles(picture, grid, side), *(one.resize((side, side)) for one in crop)]
    return torch.cat([_seen(language, tower, patch) for patch in patches])


def best_grid(size: tuple[int, int]) -> tuple[int, int]:
    """The width and height, among GRID, that show most of a picture; of equals what wastes least, then the first."""

    def fit(grid: tuple[int, int]) -> tuple[int, int]:
        scale = min(grid[0] / size[0], grid[1] / size[1])
        shown = min(int(size[0] * scale) * int(size[1] * scale), size[0] * size[1])
        return shown, shown - grid[0] * grid[1]

    return max(GRID, key=fit)


def _tiled(
    language: Mapping[str, torch.Tensor], tower: Mapping[str, torch.Tensor], picture: Image.Image
) -> torch.Tensor:
    width, height = best_grid(picture.size)
    tiles = _tiles(picture, (width, height), SIDE)
    base, *features = (_seen(language, tower, tile) for tile in (picture.resize((SIDE, SIDE)), *tiles))
    side = SIDE // PATCH
    rows = torch.stack(features).reshape(height // SIDE, width // SIDE, side, side, -1)
    rows = _unpadded(rows.permute(0, 2, 1, 3, 4).flatten(2, 3).flatten(0, 1), picture.size)
    newline = language["model.image_newline"].expand(len(rows), 1, -1)
    return torch.cat([base, torch.cat([rows, newline], dim=1).flatten(0, 1)])


def _tiles(picture: Image.Image, grid: tuple[int, int], side: int) -> list[Image.Image]:
    """A picture, its aspect kept, in the middle of a black canvas of the grid's size; cut row by row."""
    width, height = grid
    canvas = Image.new("RGB", (width, height))
    scale = (width / picture.width, height / picture.height)
    if scale[0] < scale[1]:
        shown = (width, min(math.ceil(picture.height * scale[0]), height))
    else:
        shown = (min(math.ceil(picture.width * scale[1]), width), height)
    canvas.paste(picture.resize(shown), ((width - shown[0]) // 2, (height - shown[1]) // 2))
    corners = [(x, y) for y in range(0, height, side) for x in range(0, width, side)]
    return [canvas.crop((x, y, x + side, y + side)) for x, y in corners]


def _unpadded(rows: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    height, width, _ = rows.shape
    if size[0] / size[1] > width / height:
        padding = (height - int(size[1] * (width / size[0]))) // 2
        return rows[padding : height - padding]
    padding = (width - int(size[0] * (height / size[1]))) // 2
    return rows[:, padding : width - padding]


def _square(picture: Image.Image) -> Image.Image:
    """Return a picture of SIDE pixels: padded to a square with the mean colour, as LLaVA pads, resized."""
    side = max(picture.size)
    square = Image.new("RGB", (side, side), tuple(int(255 * mean) for mean in _MEAN))
    square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return square.resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def _pixels(square: Image.Image) -> torch.Tensor:
    array = torch.from_numpy(np.asarray(square).copy()).float() / 255
    return ((array - torch.tensor(_MEAN)) / torch.tensor(_STD)).permute(2, 0, 1)


def _embedded(language: Mapping[str, torch.Tensor], id: int) -> torch.Tensor:
    return language["model.embed_tokens.weight"][id][None]


def _picture(
    language: Mapping[str, torch.Tensor], tower: Mapping[str, torch.Tensor], picture: Image.Image
) -> torch.Tensor:
    return _seen(language, tower, _square(picture))


def _seen(language: Mapping[str, torch.Tensor], tower: Mapping[str, torch.Tensor], square: Image.Image) -> torch.Tensor:
    """What the language model sees of a square picture of SIDE pixels: tower, then projector."""
    hidden = _tower({name.removeprefix("vision_model."): tensor.float() for name, tensor in tower.items()}, square)
    first = hidden @ language["model.mm_projector.0.weight"].T + language["model.mm_projector.0.bias"]
    return functional.gelu(first) @ language["model.mm_projector.2.weight"].T + language["model.mm_projector.2.bias"]


def _tower(weights: Mapping[str, torch.Tensor], picture: Image.Image) -> torch.Tensor:
    """Return what goes into the last layer, without the class token."""
    patches = (
        functional.conv2d(_pixels(picture)[None], weights["embeddings.patch_embedding.weight"], stride=PATCH)[0]
        .flatten(1)
        .T
    )
    states = torch.cat([weights["embeddings.class_embedding"][None], patches])
    states = _norm(weights, "pre_layrnorm", states + weights["embeddings.position_embedding.weight"])
    for layer in range(TOWER_LAYERS - 1):
        name = f"encoder.layers.{layer}."
        normed = _norm(weights, f"{name}layer_norm1", states)
        query, key, value = (_linear(weights, f"{name}self_attn.{part}_proj", normed) for part in "qkv")
        mixed = _attend(*(_heads(part, TOWER_HEADS) for part in (query, key, value)), causal=False)
        states = states + _linear(weights, f"{name}self_attn.out_proj", mixed)
        inner = _linear(weights, f"{name}mlp.fc1", _norm(weights, f"{name}layer_norm2", states))
        states = states + _linear(weights, f"{name}mlp.fc2", inner * torch.sigmoid(1.702 * inner))
    return states[1:]


def _block(weights: Mapping[str, torch.Tensor], name: str, states: torch.Tensor) -> torch.Tensor:
    normed = _rms(states, weights[f"{name}input_layernorm.weight"])
    query, key, value = (_heads(normed @ weights[f"{name}self_attn.{part}_proj.weight"].T, HEADS) for part in "qkv")
    mixed = _attend(_turned(query), _turned(key), value, causal=True)
    states = states + mixed @ weights[f"{name}self_attn.o_proj.weight"].T
    normed = _rms(states, weights[f"{name}post_attention_layernorm.weight"])
    gate, up = (normed @ weights[f"{name}mlp.{part}_proj.weight"].T for part in ("gate", "up"))
    return states + (functional.silu(gate) * up) @ weights[f"{name}mlp.down_proj.weight"].T


def _heads(states: torch.Tensor, heads: int) -> torch.Tensor:
    return states.reshape(len(states), heads, -1).transpose(0, 1)


def _turned(heads: torch.Tensor) -> torch.Tensor:
    """Return heads (heads, tokens, width) with rotary positions, halves turned against each other."""
    half = heads.shape[-1] // 2
    angles = torch.arange(heads.shape[1])[:, None] * 10000.0 ** -(torch.arange(half) / half)
    first, second = heads[..., :half], heads[..., half:]
    return torch.cat([first * angles.cos() - second * angles.sin(), second * angles.cos() + first * angles.sin()], -1)


def _attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, causal: bool) -> torch.Tensor:
    scores = query @ key.transpose(1, 2) * query.shape[-1] ** -0.5
    if causal:
        scores = scores + torch.full(scores.shape[1:], float("-inf")).triu(1)
    return (scores.softmax(-1) @ value).transpose(0, 1).flatten(1)


def _rms(states: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return states * torch.rsqrt(states.square().mean(-1, keepdim=True) + 1e-5) * weight


def _norm(weights: Mapping[str, torch.Tensor], name: str, states: torch.Tensor) -> torch.Tensor:
    return functional.layer_norm(states, states.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], 1e-5)


def _linear(weights: Mapping[str, torch.Tensor], name: str, states: torch.Tensor) -> torch.Tensor:
    return states @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]
