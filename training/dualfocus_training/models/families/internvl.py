"""InternVL 3 in small, in the form that transformers has: tiles of 448 pixels with 256 tokens each, and a thumbnail."""

from pathlib import Path

from transformers import InternVLConfig, InternVLForConditionalGeneration

from dualfocus_training.models.families.making import (
    QWEN_PLAIN,
    QWEN_SPECIAL,
    SPREAD,
    qwen_tokenizer,
    small_text,
    write_json,
    write_model,
)

_SPECIAL = ("<img>", "</img>", "<IMG_CONTEXT>", "<quad>", "</quad>", "<ref>", "</ref>", "<box>", "</box>", "<video>")
_NAMED = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
}
# A picture is one token and a line break; the processor puts <img> and </img> round its tokens.
CHAT_TEMPLATE = """\
{%- for message in messages -%}
  {{- '<|im_start|>' + message['role'] + '\\n' -}}
  {%- if message['content'] is string -%}
    {{- message['content'] -}}
  {%- else -%}
    {%- for content in message['content'] -%}
      {%- if content['type'] == 'image' -%}
        {{- '<IMG_CONTEXT>\\n' -}}
      {%- elif content['type'] == 'text' -%}
        {{- content['text'] -}}
      {%- endif -%}
    {%- endfor -%}
  {%- endif -%}
  {{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""
_TOKENS_A_TILE = 256
_PROCESSOR = {"image_seq_length": _TOKENS_A_TILE, "processor_class": "InternVLProcessor"}
_PREPROCESSOR = {
    "image_processor_type": "GotOcr2ImageProcessorFast",
    "processor_class": "InternVLProcessor",
    # As published. The processor cuts into tiles all the same, since its own default for a call goes before this.
    "crop_to_patches": False,
    "min_patches": 1,
    "max_patches": 12,
    "size": {"height": 448, "width": 448},
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
}
_VIDEO_PREPROCESSOR = {"video_processor_type": "InternVLVideoProcessor", "processor_class": "InternVLProcessor"}


def write_tiny(folder: Path, seed: int) -> None:
    """Write the model, its tokenizer and its processors' configurations into an existing or new folder."""
    tokenizer = qwen_tokenizer((*QWEN_SPECIAL, *_SPECIAL), QWEN_PLAIN, CHAT_TEMPLATE, **_NAMED)
    config = InternVLConfig(
        text_config={"model_type": "qwen2", **small_text(tokenizer)},
        vision_config=_vision(),
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=_TOKENS_A_TILE,
        tie_word_embeddings=False,
    )
    write_model(folder, InternVLForConditionalGeneration, config, seed)
    tokenizer.save_pretrained(folder)
    write_json(
        folder,
        processor_config=_PROCESSOR,
        preprocessor_config=_PREPROCESSOR,
        video_preprocessor_config=_VIDEO_PREPROCESSOR,
        generation_config={"eos_token_id": tokenizer.eos_token_id},
    )


def _vision() -> dict[str, object]:
    return {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": [448, 448],
        "patch_size": [14, 14],
        "attention_bias": True,
        "initializer_range": SPREAD,
    }
