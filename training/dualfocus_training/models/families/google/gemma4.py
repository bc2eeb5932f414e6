"""Gemma 4 in small: every picture as 280 tokens or a few less, attention in a window in one layer of two."""

from pathlib import Path

from transformers import Gemma4Config, Gemma4ForConditionalGeneration, PreTrainedTokenizerFast

from dualfocus_training.models.families.making import SPREAD, byte_tokenizer, make_tied, small_text, write_json

_SPECIAL = (
    *("<pad>", "<eos>", "<bos>", "<|turn>", "<turn|>", "<|image>", "<image|>", "<|image|>", "<|video|>"),
    *("<|audio>", "<audio|>", "<|audio|>", "<|channel>", "<channel|>", "<|think|>"),
)
_NAMED = {
    "bos_token": "<bos>",
    "eos_token": "<eos>",
    "pad_token": "<pad>",
    "image_token": "<|image|>",
    "boi_token": "<|image>",
    "eoi_token": "<image|>",
    "audio_token": "<|audio|>",
    "boa_token": "<|audio>",
    "eoa_token": "<audio|>",
}
# It thinks only where it is told to.
CHAT_TEMPLATE = """\
{{- bos_token -}}
{%- for message in messages -%}
  {{- '<|turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\\n' -}}
  {%- if message['content'] is string -%}
    {{- message['content'] | trim -}}
  {%- else -%}
    {%- for content in message['content'] -%}
      {%- if content['type'] == 'image' -%}
        {{- '<|image|>' -}}
      {%- elif content['type'] == 'text' -%}
        {{- content['text'] | trim -}}
      {%- endif -%}
    {%- endfor -%}
  {%- endif -%}
  {{- '<turn|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|turn>model\\n' -}}{%- endif -%}
"""
_TOKENS = 280
_IMAGES = {
    "image_processor_type": "Gemma4ImageProcessor",
    "patch_size": 16,
    "max_soft_tokens": _TOKENS,
    "pooling_kernel_size": 3,
    "image_mean": [0.0, 0.0, 0.0],
    "image_std": [1.0, 1.0, 1.0],
    "do_normalize": False,
}
_VIDEOS = {**_IMAGES, "video_processor_type": "Gemma4VideoProcessor", "max_soft_tokens": 70}
_PROCESSOR = {
    "processor_class": "Gemma4Processor",
    "image_seq_length": _TOKENS,
    "image_processor": _IMAGES,
    "video_processor": _VIDEOS,
    "feature_extractor": {"feature_extractor_type": "Gemma4AudioFeatureExtractor"},
}
_VISION = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 32,
    # A strip of one row has as many patches side by side.
    "position_embedding_size": 2560,
    "default_output_length": _TOKENS,
    "initializer_range": SPREAD,
}


def write_tiny(folder: Path, seed: int) -> None:
    """Write the model, its tokenizer and its processors' configurations into an existing or new folder."""
    tokenizer = byte_tokenizer(_SPECIAL, (), CHAT_TEMPLATE, **_NAMED)
    make_tied(Gemma4ForConditionalGeneration, _config(tokenizer), seed).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    ends = tokenizer.convert_tokens_to_ids(["<eos>", "<turn|>"])
    write_json(folder, processor_config=_PROCESSOR, generation_config={"eos_token_id": ends})


def _config(tokenizer: PreTrainedTokenizerFast) -> Gemma4Config:
    layers = {
        "layer_types": ["sliding_attention", "full_attention"],
        "head_dim": 64,
        "global_head_dim": 64,
        "hidden_size_per_layer_input": 0,
        "bos_token_id": tokenizer.bos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    return Gemma4Config(
        text_config=small_text(tokenizer, **layers),
        vision_config=_VISION,
        audio_config=None,
        vision_soft_tokens_per_image=_TOKENS,
        boi_token_id=tokenizer.boi_token_id,
        eoi_token_id=tokenizer.eoi_token_id,
        image_token_id=tokenizer.image_token_id,
        video_token_id=tokenizer.convert_tokens_to_ids("<|video|>"),
        boa_token_id=tokenizer.boa_token_id,
        eoa_token_index=tokenizer.eoa_token_id,
        audio_token_id=tokenizer.audio_token_id,
    )
