"""Gemma 3 in small: every picture as a square of 896 pixels and 256 tokens, one layer of two with a window."""

from pathlib import Path

import torch
from transformers import Gemma3Config, Gemma3ForConditionalGeneration

from dualfocus_training.models.families.making import (
    SPREAD,
    byte_tokenizer,
    make_tied,
    small_text,
    write_as_llava,
    write_json,
)

_SPECIAL = ("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>", "<start_of_image>", "<end_of_image>")
# Line breaks are tokens of their own, up to four at once: vLLM asks for them.
_BREAKS = ("\n", "\n\n", "\n\n\n", "\n\n\n\n")
_NAMED = {
    "bos_token": "<bos>",
    "eos_token": "<eos>",
    "pad_token": "<pad>",
    "image_token": "<image_soft_token>",
    "boi_token": "<start_of_image>",
    "eoi_token": "<end_of_image>",
}
# A system prompt stands in the first user's turn.
CHAT_TEMPLATE = """\
{{- bos_token -}}
{%- macro write(parts) -%}
  {%- if parts is string -%}
    {{- parts | trim -}}
  {%- else -%}
    {%- for content in parts -%}
      {%- if content['type'] == 'image' -%}
        {{- '<start_of_image>' -}}
      {%- elif content['type'] == 'text' -%}
        {{- content['text'] | trim -}}
      {%- endif -%}
    {%- endfor -%}
  {%- endif -%}
{%- endmacro -%}
{%- for message in messages -%}
  {%- if message['role'] != 'system' -%}
    {{- '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\\n' -}}
    {%- if loop.index0 == 1 and loop.previtem['role'] == 'system' -%}
      {{- write(loop.previtem['content']) + '\\n\\n' -}}
    {%- endif -%}
    {{- write(message['content']) + '<end_of_turn>\\n' -}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<start_of_turn>model\\n' -}}{%- endif -%}
"""
_TOKENS = 256
_PREPROCESSOR = {
    "image_processor_type": "Gemma3ImageProcessor",
    "processor_class": "Gemma3Processor",
    "size": {"height": 896, "width": 896},
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "image_seq_length": _TOKENS,
}
_PROCESSOR = {"image_seq_length": _TOKENS, "processor_class": "Gemma3Processor"}
_VISION = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 896,
    "patch_size": 14,
}


def write_tiny(folder: Path, seed: int) -> None:
    """Write the model, its tokenizer and its processor's configurations into an existing or new folder."""
    tokenizer = byte_tokenizer((*_SPECIAL, "<image_soft_token>"), _BREAKS, CHAT_TEMPLATE, **_NAMED)
    windows = {
        "layer_types": ["sliding_attention", "full_attention"],
        "sliding_window": 512,
        "head_dim": 64,
        "query_pre_attn_scalar": 64,
        "bos_token_id": tokenizer.bos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = Gemma3Config(
        text_config=small_text(tokenizer, **windows),
        vision_config=_VISION,
        mm_tokens_per_image=_TOKENS,
        boi_token_index=tokenizer.boi_token_id,
        eoi_token_index=tokenizer.eoi_token_id,
        image_token_index=tokenizer.image_token_id,
        initializer_range=SPREAD,
    )
    model = make_tied(Gemma3ForConditionalGeneration, config, seed)
    torch.nn.init.normal_(model.model.multi_modal_projector.mm_input_projection_weight, std=SPREAD)  # made of zeros
    write_as_llava(folder, model)
    tokenizer.save_pretrained(folder)
    ends = tokenizer.convert_tokens_to_ids(["<eos>", "<end_of_turn>"])
    write_json(
        folder,
        preprocessor_config=_PREPROCESSOR,
        processor_config=_PROCESSOR,
        generation_config={"eos_token_id": ends},
    )
