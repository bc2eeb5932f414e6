"""Mistral Small 3.1 in small: native resolution in patches of 14 merged by 2, a mark behind each row."""

from pathlib import Path

from transformers import Mistral3Config, Mistral3ForConditionalGeneration

from dualfocus_training.models.families.making import SPREAD, byte_tokenizer, small_text, write_json, write_model

_SPECIAL = (
    *("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "<pad>"),
    *("[IMG]", "[IMG_BREAK]", "[IMG_END]"),
)
CHAT_TEMPLATE = """\
{{- bos_token -}}
{%- macro write(parts) -%}
  {%- if parts is string -%}
    {{- parts -}}
  {%- else -%}
    {%- for content in parts -%}
      {%- if content['type'] == 'image' -%}
        {{- '[IMG]' -}}
      {%- elif content['type'] == 'text' -%}
        {{- content['text'] -}}
      {%- endif -%}
    {%- endfor -%}
  {%- endif -%}
{%- endmacro -%}
{%- for message in messages -%}
  {%- if message['role'] == 'user' -%}
    {{- '[INST]' + write(message['content']) + '[/INST]' -}}
  {%- elif message['role'] == 'system' -%}
    {{- '[SYSTEM_PROMPT]' + write(message['content']) + '[/SYSTEM_PROMPT]' -}}
  {%- else -%}
    {{- write(message['content']) + eos_token -}}
  {%- endif -%}
{%- endfor -%}
"""
_PREPROCESSOR = {
    "image_processor_type": "PixtralImageProcessor",
    "processor_class": "PixtralProcessor",
    "patch_size": 14,
    "size": {"longest_edge": 1540},
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
_PROCESSOR = {
    "processor_class": "PixtralProcessor",
    "patch_size": 14,
    "spatial_merge_size": 2,
    "image_token": "[IMG]",
    "image_break_token": "[IMG_BREAK]",
    "image_end_token": "[IMG_END]",
}
_VISION = {
    "model_type": "pixtral",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "head_dim": 32,
    "image_size": 1540,
    "patch_size": 14,
    "initializer_range": SPREAD,
}


def write_tiny(folder: Path, seed: int) -> None:
    """Write the model, its tokenizer and its processor's configurations into an existing or new folder."""
    tokenizer = byte_tokenizer(
        _SPECIAL, (), CHAT_TEMPLATE, bos_token="<s>", eos_token="</s>", pad_token="<pad>", image_token="[IMG]"
    )
    config = Mistral3Config(
        text_config={"model_type": "mistral", "head_dim": 64, **small_text(tokenizer)},
        vision_config=_VISION,
        image_token_index=tokenizer.image_token_id,
        tie_word_embeddings=False,
        initializer_range=SPREAD,
    )
    write_model(folder, Mistral3ForConditionalGeneration, config, seed)
    tokenizer.save_pretrained(folder)
    write_json(
        folder,
        preprocessor_config=_PREPROCESSOR,
        processor_config=_PROCESSOR,
        generation_config={"eos_token_id": tokenizer.eos_token_id},
    )
