"""The limits of the image processor that vLLM loaded, in the place of those that a profile names for its family.

A hub's copy, a fine-tune or `--mm-processor-kwargs` may have others. Leans on these parts of vLLM 0.32
(tests/unit/backend/test_processor_limits.py): a renderer's `get_mm_processor`, `BaseProcessingInfo.get_hf_processor`
with its `image_processor`, `ctx` with `get_merged_mm_kwargs`, and `get_max_image_tokens` of the families that have it;
of Gemma 4's processor `max_soft_tokens`, of Kimi-VL's `in_token_limit` and `merge_kernel_size`.
"""

import math
from collections.abc import Mapping
from typing import Any

from dualfocus_engine.families.views import Budget, Grid, Tiles, Views


def with_processor_limits(views: Views | None, renderer: Any) -> Views | None:
    """Return a profile's views with the limits of the processor that vLLM's renderer loaded."""
    if views is None:
        return None
    rule, info = views.rule, renderer.get_mm_processor().info
    if isinstance(rule, Grid):
        rule = _grid(rule, info)
    elif isinstance(rule, Tiles):
        rule = _tiles(rule, info.get_hf_processor().image_processor)
    elif isinstance(rule, Budget):
        rule = _budget(rule, info)
    return views.model_copy(update={"rule": rule})


def _grid(rule: Grid, info: Any) -> Grid:
    if rule.most_side is not None and (side := _pixels(info, "longest_edge")) is not None:
        return rule.model_copy(update={"most_side": side, "most": (side // rule.cell) ** 2})
    least = _given(info).get("min_pixels") or _pixels(info, "shortest_edge")
    return rule.model_copy(
        update={
            "most": _most_tokens(rule, info),
            "least": rule.least if least is None else max(1, -(-least // (rule.frames * rule.cell**2))),
        }
    )


def _most_tokens(rule: Grid, info: Any) -> int:
    if hasattr(info, "get_max_image_tokens"):
        return int(info.get_max_image_tokens())
    images = info.get_hf_processor().image_processor
    patches = getattr(images, "in_token_limit", None)
    return rule.most if patches is None else int(patches // math.prod(images.merge_kernel_size))


def _pixels(info: Any, edge: str) -> int | None:
    """Return what the processor's `size` says under a name: pixels of a side or of a whole picture, by the family."""
    loaded = getattr(info.get_hf_processor().image_processor, "size", None) or {}
    sizes = (_given(info).get("size") or {}, loaded if isinstance(loaded, Mapping) else vars(loaded))
    return next((int(size[edge]) for size in sizes if size.get(edge) is not None), None)


def _given(info: Any) -> Mapping[str, Any]:
    """Return what `--mm-processor-kwargs` say of images."""
    given: Mapping[str, Any] = info.ctx.get_merged_mm_kwargs({})
    return {**given, **given.get("images_kwargs", {})}


def _budget(rule: Budget, info: Any) -> Budget:
    found = (_given(info), vars(info.get_hf_processor().image_processor))
    tokens = (names.get("max_soft_tokens") for names in found)
    return rule.model_copy(update={"most": next((most for most in tokens if most), rule.most)})


def _tiles(rule: Tiles, image_processor: Any) -> Tiles:
    """Return the rule with as many tiles as the processor cuts: transformers' form of InternVL, or vLLM's own."""
    if not getattr(image_processor, "dynamic_image_size", True):
        return rule.model_copy(update={"most_tiles": 1})
    names = ("max_patches", "max_dynamic_patch")
    found = (getattr(image_processor, name, None) for name in names)
    return rule.model_copy(update={"most_tiles": next((most for most in found if most), rule.most_tiles)})
