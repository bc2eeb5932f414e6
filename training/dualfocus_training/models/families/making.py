"""What the tiny models share: a tokenizer of bytes, Qwen's text model in small, and how a model is written."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Tokenizer

from dualfocus_training.models.weights import save_weights

# Qwen's special tokens in their order, and those of its tokens that are not special: the latter survive in an answer.
QWEN_SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
QWEN_PLAIN = (
    "<tool_call>",
    "</tool_call>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
)
# A 4000 x 3000 picture and a question fit.
CONTEXT = 32768
WIDTH = 128
# Wide, so that a model's choices are clear cut, and differ from picture to picture.
SPREAD = 0.2
_TIED = 0.1


# A line break behind a bracket is one token with it, as in Qwen's: <image> is no run of tokens where one follows.
_MERGES = [(">", "Ċ")]


def qwen_tokenizer(special: Sequence[str], plain: Sequence[str], template: str, **named: str) -> Qwen2Tokenizer:
    """Return a tokenizer that cuts text as Qwen's does and then into bytes: any text encodes, digit by digit."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Qwen2Tokenizer(
        vocab={token: index for index, token in enumerate([*alphabet, *map("".join, _MERGES)])},
        merges=_MERGES,
        eos_token="<|im_end|>",
        extra_special_tokens=named,
        model_max_length=CONTEXT,
    )
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in plain])
    tokenizer.chat_template = template
    return tokenizer


def byte_tokenizer(
    special: Sequence[str], plain: Sequence[str], template: str, **named: str
) -> PreTrainedTokenizerFast:
    """Return a tokenizer that cuts text into bytes: any text encodes. `named` are its `eos_token` and others."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bytes_only = Tokenizer(models.BPE(vocab={token: index for index, token in enumerate(alphabet)}, merges=[]))
    bytes_only.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bytes_only.decoder = decoders.ByteLevel()
    bytes_only.add_special_tokens([AddedToken(token, normalized=False) for token in special])
    bytes_only.add_tokens([AddedToken(token, special=False, normalized=False) for token in plain])
    usual = {name: named.pop(name) for name in ("bos_token", "eos_token", "pad_token") if name in named}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bytes_only, extra_special_tokens=named, model_max_length=CONTEXT, **usual
    )
    tokenizer.chat_template = template
    return tokenizer


def small_text(tokenizer: PreTrainedTokenizerFast, **more: Any) -> dict[str, Any]:
    """Return the configuration of a text model: two layers, two heads of 64 that share one pair of key and value.

    `more` goes before that.
    """
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": CONTEXT,
        "initializer_range": SPREAD,
        "bos_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        **more,
    }


def make_model(kind: Any, config: Any, seed: int) -> Any:
    """Return a model of this class and configuration, with random weights that depend on the seed alone."""
    torch.manual_seed(seed)
    return kind(config).to(torch.bfloat16)


def write_model(folder: Path, kind: Any, config: Any, seed: int) -> None:
    """Write such a model."""
    make_model(kind, config, seed).save_pretrained(folder)


def make_tied(kind: Any, config: Any, seed: int) -> Any:
    """Return a model whose embeddings are its output weights too: in small, else it would repeat the last token."""
    model = make_model(kind, config, seed)
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(_TIED)
    return model


def write_as_llava(folder: Path, model: Any) -> None:
    """Write a model with an encoder of LLaVA's kind: its weights have the names that vLLM loads too."""
    folder.mkdir(exist_ok=True)
    save_weights(model, folder)
    model.config.architectures, model.config.dtype = [type(model).__name__], torch.bfloat16
    model.config.save_pretrained(folder)


def write_json(folder: Path, **files: Mapping[str, Any]) -> None:
    """Write each as NAME.json."""
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
