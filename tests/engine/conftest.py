"""One engine for all tests of this folder: starting vLLM costs 20 s and more."""

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from dualfocus_engine import DualFocus
from dualfocus_training.models.untrained import ensure_untrained


@pytest.fixture(scope="session")
async def focus() -> AsyncIterator[DualFocus]:
    """The model to start with, in full precision, with a counter on its vision tower; beside others, hence small."""
    flags = {"dtype": "float32", "worker_extension_cls": "encoder_probe.EncoderProbe"}
    async with DualFocus(str(ensure_untrained()), kv_cache_memory_bytes=1 << 29, **flags) as running:
        await running.engine.llm.collective_rpc("watch_vision_tower")
        yield running


@pytest.fixture
def encoded_images(focus: DualFocus) -> Callable[[], Awaitable[int]]:
    """How many images the vision tower was run on so far, counted at the tower."""

    async def count() -> int:
        (images,) = await focus.engine.llm.collective_rpc("encoded_images")
        return int(images)

    return count
