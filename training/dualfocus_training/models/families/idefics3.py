"""Idefics3 in small: the longest side 1,456 pixels, tiles of 364 with a mark for each, and the whole as one more."""

from pathlib import Path

from transformers import Idefics3Config, Idefics3ForConditionalGeneration

from dualfocus_training.models.families.making import SPREAD, byte_tokenizer, small_text, write_json, write_model

TILES = tuple(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7))
_SPECIAL = (
    *("<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>", "<end_of_utterance>"),
    *("<fake_token_around_image>", "<image>", "<global-img>", *TILES),
)
CHAT_TEMPLATE = """\
{{- '<|begin_of_text|>' -}}
{%- for message in messages -%}
  {{- message['role'].capitalize() -}}
  {%- if message['content'] is string -%}
    {{- ': ' + message['content'] -}}
  {%- else -%}
    {{- ':' if message['content'][0]['type'] == 'image' else ': ' -}}
    {%- for content in message['content'] -%}
      {%- if content['type'] == 'text' -%}
        {{- content['text'] -}}
      {%- elif content['type'] == 'image' -%}
        {{- '<image>' -}}
      {%- endif -%}
    {%- endfor -%}
  {%- endif -%}
  {{- '<end_of_utterance>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- 'Assistant:' -}}{%- endif -%}
"""
_SIDE, _PATCH, _MERGE = 364, 14, 2
_TOKENS = (_SIDE // _PATCH // _MERGE) ** 2
_PREPROCESSOR = {
    "image_processor_type": "Idefics3ImageProcessor",
    "processor_class": "Idefics3Processor",
    "size": {"longest_edge": 4 * _SIDE},
    "max_image_size": {"longest_edge": _SIDE},
    "do_image_splitting": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}
_PROCESSOR = {"processor_class": "Idefics3Processor", "image_seq_len": _TOKENS}
_VISION = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": _SIDE,
    "patch_size": _PATCH,
    "initializer_range": SPREAD,
}


def write_tiny(folder: Path, seed: int) -> None:
    """Write the model, its tokenizer and its processor's configurations into an existing or new folder."""
    tokenizer = byte_tokenizer(
        _SPECIAL,
        (),
        CHAT_TEMPLATE,
        bos_token="<|begin_of_text|>",
        eos_token="<end_of_utterance>",
        pad_token="<|reserved_special_token_0|>",
        image_token="<image>",
    )
    pad = tokenizer.pad_token_id
    config = Idefics3Config(
        text_config={"model_type": "llama", **small_text(tokenizer, pad_token_id=pad)},
        vision_config=_VISION,
        image_token_id=tokenizer.image_token_id,
        scale_factor=_MERGE,
        pad_token_id=pad,
    )
    write_model(folder, Idefics3ForConditionalGeneration, config, seed)
    tokenizer.save_pretrained(folder)
    write_json(
        folder,
        preprocessor_config=_PREPROCESSOR,
        processor_config=_PROCESSOR,
        generation_config={"eos_token_id": tokenizer.eos_token_id},
    )
