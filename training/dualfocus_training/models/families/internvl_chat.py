"""InternVL 3 in small, in the form of OpenGVLab's own repositories: the weights of `internvl.py` under other names.

Its configuration is code of the repository, and no processor stands in it: vLLM has its own.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from shutil import copy
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, InternVLConfig

from dualfocus_training.models.families import internvl
from dualfocus_training.models.families.making import write_json

_CONFIGURATION = Path(__file__).with_name("configuration_internvl_chat.py")
# A message's content is one text, in which vLLM writes <image> for a picture.
CHAT_TEMPLATE = """\
{%- for message in messages -%}
  {{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""
_NAMES = (
    (r"^vision_tower\.", "vision_model."),
    (r"cls_token$", "class_embedding"),
    (r"position_embeddings$", "position_embedding"),
    (r"patch_embeddings\.projection", "patch_embedding"),
    (r"encoder\.layer\.", "encoder.layers."),
    (r"attention\.projection_layer", "attn.proj"),
    (r"layernorm_before", "norm1"),
    (r"layernorm_after", "norm2"),
    (r"lambda_", "ls"),
    (r"^multi_modal_projector\.layer_norm", "mlp1.0"),
    (r"^multi_modal_projector\.linear_1", "mlp1.1"),
    (r"^multi_modal_projector\.linear_2", "mlp1.3"),
)
_QUERY = re.compile(r"^vision_tower\.(.*)attention\.q_proj\.(.*)$")
_TILES = {
    "dynamic_image_size": True,
    "force_image_size": 448,
    "min_dynamic_patch": 1,
    "max_dynamic_patch": 12,
    "use_thumbnail": True,
    "downsample_ratio": 0.5,
    "ps_version": "v2",
    "select_layer": -1,
}


def write_tiny(folder: Path, seed: int) -> None:
    """Write the model, its configuration's code and its tokenizer into an existing or new folder."""
    folder.mkdir(exist_ok=True)
    with TemporaryDirectory() as place:
        other = Path(place)
        internvl.write_tiny(other, seed)
        config = InternVLConfig.from_pretrained(other)
        weights = load_file(other / "model.safetensors")
        tokenizer = AutoTokenizer.from_pretrained(other)
        copy(other / "generation_config.json", folder)
    save_file(_renamed(weights), folder / "model.safetensors", metadata={"format": "pt"})
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)
    copy(_CONFIGURATION, folder)
    write_json(folder, config=_config(config))


def _renamed(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    renamed = {}
    for name, tensor in weights.items():
        if found := _QUERY.match(name):
            parts = [weights[name.replace("q_proj", f"{part}_proj")] for part in "qkv"]
            renamed[_new_name(f"vision_tower.{found[1]}attn.qkv.{found[2]}")] = torch.cat(parts)
        elif not re.match(r"vision_tower\..*\.[kv]_proj\.", name):
            renamed[_new_name(name)] = tensor
    return renamed


def _new_name(name: str) -> str:
    for old, new in _NAMES:
        name = re.sub(old, new, name)
    return name


def _config(config: InternVLConfig) -> dict[str, Any]:
    vision = config.vision_config
    same = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "norm_type", "hidden_act")
    return {
        "architectures": ["InternVLChatModel"],
        "auto_map": {"AutoConfig": f"{_CONFIGURATION.stem}.InternVLChatConfig"},
        "model_type": "internvl_chat",
        "dtype": "bfloat16",
        "llm_config": {**config.text_config.to_dict(), "architectures": ["Qwen2ForCausalLM"]},
        "vision_config": {
            **{name: getattr(vision, name) for name in same},
            "image_size": vision.image_size[0],
            "patch_size": vision.patch_size[0],
            "layer_norm_eps": vision.layer_norm_eps,
            "initializer_factor": vision.layer_scale_init_value,
            "qkv_bias": vision.attention_bias,
            "qk_normalization": vision.use_qk_norm,
        },
        **_TILES,
    }
