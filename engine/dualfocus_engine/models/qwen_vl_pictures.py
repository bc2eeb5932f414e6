"""How pictures stand in Qwen-VL's prompts, and the pixels that its tower is given.

Leans on vLLM 0.32's `BaseProcessingInfo`, `BaseDummyInputsBuilder`, `BaseMultiModalProcessor`, `PromptReplacement`, and
on transformers' `CLIPImageProcessorPil` (tests/engine/qwen_vl).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from vllm.multimodal.inputs import MultiModalFieldConfig
from vllm.multimodal.processing import (
    BaseDummyInputsBuilder,
    BaseMultiModalProcessor,
    BaseProcessingInfo,
    PromptReplacement,
    PromptUpdate,
    PromptUpdateDetails,
)

from dualfocus_engine.models.qwen_vl_config import QwenVLConfig
from dualfocus_engine.models.qwen_vl_vision import QUERIES

# What the chat template writes for a picture, behind its number.
PLACEHOLDER = "<img></img>"


class QwenVLInfo(BaseProcessingInfo):
    """Any number of pictures a prompt, each of one square size: its aspect is not kept, and nothing is padded."""

    def get_hf_config(self) -> QwenVLConfig:
        """Return the model's configuration."""
        config: QwenVLConfig = self.ctx.get_hf_config(QwenVLConfig)
        return config

    def get_hf_processor(self, **changes: object) -> CLIPImageProcessorPil:
        """Return what makes pixels of pictures; the repository has no preprocessor_config.json that says it."""
        side = self.side
        return CLIPImageProcessorPil(size={"height": side, "width": side}, do_center_crop=False)

    def get_supported_mm_limits(self) -> Mapping[str, int | None]:
        """Any number of pictures."""
        return {"image": None}

    @property
    def side(self) -> int:
        """Pixels of a side."""
        return int(self.get_hf_config().visual["image_size"])


class QwenVLDummyInputs(BaseDummyInputsBuilder[QwenVLInfo]):
    """The prompt that vLLM measures memory with."""

    def get_dummy_text(self, mm_counts: Mapping[str, int]) -> str:
        """Return a prompt of as many pictures."""
        return PLACEHOLDER * mm_counts.get("image", 0)

    def get_dummy_mm_data(self, seq_len: int, mm_counts: Mapping[str, int], mm_options: Mapping[str, Any]) -> Any:
        """Return its pictures."""
        side, count = self.info.side, mm_counts.get("image", 0)
        return {"image": self._get_dummy_images(width=side, height=side, num_images=count)}


class QwenVLProcessor(BaseMultiModalProcessor[QwenVLInfo]):
    """Puts 256 positions for each picture between its `<img>` and `</img>`."""

    def _get_mm_fields_config(
        self, hf_inputs: object, hf_processor_mm_kwargs: Mapping[str, object]
    ) -> Mapping[str, MultiModalFieldConfig]:
        return {"pixel_values": MultiModalFieldConfig.batched("image")}

    def _get_prompt_updates(
        self, mm_items: object, hf_processor_mm_kwargs: Mapping[str, object], out_mm_kwargs: object
    ) -> Sequence[PromptUpdate]:
        config = self.info.get_hf_config()
        start, end, pad = config.image_start_id, config.image_end_id, config.image_token_id
        shown = PromptUpdateDetails.select_token_id([start, *[pad] * QUERIES, end], pad)
        return [PromptReplacement(modality="image", target=[start, end], replacement=shown)]
