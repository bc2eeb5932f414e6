"""One engine for all tests of this folder: starting vLLM costs 20 s and more."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from dualfocus_engine import DualFocus
from dualfocus_training.models.untrained import ensure_untrained


@pytest.fixture(scope="session")
def small_engine() -> dict[str, Any]:
    """How engines start beside others: small, and in full precision.

    Eager on a GPU too, where the graphs of several would take minutes.
    """
    return {"dtype": "float32", "kv_cache_memory_bytes": 1 << 29, "enforce_eager": True}


@pytest.fixture(scope="session")
async def focus(small_engine: dict[str, Any]) -> AsyncIterator[DualFocus]:
    """The model to start with, with a counter on its vision tower."""
    probe = "encoder_probe.EncoderProbe"
    async with DualFocus(str(ensure_untrained()), worker_extension_cls=probe, **small_engine) as running:
        await running.engine.llm.collective_rpc("watch_vision_tower")
        yield running


@pytest.fixture
def encoded_images(focus: DualFocus) -> Callable[[], Awaitable[int]]:
    """How many images the vision tower was run on so far, counted at the tower."""

    async def count() -> int:
        (images,) = await focus.engine.llm.collective_rpc("encoded_images")
        return int(images)

    return count
