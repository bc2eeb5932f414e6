"""Two data-parallel ranks on the CPU: a picture's questions run on the rank that its content names, and share there."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from dualfocus_engine import DualFocus, FocusResult
from dualfocus_training.models.untrained import ensure_untrained
from PIL import Image

Photo = Callable[[str], Image.Image]
# Two for each rank, as their contents have it.
PHOTOS = ("coffee", "astronaut", "moon", "coins")
QUESTIONS = ("What is it?", "Who is it?", "Is anything written on it?")
IMAGE_TOKENS = 64


@pytest.fixture(scope="module")
async def ranks() -> AsyncIterator[DualFocus]:
    """The model to start with on two ranks, with a counter on each one's vision tower."""
    flags = {"dtype": "float32", "worker_extension_cls": "encoder_probe.EncoderProbe"}
    small = {"kv_cache_memory_bytes": 64 << 20, "data_parallel_size": 2}
    async with DualFocus(str(ensure_untrained()), **flags, **small) as running:
        await on_each(running, "watch_vision_tower")
        yield running


async def on_each(focus: DualFocus, method: str) -> list[int]:
    """Call the probe on each rank; vLLM's own call gives the first rank's answer only."""
    core = focus.engine.llm.engine_core
    calls = [
        core._call_utility_async("collective_rpc", method, None, (), None, engine=rank) for rank in core.core_engines
    ]
    return [answer for (answer,) in await asyncio.gather(*calls)]


def rank_of(focus: DualFocus, photo: Image.Image) -> int:
    return focus.engine.rank(focus.engine.pictures.open(photo))


def runs(result: FocusResult) -> int:
    return sum(turn.encoder_runs or 0 for turn in result.turns.values())


@pytest.mark.parametrize("name", PHOTOS)
async def test_the_questions_about_a_picture_run_on_one_rank(ranks: DualFocus, photo: Photo, name: str) -> None:
    image, before = photo(name), await on_each(ranks, "encoded_images")
    first = await ranks.ask(image, QUESTIONS[0])
    assert runs(first) == 2
    results = [first, *await asyncio.gather(*(ranks.ask(image, text) for text in QUESTIONS[1:]))]
    # Each question's crop, and the picture once.
    assert sum(map(runs, results)) == 1 + len({result.look.crop_box for result in results})
    for result in results[1:]:
        assert min(turn.cached_tokens for turn in result.turns.values()) >= IMAGE_TOKENS
    for result in results:
        assert result.turns["micro"].cached_tokens > result.turns["grounding"].prompt_tokens - IMAGE_TOKENS
    encoded = [now - then for now, then in zip(await on_each(ranks, "encoded_images"), before, strict=True)]
    expected = [0, 0]
    expected[rank_of(ranks, image)] = sum(map(runs, results))
    assert encoded == expected


def test_both_ranks_are_used(ranks: DualFocus, photo: Photo) -> None:
    assert [rank_of(ranks, photo(name)) for name in PHOTOS] == [0, 0, 1, 1]


async def test_a_rank_at_work_is_known_and_its_steps_are_its_own(ranks: DualFocus, photo: Photo) -> None:
    """The watchdog goes by it: a rank that hangs is told from one that has nothing to do."""
    engine, image = ranks.engine, photo("moon")
    working, idle = rank_of(ranks, image), 1 - rank_of(ranks, image)
    before = engine.last_step(idle)
    asked, seen = asyncio.ensure_future(ranks.ask(image, "What is it like?")), set[int]()
    while not asked.done():
        seen |= engine.busy_ranks
        await asyncio.sleep(0)
    assert (seen, engine.busy_ranks) == ({working}, set())
    assert engine.last_step(working) > engine.last_step(idle) == before


async def test_questions_on_all_pictures_at_once_share_as_if_alone(ranks: DualFocus, photo: Photo) -> None:
    before = await on_each(ranks, "encoded_images")
    fresh = [photo(name).rotate(90) for name in PHOTOS]
    results = await asyncio.gather(*(ranks.ask(image, text) for image in fresh for text in QUESTIONS))
    by_image = [results[at : at + len(QUESTIONS)] for at in range(0, len(results), len(QUESTIONS))]
    expected = [0, 0]
    for image, answers in zip(fresh, by_image, strict=True):
        assert sum(map(runs, answers)) == 1 + len({answer.look.crop_box for answer in answers})
        expected[rank_of(ranks, image)] += sum(map(runs, answers))
    encoded = [now - then for now, then in zip(await on_each(ranks, "encoded_images"), before, strict=True)]
    assert encoded == expected
    assert min(encoded) > 0
