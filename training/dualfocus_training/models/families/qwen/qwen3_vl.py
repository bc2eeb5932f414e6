"""Qwen3-VL in small: native resolution in patches of 16 merged by 2, whose features enter the first text layers too."""

from pathlib import Path
from typing import Any

from transformers import Qwen2Tokenizer, Qwen3VLConfig, Qwen3VLForConditionalGeneration

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

_PLAIN = (*QWEN_PLAIN, "<tool_response>", "</tool_response>", "<think>", "</think>")
# No system prompt of its own. What a tool returns, a crop too, is a user's message with marks round it; the list of
# tools that the published template writes first is left out.
CHAT_TEMPLATE = """\
{%- set pictures = namespace(count=0) -%}
{%- macro write(parts) -%}
  {%- if parts is string -%}
    {{- parts -}}
  {%- else -%}
    {%- for content in parts -%}
      {%- if content.type == 'image' or 'image' in content or 'image_url' in content -%}
        {%- set pictures.count = pictures.count + 1 -%}
        {%- if add_vision_id -%}{{- 'Picture ' ~ pictures.count ~ ': ' -}}{%- endif -%}
        {{- '<|vision_start|><|image_pad|><|vision_end|>' -}}
      {%- elif 'text' in content -%}
        {{- content.text -}}
      {%- endif -%}
    {%- endfor -%}
  {%- endif -%}
{%- endmacro -%}
{%- for message in messages -%}
  {%- if message.role == 'tool' -%}
    {%- if loop.first or loop.previtem.role != 'tool' -%}{{- '<|im_start|>user' -}}{%- endif -%}
    {{- '\\n<tool_response>\\n' + write(message.content) + '\\n</tool_response>' -}}
    {%- if loop.last or loop.nextitem.role != 'tool' -%}{{- '<|im_end|>\\n' -}}{%- endif -%}
  {%- else -%}
    {{- '<|im_start|>' + message.role + '\\n' + write(message.content) -}}
    {%- for call in message.tool_calls or [] -%}
      {%- if not loop.first or message.content -%}{{- '\\n' -}}{%- endif -%}
      {{- '<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' -}}
      {{- (call.function.arguments | tojson) + '}\\n</tool_call>' -}}
    {%- endfor -%}
    {{- '<|im_end|>\\n' -}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""
_SIZES = {
    "processor_class": "Qwen3VLProcessor",
    "patch_size": 16,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}
_PREPROCESSOR = {
    "image_processor_type": "Qwen2VLImageProcessorFast",
    "size": {"longest_edge": 16777216, "shortest_edge": 65536},
    **_SIZES,
}
_VIDEO_PREPROCESSOR = {
    "video_processor_type": "Qwen3VLVideoProcessor",
    "size": {"longest_edge": 25165824, "shortest_edge": 4096},
    **_SIZES,
}


def write_tiny(folder: Path, seed: int) -> None:
    """Write the model, its tokenizer and its processors' configurations into an existing or new folder."""
    tokenizer = make_tokenizer()
    write_model(folder, Qwen3VLForConditionalGeneration, make_config(Qwen3VLConfig, tokenizer), seed)
    write_processor(folder, tokenizer)


def make_tokenizer(template: str = CHAT_TEMPLATE) -> Qwen2Tokenizer:
    """Return the tokenizer, with its chat template."""
    return qwen_tokenizer(QWEN_SPECIAL, _PLAIN, template)


def make_config(kind: Any, tokenizer: Qwen2Tokenizer, **text: Any) -> Any:
    """Return the configuration in its dense form or that of experts; `text` is what the text model has besides."""
    return kind(
        text_config=_text(tokenizer, **text),
        vision_config=small_vision(deepstack_visual_indexes=[0, 1, 2]),
        **picture_tokens(tokenizer),
    )


def write_processor(folder: Path, tokenizer: Qwen2Tokenizer) -> None:
    """Write what is the same whether the text model is dense or of experts."""
    tokenizer.save_pretrained(folder)
    ends = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    # vLLM's defaults for whoever sends no sampling.
    sampling = {"do_sample": True, "temperature": 0.7, "top_k": 20, "top_p": 0.8, "eos_token_id": ends}
    write_json(
        folder,
        preprocessor_config=_PREPROCESSOR,
        video_preprocessor_config=_VIDEO_PREPROCESSOR,
        generation_config=sampling,
    )


def _text(tokenizer: Qwen2Tokenizer, **more: Any) -> dict[str, Any]:
    rotary = {"rope_type": "default", "mrope_section": [12, 10, 10], "mrope_interleaved": True, "rope_theta": 5e6}
    return small_text(tokenizer, num_hidden_layers=3, head_dim=64, rope_parameters=rotary, **more)


def small_vision(**more: Any) -> dict[str, Any]:
    """Return the configuration of an encoder of three layers; `more` is what it has besides."""
    return {
        "depth": 3,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_heads": 2,
        "out_hidden_size": WIDTH,
        "patch_size": 16,
        "num_position_embeddings": 256,
        "initializer_range": SPREAD,
        **more,
    }


def picture_tokens(tokenizer: Qwen2Tokenizer) -> dict[str, int]:
    """Return the configuration's tokens of pictures."""
    names = {"image": "image_pad", "video": "video_pad", "vision_start": "vision_start", "vision_end": "vision_end"}
    return {f"{ours}_token_id": tokenizer.convert_tokens_to_ids(f"<|{token}|>") for ours, token in names.items()}
