"""Tiny Qwen-VL-Chat checkpoints exactly as the hub has the real one: names, shards, config.json, qwen.tiktoken.

Pictures are of the real size and take as many tokens; the rest is narrow and shallow, and its weights are random.
"""

import base64
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
from transformers.convert_slow_tokenizer import bytes_to_unicode

Weights = dict[str, torch.Tensor]

WIDTH, WIDE, LAYERS, HEADS = 256, 176, 2, 4
TOWER_WIDTH, TOWER_WIDE, TOWER_LAYERS, TOWER_HEADS = 128, 630, 2, 2
PATCH, SIDE = 14, 448
POSITIONS = QUERIES = 256
RANKS = 512
# Those of the real tokenizer, in their order.
SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", *(f"<|extra_{number}|>" for number in range(205)),
    "<ref>", "</ref>", "<box>", "</box>", "<quad>", "</quad>", "<img>", "</img>", "<imgpad>",
)  # fmt: skip
SPECIAL_IDS = {token: RANKS + number for number, token in enumerate(SPECIAL)}
PIECES = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
VOCABULARY = 736
_TEXTS = (
    "You are a helpful assistant. system user Picture 1: What is in this picture, and where does it stand?",
    "Provide the coordinates of the region this question is asking about: What color is the sign on the left?",
    "Combine these two images and answer the question: How many people are there? There are two of them, I think.",
    "Répondez à la question : où est le chat ? Il est assis devant la fenêtre, à côté du chien.",
    "图片里有什么东西。这是一张街道的照片。左边有两个人和一条狗。请给出问题所问区域的坐标。",
)


