"""GLM-4.1V in small: native resolution in patches of 14 merged by 2, each picture as two frames."""

from pathlib import Path
from typing import Any

from transformers import Glm4vConfig, Glm4vForConditionalGeneration, PreTrainedTokenizerFast

from dualfocus_training.models.families.making import (
    SPREAD,
    WIDTH,
    byte_tokenizer,
    small_text,
    write_json,
    write_model,
)

_SPECIAL = (
    *("<|endoftext|>", "[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"),
    *("<|begin_of_image|>", "<|end_of_image|>", "<|begin_of_video|>", "<|end_of_video|>", "<|image|>", "<|video|>"),
    *("<|begin_of_box|>", "<|end_of_box|>"),
)
_PLAIN = ("<think>", "</think>", "<answer>", "</answer>")
# A turn ends where the next role begins. GLM-4.5V's and 4.6V's can be told not to think.
CHAT_TEMPLATE = """\
[gMASK]<sop>
{%- macro write(parts) -%}
  {%- if parts is string -%}
    {{- parts -}}
  {%- else -%}
    {%- for content in parts -%}
      {%- if content.type == 'image' -%}
        {{- '<|begin_of_image|><|image|><|end_of_image|>' -}}
      {%- elif content.type == 'text' -%}
        {{- content.text -}}
      {%- endif -%}
    {%- endfor -%}
  {%- endif -%}
{%- endmacro -%}
{%- for message in messages -%}
  {{- '<|' + message.role + '|>\\n' + write(message.content) -}}
  {%- if message.role == 'user' and enable_thinking is false -%}{{- '/nothink' -}}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
  {{- '<|assistant|>\\n' -}}
  {%- if enable_thinking is false -%}{{- '<think></think>\\n' -}}{%- endif -%}
{%- endif -%}
"""
_PREPROCESSOR = {
    "image_processor_type": "Glm4vImageProcessor",
    "processor_class": "Glm4vProcessor",
    "size": {"shortest_edge": 12544, "longest_edge": 11760000},
    "patch_size": 14,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
_VIDEO_PREPROCESSOR = {
    **_PREPROCESSOR,
    "video_processor_type": "Glm4vVideoProcessor",
    "size": {"shortest_edge": 12544, "longest_edge": 47040000},
}
_VISION = {
    "depth": 2,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_heads": 2,
    "out_hidden_size": WIDTH,
    "image_size": 336,
    "patch_size": 14,
    "initializer_range": SPREAD,
}


def write_tiny(folder: Path, seed: int) -> None:
    """Write the model, its tokenizer and its processors' configurations into an existing or new folder."""
    write_as(folder, seed, Glm4vForConditionalGeneration, Glm4vConfig)


def write_as(folder: Path, seed: int, kind: Any, config: Any, **text: Any) -> None:
    """Write the model in its dense form or that of experts; `text` is what the text model has besides."""
    tokenizer = byte_tokenizer(
        _SPECIAL, _PLAIN, CHAT_TEMPLATE, eos_token="<|endoftext|>", pad_token="<|endoftext|>", image_token="<|image|>"
    )
    write_model(folder, kind, config(**_options(tokenizer, text)), seed)
    tokenizer.save_pretrained(folder)
    ends = tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|user|>", "<|observation|>"])
    write_json(
        folder,
        preprocessor_config=_PREPROCESSOR,
        video_preprocessor_config=_VIDEO_PREPROCESSOR,
        generation_config={"eos_token_id": ends},
    )


def _options(tokenizer: PreTrainedTokenizerFast, text: dict[str, Any]) -> dict[str, Any]:
    names = {
        "image": "image",
        "image_start": "begin_of_image",
        "image_end": "end_of_image",
        "video": "video",
        "video_start": "begin_of_video",
        "video_end": "end_of_video",
    }
    rotary = {
        "rope_type": "default",
        "mrope_section": [4, 6, 6],
        "rope_theta": 1e4,
        "partial_rotary_factor": 0.5,
    }
    return {
        "text_config": small_text(tokenizer, rope_parameters=rotary, **text),
        "vision_config": _VISION,
        **{f"{ours}_token_id": tokenizer.convert_tokens_to_ids(f"<|{token}|>") for ours, token in names.items()},
    }
