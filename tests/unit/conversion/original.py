"""Tiny checkpoints exactly as LLaVA's code writes them: names, shards, config.json, tokenizer.model."""

import io
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from dualfocus_engine.families.profiles import shipped_profile
from safetensors.torch import save_file
from sentencepiece import SentencePieceTrainer

Weights = dict[str, torch.Tensor]

WIDTH, WIDE, LAYERS, HEADS = 64, 96, 2, 2  # heads of 32: vLLM on a CPU has none smaller
TOWER_WIDTH, TOWER_WIDE, TOWER_LAYERS, TOWER_HEADS = 128, 160, 3, 2
PATCH, SIDE = 14, 56
# LLaVA-1.6's, of this size: width and height.
GRID = [(SIDE, 2 * SIDE), (2 * SIDE, SIDE), (2 * SIDE, 2 * SIDE), (3 * SIDE, SIDE), (SIDE, 3 * SIDE)]
TOWER_CONFIG = {
    "model_type": "clip_vision_model",
    "hidden_size": TOWER_WIDTH,
    "intermediate_size": TOWER_WIDE,
    "num_hidden_layers": TOWER_LAYERS,
    "num_attention_heads": TOWER_HEADS,
    "patch_size": PATCH,
    "image_size": SIDE,
    "hidden_act": "quick_gelu",
}


@cache
def tokenizer_model() -> bytes:
    """A SentencePiece model of LLaMA's kind: byte-pair pieces, bytes for what it does not know."""
    written = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(shipped_profile("llava-dualfocus").splitlines()),
        model_writer=written, vocab_size=420, model_type="bpe", byte_fallback=True, split_digits=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False, allow_whitespace_only_pieces=True,
        unk_id=0, bos_id=1, eos_id=2, pad_id=-1, hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    return written.getvalue()


VOCABULARY = 420


def config(tower: str, **other: Any) -> dict[str, Any]:
    """config.json of LLaVA-1.5, of the tiny sizes; `other` fields go over it, None takes one out."""
    fields = {
        "architectures": ["LlavaLlamaForCausalLM"],
        "model_type": "llava",
        "hidden_size": WIDTH,
        "intermediate_size": WIDE,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "hidden_act": "silu",
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "mm_vision_tower": tower,
        "mm_projector_type": "mlp2x_gelu",
        "mm_hidden_size": TOWER_WIDTH,
        "mm_vision_select_layer": -2,
        "mm_vision_select_feature": "patch",
        "mm_use_im_start_end": False,
        "mm_use_im_patch_token": False,
        "image_aspect_ratio": "pad",
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "torch_dtype": "float16",
    } | other
    return {name: value for name, value in fields.items() if value is not None}


