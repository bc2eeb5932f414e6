"""LLaVA-OneVision in small: a view of 384 pixels a side, and tiles of which more than nine are reduced to nine."""

from pathlib import Path

from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration

from dualfocus_training.models.families.making import (
    QWEN_SPECIAL,
    SPREAD,
    make_model,
    qwen_tokenizer,
    small_text,
    write_as_llava,
    write_json,
)

CHAT_TEMPLATE = """\
{%- for message in messages -%}
  {{- '<|im_start|>' + message['role'] + ' ' -}}
  {%- if message['content'] is string -%}
    {{- '\\n' + message['content'] -}}
  {%- else -%}
    {%- for content in message['content'] if content['type'] == 'image' -%}
      {{- '<image>' -}}
    {%- endfor -%}
    {%- for content in message['content'] if content['type'] == 'text' -%}
      {{- '\\n' + content['text'] -}}
    {%- endfor -%}
  {%- endif -%}
  {{- '<|im_end|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""
_SIDE, _PATCH = 384, 14
_GRIDS = [[rows * _SIDE, columns * _SIDE] for rows in range(1, 7) for columns in range(1, 7)]
_PREPROCESSOR = {
    "image_processor_type": "LlavaOnevisionImageProcessor",
    "processor_class": "LlavaOnevisionProcessor",
    "image_grid_pinpoints": _GRIDS,
    "size": {"height": _SIDE, "width": _SIDE},
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}
_VIDEO_PREPROCESSOR = {
    "video_processor_type": "LlavaOnevisionVideoProcessor",
    "processor_class": "LlavaOnevisionProcessor",
    "size": {"height": _SIDE, "width": _SIDE},
}
_PROCESSOR = {
    "processor_class": "LlavaOnevisionProcessor",
    "num_image_tokens": (_SIDE // _PATCH) ** 2,
    "vision_feature_select_strategy": "full",
    "vision_aspect_ratio": "anyres_max_9",
    "image_token": "<image>",
    "video_token": "<video>",
}
_VISION = {
    "model_type": "siglip_vision_model",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": _SIDE,
    "patch_size": _PATCH,
    "vision_use_head": False,
}


def write_tiny(folder: Path, seed: int) -> None:
    """Write the model, its tokenizer and its processors' configurations into an existing or new folder."""
    special = (*QWEN_SPECIAL[:3], "<image>", "<video>")
    tokenizer = qwen_tokenizer(special, (), CHAT_TEMPLATE, image_token="<image>", video_token="<video>")
    config = LlavaOnevisionConfig(
        text_config={"model_type": "qwen2", **small_text(tokenizer)},
        vision_config=_VISION,
        image_token_index=tokenizer.image_token_id,
        video_token_index=tokenizer.video_token_id,
        image_grid_pinpoints=_GRIDS,
        initializer_range=SPREAD,
    )
    write_as_llava(folder, make_model(LlavaOnevisionForConditionalGeneration, config, seed))
    tokenizer.save_pretrained(folder)
    write_json(
        folder,
        preprocessor_config=_PREPROCESSOR,
        video_preprocessor_config=_VIDEO_PREPROCESSOR,
        processor_config=_PROCESSOR,
        generation_config={"eos_token_id": tokenizer.eos_token_id},
    )
