"""Qwen2.5-VL in small: native resolution in patches of 14 merged by 2, attention in windows in one layer of two."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2Tokenizer

from dualfocus_training.models.families.making import (
    QWEN_PLAIN,
    QWEN_SPECIAL,
    SPREAD,
    WIDTH,
    qwen_tokenizer,
    small_text,
    write_json,
    write_model,
)

# A picture is one token between two others; a conversation that opens otherwise is given a system prompt.
CHAT_TEMPLATE = """\
{%- set pictures = namespace(count=0) -%}
{%- for message in messages -%}
  {%- if loop.first and message['role'] != 'system' -%}
    {{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' -}}
  {%- endif -%}
  {{- '<|im_start|>' + message['role'] + '\\n' -}}
  {%- if message['content'] is string -%}
    {{- message['content'] -}}
  {%- else -%}
    {%- for content in message['content'] -%}
      {%- if content['type'] == 'image' or 'image' in content or 'image_url' in content -%}
        {%- set pictures.count = pictures.count + 1 -%}
        {%- if add_vision_id -%}{{- 'Picture ' ~ pictures.count ~ ': ' -}}{%- endif -%}
        {{- '<|vision_start|><|image_pad|><|vision_end|>' -}}
      {%- elif 'text' in content -%}
        {{- content['text'] -}}
      {%- endif -%}
    {%- endfor -%}
  {%- endif -%}
  {{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""
_PREPROCESSOR = {
    "image_processor_type": "Qwen2VLImageProcessor",
    "min_pixels": 3136,
    "max_pixels": 12845056,
    "patch_size": 14,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}


# The widths of Qwen2.5-0.5B, and an encoder of a fifth of its size, as in Qwen2.5-VL-3B: 0.43 billion parameters.
_HALF_BILLION_TEXT = {
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "initializer_range": 0.02,
}
_HALF_BILLION_VISION = {
    "depth": 8,
    "hidden_size": 768,
    "intermediate_size": 2048,
    "num_heads": 12,
    "out_hidden_size": 896,
    "fullatt_block_indexes": [7],
    "initializer_range": 0.02,
}
# Qwen2.5-VL-7B-Instruct's own: 8.3 billion parameters.
_SEVEN_BILLION_TEXT = {
    "vocab_size": 152064,
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "tie_word_embeddings": False,
}
_SEVEN_BILLION_VISION = {
    "depth": 32,
    "hidden_size": 1280,
    "intermediate_size": 3420,
    "num_heads": 16,
    "out_hidden_size": 3584,
    "fullatt_block_indexes": [7, 15, 23, 31],
}
_TINY_VISION = {
    "depth": 2,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_heads": 2,
    "out_hidden_size": WIDTH,
    "fullatt_block_indexes": [1],
    "initializer_range": SPREAD,
}


def write_tiny(folder: Path, seed: int) -> None:
    """Write the model, its tokenizer and its processor's configuration into an existing or new folder."""
    _write(folder, seed, {}, _TINY_VISION)


def write_half_billion(folder: Path, seed: int = 0) -> None:
    """Write the same with 0.43 billion parameters (0.9 GB), for measurements."""
    _write(folder, seed, _HALF_BILLION_TEXT, _HALF_BILLION_VISION)


def write_seven_billion(folder: Path) -> None:
    """Write Qwen2.5-VL-7B's shape without weights, for vLLM's `--load-format dummy`."""
    tokenizer = make_tokenizer()
    config = _config(tokenizer, _SEVEN_BILLION_TEXT, _SEVEN_BILLION_VISION, mrope_section=(16, 24, 24))
    config.architectures, config.dtype = ["Qwen2_5_VLForConditionalGeneration"], "bfloat16"
    config.save_pretrained(folder)
    write_processor(folder, tokenizer)


def make_tokenizer() -> Qwen2Tokenizer:
    """Return the tokenizer, with its chat template."""
    return qwen_tokenizer(QWEN_SPECIAL, QWEN_PLAIN, CHAT_TEMPLATE)


def picture_tokens(tokenizer: Qwen2Tokenizer) -> dict[str, int]:
    """Return the configuration's tokens of pictures."""
    names = {"image": "image_pad", "video": "video_pad", "vision_start": "vision_start", "vision_end": "vision_end"}
    return {f"{ours}_token_id": tokenizer.convert_tokens_to_ids(f"<|{token}|>") for ours, token in names.items()}


def write_processor(folder: Path, tokenizer: Qwen2Tokenizer, processor: str = "Qwen2_5_VLProcessor") -> None:
    """Write the tokenizer, the processor's configuration and vLLM's defaults for whoever sends no sampling."""
    tokenizer.save_pretrained(folder)
    ends = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    sampling = {"do_sample": True, "repetition_penalty": 1.05, "temperature": 1e-6, "eos_token_id": ends}
    write_json(folder, preprocessor_config=_PREPROCESSOR | {"processor_class": processor}, generation_config=sampling)


def _write(folder: Path, seed: int, text: Mapping[str, Any], vision: Mapping[str, Any]) -> None:
    tokenizer = make_tokenizer()
    write_model(folder, Qwen2_5_VLForConditionalGeneration, _config(tokenizer, text, vision), seed)
    write_processor(folder, tokenizer)


def _config(
    tokenizer: Qwen2Tokenizer,
    text: Mapping[str, Any],
    vision: Mapping[str, Any],
    mrope_section: tuple[int, int, int] = (8, 12, 12),  # a half of a head
) -> Qwen2_5_VLConfig:
    rotary = {"rope_type": "default", "mrope_section": list(mrope_section), "rope_theta": 1e6}
    return Qwen2_5_VLConfig(
        text_config=small_text(tokenizer, rope_parameters=rotary, **text),
        vision_config={"window_size": 112, "patch_size": 14, **vision},
        **picture_tokens(tokenizer),
    )
