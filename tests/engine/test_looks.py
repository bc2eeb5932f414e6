"""More than two looks, on real vLLM: a tiny model of Qwen3-VL's architecture, whose boxes a grammar writes."""

import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from dualfocus_engine import DualFocus, FocusResult, Mode, Question
from dualfocus_training.models.families import ensure_tiny
from PIL import Image
from vllm import SamplingParams

Photo = Callable[[str], Image.Image]
# Both answers are cut alike: one that is whole would win over one that is not.
CUT = SamplingParams(temperature=0, max_tokens=4, ignore_eos=True)
TWO = '[{"bbox_2d": [100, 100, 200, 200]}, {"bbox_2d": [600, 600, 700, 800]}]'


@pytest.fixture(scope="module")
async def tiny() -> AsyncIterator[DualFocus]:
    small = {"dtype": "float32", "max_model_len": 8192, "kv_cache_memory_bytes": 1 << 29}
    async with DualFocus(str(ensure_tiny("qwen3-vl")), **small) as running:
        yield running


@contextmanager
def _writing(tiny: DualFocus, boxes: str) -> Iterator[None]:
    """Hold the turns that say where to look to `boxes`, a regular expression."""
    engine, own = tiny.engine, tiny.engine.profile
    engine.profile = own.model_copy(update={"box_format": own.box_format.model_copy(update={"grammar": boxes})})
    try:
        yield
    finally:
        engine.profile = own


def _asked(photo: Image.Image, mode: Mode, **options: Any) -> Question:
    return replace(Question.about(photo, "Which is larger?", mode), sampling=CUT, **options)


def _encoder_runs(result: FocusResult) -> int:
    return sum(turn.encoder_runs or 0 for turn in result.turns.values())


async def test_several_places_are_crops_of_one_turn_from_the_cached_prefix(tiny: DualFocus, photo: Photo) -> None:
    picture = photo("coffee").resize((1600, 1200))
    with _writing(tiny, re.escape(TWO)):
        result = await tiny.answer(_asked(picture, Mode.REGIONS))
    micro, grounding = result.turns["micro"], result.turns["grounding"]
    continued = grounding.prompt_token_ids + grounding.token_ids
    assert micro.prompt_token_ids[: len(continued)] == continued
    block = tiny.engine.llm.vllm_config.cache_config.block_size
    assert micro.cached_tokens >= grounding.prompt_tokens // block * block
    assert _encoder_runs(result) == 3, "the picture once, and each crop"
    regions, (whole, *crops) = result.look.regions, micro.picture_tokens
    assert [at.tokens for at in regions] == crops
    assert grounding.picture_tokens == (whole,)
    assert 256 <= sum(crops) <= 1024, "they share what one crop may take"
    assert [round(at.box.x1, 2) for at in regions] == [0.1, 0.6]
