"""LLaVA-HighRes with DualFocus (the paper's Table 6): LLaVA-NeXT's patches joined flat, the crop as one more of them.

A picture is shown whole and in tiles, each a patch of `image_size` pixels a side, in LLaVA-NeXT's order; the features
of all patches follow one another, and nothing closes a row. A picture may come with a crop of it, as a pair: the crop
is resized to one patch as the whole is, and stands last. The paper says "as a fifth local patch" and no more: the rest
is ours (docs/systems.md).

Leans on vLLM 0.32's `llava_next` and `llava`, whose classes are extended here (`_call_hf_processor` with `images`,
`_merge_image_patch_embeddings` and its strategy `flat`), on `MultiModalDataParser`, which leaves a pair as it is, on
`PromptReplacement`, and on `WeightsMapper`, which leaves out what is None (tests/engine/test_fifth_patch.py).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from transformers import BatchFeature
from transformers.models.llava_next.modeling_llava_next import get_anyres_image_grid_shape
from vllm.config import VllmConfig
from vllm.model_executor.models.llava import LlavaDummyInputsBuilder
from vllm.model_executor.models.llava_next import (
    LlavaNextForConditionalGeneration,
    LlavaNextMultiModalProcessor,
    LlavaNextProcessingInfo,
)
from vllm.model_executor.models.utils import WeightsMapper
from vllm.model_executor.models.vision import get_num_selected_vision_tokens
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.processing import PromptReplacement, PromptUpdate


class LlavaHighResInfo(LlavaNextProcessingInfo):
    """How many tokens pictures take."""

    @property
    def patch_tokens(self) -> int:
        """Tokens of a patch: 576 of 336 pixels a side."""
        encoder = self.get_vision_encoder_info()
        side = encoder.get_image_size()
        tokens = encoder.get_num_image_tokens(image_width=side, image_height=side)
        return int(get_num_selected_vision_tokens(tokens, self.get_hf_config().vision_feature_select_strategy))

    def get_num_image_tokens(self, *, image_width: int, image_height: int) -> int:
        """Return the tokens of a picture that comes without a crop."""
        side, grids = self.get_vision_encoder_info().get_image_size(), self.get_hf_config().image_grid_pinpoints
        rows, columns = get_anyres_image_grid_shape((image_height, image_width), grids, side)
        return int(1 + rows * columns) * self.patch_tokens


class LlavaHighResDummyInputs(LlavaDummyInputsBuilder[LlavaHighResInfo]):
    """The prompt that vLLM measures memory with: its pictures come with a crop."""

    def get_dummy_mm_data(self, *args: Any, **kwargs: Any) -> Any:
        """Return its pictures."""
        pictures = super().get_dummy_mm_data(*args, **kwargs)["image"]
        return {"image": [(picture, picture) for picture in pictures]}


class LlavaHighResProcessor(LlavaNextMultiModalProcessor[LlavaHighResInfo]):
    """Makes patches of pictures, and of pairs of a picture and its crop."""

    def _get_hf_mm_text(self, mm_counts: Mapping[str, int]) -> None:
        return None

    def _call_hf_processor(self, hf_data: Mapping[str, Any], hf_kwargs: Mapping[str, object]) -> BatchFeature:
        # Each by itself: of several, all would be padded to the most patches.
        made = [self._patches(picture, hf_kwargs) for picture in hf_data["images"]]
        patches, sizes = zip(*made, strict=True)
        return BatchFeature({"pixel_values": list(patches), "image_sizes": torch.stack(sizes)})

    def _patches(
        self, picture: Image.Image | tuple[Image.Image, Image.Image], hf_kwargs: Mapping[str, object]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a picture's patches (number, 3, side, side), and its height and width."""
        if isinstance(picture, tuple):
            (patches, size), (crop, _) = (self._patches(part, hf_kwargs) for part in picture)
            return torch.cat([patches, crop[:1]]), size
        made = super()._call_hf_processor({"images": [picture]}, hf_kwargs)
        return made["pixel_values"][0], made["image_sizes"][0]

    def _get_prompt_updates(
        self, mm_items: object, hf_processor_mm_kwargs: Mapping[str, object], out_mm_kwargs: Mapping[str, Any]
    ) -> Sequence[PromptUpdate]:
        token = self.info.get_hf_config().image_token_index

        def shown(place: int) -> list[int]:
            made = out_mm_kwargs["image"][place]
            if "image_embeds" in made:
                return [token] * len(made["image_embeds"].data)
            return [token] * (len(made["pixel_values"].data) * self.info.patch_tokens)

        return [PromptReplacement(modality="image", target=[token], replacement=shown)]


@MULTIMODAL_REGISTRY.register_processor(
    LlavaHighResProcessor, info=LlavaHighResInfo, dummy_inputs=LlavaHighResDummyInputs
)
class LlavaHighResForConditionalGeneration(LlavaNextForConditionalGeneration):
    """LLaVA-NeXT whose patches are joined flat; a checkpoint's `image_newline` is left out."""

    hf_to_vllm_mapper = LlavaNextForConditionalGeneration.hf_to_vllm_mapper | WeightsMapper(
        orig_to_new_prefix={"image_newline": None, "model.image_newline": None}
    )

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        del self.image_newline

    def _merge_image_patch_embeddings(
        self, image_size: torch.Tensor, patch_embeddings: torch.Tensor, *, strategy: str
    ) -> torch.Tensor:
        return super()._merge_image_patch_embeddings(image_size, patch_embeddings, strategy="flat")