def language_weights(seed: int = 0) -> Weights:
    """The language model's weights; `inv_freq` as old checkpoints have it."""
    make = _Maker(seed)
    weights = {"model.embed_tokens.weight": make(VOCABULARY, WIDTH) * WIDTH**0.5}
    for layer in range(LAYERS):
        name = f"model.layers.{layer}."
        weights |= {f"{name}self_attn.{part}_proj.weight": make(WIDTH, WIDTH) for part in "qkvo"}
        weights |= {f"{name}mlp.{part}_proj.weight": make(WIDE, WIDTH) for part in ("gate", "up")}
        weights[f"{name}mlp.down_proj.weight"] = make(WIDTH, WIDE)
        weights |= {
            f"{name}{norm}.weight": make.norm(WIDTH) for norm in ("input_layernorm", "post_attention_layernorm")
        }
        weights[f"{name}self_attn.rotary_emb.inv_freq"] = torch.ones(WIDTH // HEADS // 2)
    return weights | {"model.norm.weight": make.norm(WIDTH), "lm_head.weight": make(VOCABULARY, WIDTH) * 2}


def newline_weights() -> Weights:
    """LLaVA-1.6's vector that closes a row of patches."""
    return {"model.image_newline": _Maker(4)(WIDTH, 1)[:, 0]}


def projector_weights(seed: int = 1) -> Weights:
    """The projector's weights, `mlp2x_gelu`."""
    make = _Maker(seed)
    sizes = {"0": (WIDTH, TOWER_WIDTH), "2": (WIDTH, WIDTH)}
    matrices = {f"model.mm_projector.{number}.weight": make(*size) for number, size in sizes.items()}
    return matrices | {f"model.mm_projector.{number}.bias": make(WIDTH, 1)[:, 0] for number in sizes}


def tower_weights(seed: int = 2, side: int = SIDE) -> Weights:
    """The vision tower's weights, by CLIP's names, for pictures of `side` pixels."""
    make = _Maker(seed)
    weights = {
        "embeddings.class_embedding": make(TOWER_WIDTH, 1)[:, 0],
        "embeddings.patch_embedding.weight": make(TOWER_WIDTH, 3 * PATCH**2).reshape(TOWER_WIDTH, 3, PATCH, PATCH),
        "embeddings.position_embedding.weight": make((side // PATCH) ** 2 + 1, TOWER_WIDTH),
    }
    for layer in range(TOWER_LAYERS):
        name = f"encoder.layers.{layer}."
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            weights |= make.linear(f"{name}self_attn.{part}", TOWER_WIDTH, TOWER_WIDTH)
        weights |= make.linear(f"{name}mlp.fc1", TOWER_WIDE, TOWER_WIDTH)
        weights |= make.linear(f"{name}mlp.fc2", TOWER_WIDTH, TOWER_WIDE)
        weights |= make.layer_norm(f"{name}layer_norm1") | make.layer_norm(f"{name}layer_norm2")
    weights |= make.layer_norm("pre_layrnorm") | make.layer_norm("post_layernorm")
    return {f"vision_model.{name}": tensor for name, tensor in weights.items()}


def inside(tower: Mapping[str, torch.Tensor]) -> Weights:
    """A tower's weights by the names that they have inside a checkpoint."""
    return {f"model.vision_tower.vision_tower.{name}": tensor for name, tensor in tower.items()}


def write_tower(folder: Path, weights: Weights, *, whole_clip: bool = False) -> Path:
    """Write a tower's folder as OpenAI's CLIP has it (with its text half), or a CLIPVisionModel's alone."""
    folder.mkdir(parents=True)
    other = {"text_model.final_layer_norm.bias": torch.zeros(3), "logit_scale": torch.ones(())} if whole_clip else {}
    position_ids = {"vision_model.embeddings.position_ids": torch.arange((SIDE // PATCH) ** 2 + 1)[None]}
    torch.save(weights | position_ids | other, folder / "pytorch_model.bin")
    settings = {"model_type": "clip", "vision_config": TOWER_CONFIG} if whole_clip else TOWER_CONFIG
    (folder / "config.json").write_text(json.dumps(settings))
    return folder


def write_checkpoint(folder: Path, fields: Mapping[str, Any], weights: Weights, *, bins: bool = False) -> Path:
    """Write a checkpoint in two shards, `.bin` or safetensors."""
    folder.mkdir(parents=True)
    names = list(weights)
    halves = [names[: len(names) // 2], names[len(names) // 2 :]]
    stem, ending = ("pytorch_model", "bin") if bins else ("model", "safetensors")
    files = {f"{stem}-{number:05}-of-00002.{ending}": half for number, half in enumerate(halves, 1)}
    for file, half in files.items():
        (torch.save if bins else save_file)({name: weights[name] for name in half}, folder / file)
    weight_map = {name: file for file, half in files.items() for name in half}
    (folder / f"{stem}.{ending}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return write_beside(folder, fields)


def write_beside(folder: Path, fields: Mapping[str, Any]) -> Path:
    """Write what stands beside the weights."""
    (folder / "config.json").write_text(json.dumps(fields))
    (folder / "tokenizer.model").write_bytes(tokenizer_model())
    return folder


class _Maker:
    """Random weights in half precision, of a size that keeps what goes through them of size one."""

    def __init__(self, seed: int) -> None:
        self._random = torch.Generator().manual_seed(seed)

    def __call__(self, rows: int, columns: int) -> torch.Tensor:
        return (torch.randn(rows, columns, generator=self._random) * columns**-0.5).half()

    def bias(self, width: int) -> torch.Tensor:
        return (torch.randn(width, generator=self._random) / 8).half()

    def norm(self, width: int) -> torch.Tensor:
        return (1 + torch.randn(width, generator=self._random) / 8).half()

    def linear(self, name: str, rows: int, columns: int) -> Weights:
        return {f"{name}.weight": self(rows, columns), f"{name}.bias": self.bias(rows)}

    def layer_norm(self, name: str) -> Weights:
        return {f"{name}.weight": self.norm(TOWER_WIDTH), f"{name}.bias": self.bias(TOWER_WIDTH)}
