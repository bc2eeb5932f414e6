"""LLaVA-NeXT in small: a view of 336 pixels a side, and tiles in the grid that loses least of the picture."""

from pathlib import Path

from transformers import LlavaNextConfig, LlavaNextForConditionalGeneration

from dualfocus_training.models.families.making import (
    SPREAD,
    byte_tokenizer,
    make_model,
    small_text,
    write_as_llava,
    write_json,
)

_SPECIAL = ("<unk>", "<s>", "</s>", "<image>", "<pad>")
# Vicuna's conversations.
CHAT_TEMPLATE = """\
{%- for message in messages -%}
  {%- if message['role'] != 'system' -%}
    {{- message['role'].upper() + ': ' -}}
  {%- endif -%}
  {%- if message['content'] is string -%}
    {{- message['content'] -}}
  {%- else -%}
    {%- for content in message['content'] if content['type'] == 'image' -%}
      {{- '<image>\\n' -}}
    {%- endfor -%}
    {%- for content in message['content'] if content['type'] == 'text' -%}
      {{- content['text'] -}}
    {%- endfor -%}
  {%- endif -%}
  {{- '</s>' if message['role'] == 'assistant' else ' ' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- 'ASSISTANT:' -}}{%- endif -%}
"""
_SIDE, _PATCH = 336, 14
_GRIDS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
_PREPROCESSOR = {
    "image_processor_type": "LlavaNextImageProcessor",
    "processor_class": "LlavaNextProcessor",
    "image_grid_pinpoints": _GRIDS,
    "size": {"shortest_edge": _SIDE},
    "crop_size": {"height": _SIDE, "width": _SIDE},
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
_PROCESSOR = {
    "processor_class": "LlavaNextProcessor",
    "patch_size": _PATCH,
    "vision_feature_select_strategy": "default",
    "image_token": "<image>",
    "num_additional_image_tokens": 1,
}
_VISION = {
    "model_type": "clip_vision_model",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": _SIDE,
    "patch_size": _PATCH,
    "projection_dim": 64,
}


def write_tiny(folder: Path, seed: int) -> None:
    """Write the model, its tokenizer and its processor's configurations into an existing or new folder."""
    tokenizer = byte_tokenizer(
        _SPECIAL, (), CHAT_TEMPLATE, bos_token="<s>", eos_token="</s>", pad_token="<pad>", image_token="<image>"
    )
    config = LlavaNextConfig(
        text_config={"model_type": "llama", **small_text(tokenizer)},
        vision_config=_VISION,
        image_token_index=tokenizer.image_token_id,
        image_grid_pinpoints=_GRIDS,
        initializer_range=SPREAD,
    )
    write_as_llava(folder, make_model(LlavaNextForConditionalGeneration, config, seed))
    tokenizer.save_pretrained(folder)
    write_json(
        folder,
        preprocessor_config=_PREPROCESSOR,
        processor_config=_PROCESSOR,
        generation_config={"eos_token_id": tokenizer.eos_token_id},
    )
