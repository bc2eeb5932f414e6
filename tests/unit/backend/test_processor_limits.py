"""The limits of the processor that vLLM loads go before those that a profile names."""

import inspect
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from dualfocus_engine.backend.processor_limits import with_processor_limits
from dualfocus_engine.families.profiles import load_profile
from dualfocus_engine.families.views import Budget, Grid, Square, Tiles, Views
from dualfocus_training.models.families import ensure_tiny
from transformers.models.gemma4.image_processing_gemma4 import Gemma4ImageProcessor
from vllm.config import ModelConfig
from vllm.model_executor.models.kimi_vl import KimiVLProcessingInfo
from vllm.multimodal import MULTIMODAL_REGISTRY

QWEN25, INTERNVL, KIMI = (load_profile(name).views for name in ("qwen2.5-vl", "internvl", "kimi-vl"))


def _loaded(family: str, given: dict[str, Any] | None) -> Any:
    """A renderer with the processor that vLLM loads for a tiny model, with `--mm-processor-kwargs`."""
    config = ModelConfig(str(ensure_tiny(family)), mm_processor_kwargs=given, max_model_len=4096)
    processor = MULTIMODAL_REGISTRY.create_processor(config)
    return SimpleNamespace(get_mm_processor=lambda: processor)


@pytest.mark.parametrize(
    ("given", "least", "most"),
    [
        (None, 4, 16384),
        ({"max_pixels": 802816}, 4, 1024),
        ({"min_pixels": 200704}, 256, 16384),
        ({"size": {"shortest_edge": 200704, "longest_edge": 802816}}, 256, 1024),
        ({"images_kwargs": {"min_pixels": 200704, "max_pixels": 802816}}, 256, 1024),
    ],
)
def test_a_grids_limits_are_those_of_qwens_processor(given: dict[str, Any] | None, least: int, most: int) -> None:
    views = with_processor_limits(QWEN25, _loaded("qwen2.5-vl", given))
    assert views is not None
    assert isinstance(views.rule, Grid)
    assert (views.rule.least, views.rule.most, views.rule.cell) == (least, most, 28)


def _with(image_processor: Any, given: Mapping[str, Any]) -> Any:
    """A renderer with an image processor, and with `--mm-processor-kwargs`."""
    context = SimpleNamespace(get_merged_mm_kwargs=lambda own: {**own, **given})
    processor = SimpleNamespace(image_processor=image_processor)
    info = SimpleNamespace(get_hf_processor=lambda: processor, ctx=context)
    return SimpleNamespace(get_mm_processor=lambda: SimpleNamespace(info=info))


@pytest.mark.parametrize(
    ("limits", "most"), [({"in_token_limit": 16384}, 4096), ({"in_token_limit": 4096}, 1024), ({}, 1024)]
)
def test_patches_of_kimis_processor_are_merged_into_tokens(limits: dict[str, int], most: int) -> None:
    views = with_processor_limits(KIMI, _with(SimpleNamespace(merge_kernel_size=[2, 2], **limits), {}))
    assert views is not None
    assert isinstance(views.rule, Grid)
    assert (views.rule.least, views.rule.most) == (1, most)


@pytest.mark.parametrize("size", [(24, 3637), (2794, 19), (9000, 45), (1, 1), (4000, 3000)])
def test_kimis_pictures_have_sides_that_its_processor_takes(size: tuple[int, int]) -> None:
    limits = SimpleNamespace(merge_kernel_size=[2, 2], in_token_limit=16384)
    views = with_processor_limits(KIMI, _with(limits, {}))
    assert views is not None
    assert max(views.show_whole(size)) < 512 * 14
    assert max(views.show_crop(size, 1.0)) < 512 * 14


def test_vllm_asks_kimis_processor_for_the_same() -> None:
    asked = inspect.getsource(KimiVLProcessingInfo)
    assert "hf_processor.image_processor.in_token_limit" in asked
    assert "hf_processor.image_processor.merge_kernel_size" in asked
    assert not hasattr(KimiVLProcessingInfo, "get_max_image_tokens")


@pytest.mark.parametrize(("given", "tiles"), [(None, 12), ({"max_patches": 6}, 6)])
def test_tiles_are_as_many_as_internvls_processor_cuts(given: dict[str, Any] | None, tiles: int) -> None:
    views = with_processor_limits(INTERNVL, _loaded("internvl", given))
    assert views is not None
    assert isinstance(views.rule, Tiles)
    assert views.rule.most_tiles == tiles


@pytest.mark.parametrize(("is_tiled", "tiles"), [(True, 6), (False, 1)])
def test_tiles_of_vllms_own_internvl_are_its_configurations(is_tiled: bool, tiles: int) -> None:
    image_processor = SimpleNamespace(dynamic_image_size=is_tiled, max_dynamic_patch=6)
    info = SimpleNamespace(get_hf_processor=lambda: SimpleNamespace(image_processor=image_processor))
    renderer = SimpleNamespace(get_mm_processor=lambda: SimpleNamespace(info=info))
    views = with_processor_limits(INTERNVL, renderer)
    assert views is not None
    assert isinstance(views.rule, Tiles)
    assert views.rule.most_tiles == tiles


@pytest.mark.parametrize(
    ("given", "tokens"),
    [({}, 140), ({"max_soft_tokens": 560}, 560), ({"images_kwargs": {"max_soft_tokens": 1120}}, 1120)],
)
def test_a_budget_is_the_one_that_gemmas_processor_is_given(given: dict[str, Any], tokens: int) -> None:
    budget = Views(rule=Budget(kind="budget", cell=48, most=280))
    views = with_processor_limits(budget, _with(Gemma4ImageProcessor(max_soft_tokens=140), given))
    assert views is not None
    assert views.rule == Budget(kind="budget", cell=48, most=tokens)


def test_other_views_are_asked_of_no_processor() -> None:
    square = Views(rule=Square(kind="square", side=896, square_tokens=256))
    renderer = SimpleNamespace(get_mm_processor=lambda: SimpleNamespace(info=None))
    assert with_processor_limits(square, renderer) == square
    assert with_processor_limits(None, None) is None