@cache
def ranks() -> dict[bytes, int]:
    """Byte pairs trained on a few sentences, by their rank: the bytes first."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=RANKS, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(_TEXTS, trainer)
    byte_of = {character: byte for byte, character in bytes_to_unicode().items()}
    trained = {bytes(byte_of[one] for one in token): rank for token, rank in tokenizer.get_vocab().items()}
    assert len(trained) == RANKS
    return trained


def config(**other: Any) -> dict[str, Any]:
    """config.json of Qwen-VL-Chat, of the tiny sizes; `other` fields go over it, None takes one out."""
    fields = {
        "architectures": ["QWenLMHeadModel"],
        "attn_dropout_prob": 0.0,
        "auto_map": {
            "AutoConfig": "configuration_qwen.QWenConfig",
            "AutoModelForCausalLM": "modeling_qwen.QWenLMHeadModel",
        },
        "bf16": True,
        "emb_dropout_prob": 0.0,
        "fp16": False,
        "fp32": False,
        "hidden_size": WIDTH,
        "initializer_range": 0.02,
        "intermediate_size": 2 * WIDE,
        "kv_channels": WIDTH // HEADS,
        "layer_norm_epsilon": 1e-06,
        "max_position_embeddings": 8192,
        "model_type": "qwen",
        "no_bias": True,
        "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS,
        "onnx_safe": None,
        "rotary_emb_base": 10000,
        "rotary_pct": 1.0,
        "scale_attn_weights": True,
        "seq_length": 2048,
        "tie_word_embeddings": False,
        "tokenizer_type": "QWenTokenizer",
        "torch_dtype": "bfloat16",
        "transformers_version": "4.31.0",
        "use_cache": True,
        "use_dynamic_ntk": True,
        "use_flash_attn": False,
        "use_logn_attn": True,
        "visual": {
            "heads": TOWER_HEADS,
            "image_size": SIDE,
            "image_start_id": SPECIAL_IDS["<img>"],
            "layers": TOWER_LAYERS,
            "mlp_ratio": 4.9231,
            "output_dim": WIDTH,
            "patch_size": PATCH,
            "width": TOWER_WIDTH,
        },
        "vocab_size": VOCABULARY,
    } | other
    return {name: value for name, value in fields.items() if value is not None}


def weights(seed: int = 0) -> Weights:
    """All weights by the names that they have on the hub."""
    make = _Maker(seed)
    found = {"transformer.wte.weight": make(VOCABULARY, WIDTH) * WIDTH**0.5}
    for layer in range(LAYERS):
        found |= _layer(make, f"transformer.h.{layer}.")
    found |= {"transformer.ln_f.weight": make.norm(WIDTH), "lm_head.weight": make(VOCABULARY, WIDTH) * 4}
    return found | {f"transformer.visual.{name}": tensor for name, tensor in _tower(make).items()}


def write_checkpoint(folder: Path, seed: int = 0, *, shards: int = 2) -> Path:
    """Write a checkpoint into a new folder, its weights as `.bin` in shards."""
    folder.mkdir(parents=True)
    held, weight_map = weights(seed), {}
    for shard in range(shards):
        names = list(held)[shard::shards]
        file = f"pytorch_model-{shard + 1:05}-of-{shards:05}.bin"
        torch.save({name: held[name] for name in names}, folder / file)
        weight_map |= dict.fromkeys(names, file)
    total = sum(tensor.nbytes for tensor in held.values())
    _write_json(folder / "pytorch_model.bin.index.json", {"metadata": {"total_size": total}, "weight_map": weight_map})
    return write_beside(folder)


def write_beside(folder: Path, fields: Mapping[str, Any] | None = None) -> Path:
    """Write what stands beside the weights; the code in the repository is code that must not be run."""
    _write_json(folder / "config.json", config() if fields is None else fields)
    lines = (f"{base64.b64encode(token).decode()} {rank}\n" for token, rank in ranks().items())
    (folder / "qwen.tiktoken").write_text("".join(sorted(lines, key=lambda line: int(line.split()[1]))))
    named = ["tokenization_qwen.QWenTokenizer", None]
    _write_json(
        folder / "tokenizer_config.json",
        {"auto_map": {"AutoTokenizer": named}, "model_max_length": 8192, "tokenizer_class": "QWenTokenizer"},
    )
    _write_json(
        folder / "generation_config.json",
        {
            "chat_format": "chatml", "do_sample": True, "eos_token_id": SPECIAL_IDS["<|endoftext|>"],
            "max_new_tokens": 512, "max_window_size": 6144, "pad_token_id": SPECIAL_IDS["<|endoftext|>"], "top_k": 0,
            "top_p": 0.3, "transformers_version": "4.31.0",
        },
    )  # fmt: skip
    for name in ("configuration_qwen", "modeling_qwen", "qwen_generation_utils", "tokenization_qwen", "visual"):
        (folder / f"{name}.py").write_text(f"raise RuntimeError('{name}.py of the repository was run')\n")
    return folder


def _write_json(file: Path, content: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2) + "\n")


def _layer(make: "_Maker", name: str) -> Weights:
    return {
        f"{name}ln_1.weight": make.norm(WIDTH),
        **make.linear(f"{name}attn.c_attn", 3 * WIDTH, WIDTH),
        f"{name}attn.c_proj.weight": make(WIDTH, WIDTH),
        f"{name}ln_2.weight": make.norm(WIDTH),
        f"{name}mlp.w1.weight": make(WIDE, WIDTH),
        f"{name}mlp.w2.weight": make(WIDE, WIDTH),
        f"{name}mlp.c_proj.weight": make(WIDTH, WIDE),
    }


def _tower(make: "_Maker") -> Weights:
    found = {
        "conv1.weight": make(TOWER_WIDTH, 3 * PATCH**2).reshape(TOWER_WIDTH, 3, PATCH, PATCH),
        "positional_embedding": make(POSITIONS, TOWER_WIDTH) * TOWER_WIDTH**0.5,
        **make.layer_norm("ln_pre", TOWER_WIDTH),
    }
    for layer in range(TOWER_LAYERS):
        name = f"transformer.resblocks.{layer}."
        found |= make.layer_norm(f"{name}ln_1", TOWER_WIDTH)
        found |= make.layer_norm(f"{name}ln_2", TOWER_WIDTH)
        found |= make.linear(f"{name}attn.in_proj", 3 * TOWER_WIDTH, TOWER_WIDTH)
        found |= make.linear(f"{name}attn.out_proj", TOWER_WIDTH, TOWER_WIDTH)
        found |= make.linear(f"{name}mlp.c_fc", TOWER_WIDE, TOWER_WIDTH)
        found |= make.linear(f"{name}mlp.c_proj", TOWER_WIDTH, TOWER_WIDE)
    found |= {f"attn_pool.{name}": tensor for name, tensor in _resampler(make).items()}
    return found | make.layer_norm("ln_post", WIDTH) | {"proj": make(WIDTH, WIDTH)}


def _resampler(make: "_Maker") -> Weights:
    return {
        "query": make(QUERIES, WIDTH) * WIDTH**0.5,
        "pos_embed": make(QUERIES, WIDTH) * WIDTH**0.5,
        "kv_proj.weight": make(WIDTH, TOWER_WIDTH),
        **make.layer_norm("ln_q", WIDTH),
        **make.layer_norm("ln_kv", WIDTH),
        "attn.in_proj_weight": make(3 * WIDTH, WIDTH),
        "attn.in_proj_bias": make.bias(3 * WIDTH),
        **make.linear("attn.out_proj", WIDTH, WIDTH),
    }


class _Maker:
    """Random weights in bfloat16, of a size that keeps what goes through them of size one."""

    def __init__(self, seed: int) -> None:
        self._random = torch.Generator().manual_seed(seed)

    def __call__(self, rows: int, columns: int) -> torch.Tensor:
        return (torch.randn(rows, columns, generator=self._random) * columns**-0.5).bfloat16()

    def bias(self, width: int) -> torch.Tensor:
        return (torch.randn(width, generator=self._random) / 8).bfloat16()

    def norm(self, width: int) -> torch.Tensor:
        return (1 + torch.randn(width, generator=self._random) / 8).bfloat16()

    def linear(self, name: str, rows: int, columns: int) -> Weights:
        return {f"{name}.weight": self(rows, columns), f"{name}.bias": self.bias(rows)}

    def layer_norm(self, name: str, width: int) -> Weights:
        return {f"{name}.weight": self.norm(width), f"{name}.bias": self.bias(width)}
