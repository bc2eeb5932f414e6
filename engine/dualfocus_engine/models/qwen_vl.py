"""Qwen-VL (2023), which vLLM had up to 0.23: its vision tower before vLLM's own Qwen2 language model.

The two language models differ in the names of weights alone: `c_attn` is the fused query, key and value with their
bias, `w2` the gate and `w1` what it scales. So tensor and pipeline parallelism, quantization and adapters are Qwen2's.
Leans on vLLM 0.32's `SupportsMultiModal`, `SupportsLoRA`, `SupportsPP`, `WeightsMapper`, `AutoWeightsLoader`,
`init_vllm_registered_model`, `MultiModelKeys` and `MULTIMODAL_REGISTRY.register_processor` (tests/engine/qwen_vl).
"""

import re
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from vllm.config import VllmConfig
from vllm.model_executor.models.interfaces import SupportsLoRA, SupportsMultiModal, SupportsPP
from vllm.model_executor.models.module_mapping import MultiModelKeys
from vllm.model_executor.models.utils import (
    AutoWeightsLoader,
    WeightsMapper,
    init_vllm_registered_model,
    maybe_prefix,
)
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.sequence import IntermediateTensors

from dualfocus_engine.models.qwen_vl_config import QwenVLConfig
from dualfocus_engine.models.qwen_vl_pictures import PLACEHOLDER, QwenVLDummyInputs, QwenVLInfo, QwenVLProcessor
from dualfocus_engine.models.qwen_vl_vision import VisionTower

# Of a layer of the language model: the names on the hub, and vLLM's. The tower has some of the same, and keeps them.
_LAYER_NAMES = {
    "ln_1": "input_layernorm",
    "ln_2": "post_attention_layernorm",
    "attn.c_attn": "self_attn.qkv_proj",
    "attn.c_proj": "self_attn.o_proj",
    "mlp.w1": "mlp.w1",
    "mlp.w2": "mlp.w2",
    "mlp.c_proj": "mlp.down_proj",
}


@MULTIMODAL_REGISTRY.register_processor(QwenVLProcessor, info=QwenVLInfo, dummy_inputs=QwenVLDummyInputs)
class QwenVLForConditionalGeneration(nn.Module, SupportsMultiModal, SupportsLoRA, SupportsPP):
    """Qwen-VL and Qwen-VL-Chat, from the hub's files as they are.

    Adapters may change `c_attn`, `c_proj`, `w1` and `w2` of the language model.
    """

    # What adapters name, of what vLLM packs: `c_attn` is packed already.
    packed_modules_mapping = {"qkv_proj": ["qkv_proj"], "gate_up_proj": ["w2", "w1"]}  # noqa: RUF012
    hf_to_vllm_mapper = WeightsMapper(
        orig_to_new_regex={
            re.compile(rf"^transformer\.h\.(\d+)\.{re.escape(name)}\."): rf"language_model.model.layers.\1.{new}."
            for name, new in _LAYER_NAMES.items()
        },
        orig_to_new_stacked={".mlp.w2.": (".mlp.gate_up_proj.", 0), ".mlp.w1.": (".mlp.gate_up_proj.", 1)},
        orig_to_new_prefix={
            "transformer.wte.": "language_model.model.embed_tokens.",
            "transformer.ln_f.": "language_model.model.norm.",
            "transformer.visual.": "visual.",
            "lm_head.": "language_model.lm_head.",
        },
    )

    @classmethod
    def get_placeholder_str(cls, modality: str, i: int) -> str:
        """Return what stands for the i-th picture of a conversation. Raises ValueError of anything else."""
        if modality.startswith("image"):
            return f"Picture {i}: {PLACEHOLDER}"
        raise ValueError(f"Qwen-VL takes pictures, and no {modality}.")

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__()
        config: QwenVLConfig = vllm_config.model_config.hf_config
        _check_context(vllm_config.model_config.max_model_len, config)
        self.config = config
        with self._mark_tower_model(vllm_config, "image"):
            self.visual = VisionTower(config.visual, maybe_prefix(prefix, "visual"))
        with self._mark_language_model(vllm_config):
            self.language_model = init_vllm_registered_model(
                vllm_config, hf_config=config.text_config, prefix=maybe_prefix(prefix, "language_model")
            )
        self.make_empty_intermediate_tensors = self.language_model.make_empty_intermediate_tensors

    def embed_multimodal(self, **inputs: Any) -> Any:
        """Return what the language model reads of each picture, (256, hidden size)."""
        pixels = inputs.get("pixel_values")
        return [] if pixels is None else self.visual(pixels)

    def forward(
        self,
        input_ids: torch.Tensor | None,
        positions: torch.Tensor,
        intermediate_tensors: IntermediateTensors | None = None,
        inputs_embeds: torch.Tensor | None = None,
        **_: object,
    ) -> Any:
        """Run the language model over tokens or, where there are pictures, over embeddings."""
        if intermediate_tensors is not None:
            inputs_embeds = None
        return self.language_model.model(input_ids, positions, intermediate_tensors, inputs_embeds=inputs_embeds)

    def compute_logits(self, hidden_states: torch.Tensor) -> torch.Tensor | None:
        """Return the logits of each token of the vocabulary."""
        logits: torch.Tensor | None = self.language_model.compute_logits(hidden_states)
        return logits

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> set[str]:
        """Load the hub's weights; returns the names of those that were loaded."""
        loaded: set[str] = AutoWeightsLoader(self).load_weights(weights, mapper=self.hf_to_vllm_mapper)
        return loaded

    def get_mm_mapping(self) -> MultiModelKeys:
        """Say which parts are what: adapters are the language model's."""
        return MultiModelKeys.from_string_field(language_model="language_model", tower_model="visual")


def _check_context(length: int, config: QwenVLConfig) -> None:
    """Raise ValueError where vLLM was made (VLLM_ALLOW_LONG_MAX_MODEL_LEN) to take more than the model's context."""
    most = config.text_config.max_position_embeddings
    if length > most:
        raise ValueError(
            f"--max-model-len {length} is more than Qwen-VL's {most}: what the model does beyond that (logn attention, "
            "dynamic NTK) is not built."
        )
