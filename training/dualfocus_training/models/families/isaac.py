"""Isaac in small: native resolution in patches of 16 merged by 2, 64 tokens at least.

transformers has none of it: configuration, processor and architecture are vLLM's own.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn
from transformers import Qwen3Config, Qwen3ForCausalLM, Siglip2VisionConfig, Siglip2VisionModel

from dualfocus_training.models.families.making import (
    QWEN_PLAIN,
    QWEN_SPECIAL,
    SPREAD,
    WIDTH,
    make_model,
    qwen_tokenizer,
    small_text,
    write_json,
)

# A picture is <image> in the text; no marks stand round the tokens that are put for it.
CHAT_TEMPLATE = """\
{%- for message in messages -%}
  {{- '<|im_start|>' + message['role'] + '\\n' -}}
  {%- if message['content'] is string -%}
    {{- message['content'] -}}
  {%- else -%}
    {%- for content in message['content'] -%}
      {%- if content['type'] == 'image' -%}
        {{- '<image>' -}}
      {%- elif content['type'] == 'text' -%}
        {{- content['text'] -}}
      {%- endif -%}
    {%- endfor -%}
  {%- endif -%}
  {{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""
_MERGE = 2
_VISION = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_patches": 256,
    "patch_size": 16,
}
_PICTURES = {
    "video_patch_size": 16,
    "vision_max_num_patches": 6144,
    "vision_min_num_patches": 256,
    "pixel_shuffle_scale": _MERGE,
    "vision_token": "<image>",
}


def write_tiny(folder: Path, seed: int) -> None:
    """Write the model, its configuration and its tokenizer into an existing or new folder."""
    folder.mkdir(exist_ok=True)
    tokenizer = qwen_tokenizer(QWEN_SPECIAL, QWEN_PLAIN, CHAT_TEMPLATE, image_token="<|image_pad|>")
    rotary = {"rope_type": "default", "rope_theta": 1e6}
    text = Qwen3Config(**small_text(tokenizer, head_dim=64, rope_parameters=rotary, tie_word_embeddings=False))
    weights = dict(_weights(make_model(Qwen3ForCausalLM, text, seed), seed))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    tokenizer.save_pretrained(folder)
    config = {
        **text.to_dict(),
        "architectures": ["IsaacForConditionalGeneration"],
        "model_type": "isaac",
        "dtype": "bfloat16",
        "vision_config": {"model_type": "pixel_shuffle_siglip2", "pixel_shuffle_scale_factor": _MERGE, **_VISION},
        **_PICTURES,
    }
    write_json(folder, config=config, generation_config={"eos_token_id": tokenizer.eos_token_id})


def _weights(text: Any, seed: int) -> Iterator[tuple[str, torch.Tensor]]:
    """Name them as published: the encoder is the first of a row of modules, those that join it to the text follow."""
    yield from text.state_dict().items()
    encoder = make_model(Siglip2VisionModel, Siglip2VisionConfig(**_VISION), seed)
    for name, tensor in encoder.state_dict().items():
        if not name.startswith("head."):  # for classes
            yield f"model.vision_embedding.0.{name}", tensor
    joined = WIDTH // 2 * _MERGE**2
    for place, (inside, out) in {1: (joined, 4 * joined), 3: (4 * joined, WIDTH)}.items():
        linear = nn.Linear(inside, out, bias=False)
        nn.init.normal_(linear.weight, std=SPREAD)
        yield f"model.vision_embedding.{place}.weight", linear.weight.detach().to(torch.bfloat16)
