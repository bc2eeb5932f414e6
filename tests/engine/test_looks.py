"""More than two looks, on real vLLM: a tiny model of Qwen3-VL's architecture, whose boxes a grammar writes."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from dualfocus_engine import DualFocus, FocusResult, Mode, Question
from dualfocus_engine.families.boxes import CropPolicy, Region
from dualfocus_engine.families.profiles import EnoughCheck
from dualfocus_engine.method.results import Ending
from dualfocus_training.models.families import ensure_tiny
from PIL import Image
from vllm import SamplingParams

Photo = Callable[[str], Image.Image]
# Both answers are cut alike: one that is whole would win over one that is not.
CUT = SamplingParams(temperature=0, max_tokens=4, ignore_eos=True)
HALF = '[{"bbox_2d": [0, 0, 500, 500]}]'
TWO = '[{"bbox_2d": [100, 100, 200, 200]}, {"bbox_2d": [600, 600, 700, 800]}]'


@pytest.fixture(scope="module")
async def tiny() -> AsyncIterator[DualFocus]:
    small = {"dtype": "float32", "max_model_len": 8192, "kv_cache_memory_bytes": 1 << 29}
    async with DualFocus(str(ensure_tiny("qwen3-vl")), **small) as running:
        yield running


@contextmanager
def _writing(tiny: DualFocus, boxes: str = "", grammar: str = "", **changes: Any) -> Iterator[None]:
    """Hold the turns that say where to look to `boxes`, or a grammar, in a profile with a few changes."""
    engine, own = tiny.engine, tiny.engine.profile
    # A box in a crop is the crop's: held to one text, it could be no other place of the original.
    box_format = own.box_format.model_copy(update={"grammar": grammar or re.escape(boxes), "after_crop": "crop"})
    engine.profile = own.model_copy(update={"box_format": box_format, **changes})
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
    with _writing(tiny, TWO):
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


@pytest.fixture(scope="module")
def large(photo: Photo) -> Image.Image:
    """A picture of which four crops, one in the other, show more of it each time."""
    return photo("coffee").resize((6400, 4800))


def _searched(picture: Image.Image, **options: Any) -> Question:
    return _asked(picture, Mode.SEARCH, whole_tokens=1024, sure_below=0.0, **options)


async def test_a_search_computes_what_is_new_of_each_look_and_encodes_each_crop_once(
    tiny: DualFocus, large: Image.Image
) -> None:
    with _writing(tiny, HALF, crop=CropPolicy(square=False, margin=0)):
        result = await tiny.answer(_searched(large))
    assert (result.ending, len(result.looks)) == (Ending.MAX_LOOKS, 3)
    crops = [look.crop_box for look in result.looks]
    assert crops == [Region(0, 0, 3200, 2400), Region(0, 0, 1600, 1200), Region(0, 0, 800, 600)]
    assert _encoder_runs(result) == 4, "the picture once, and each crop"
    least = _distinct([turn.prompt_token_ids for turn in result.turns.values()])
    shown = result.turns["micro-3"].image_tokens
    assert 3400 < shown < least, "about 1,024 tokens for each of three, half as many for the last, and the texts"
    assert sum(turn.computed_tokens for turn in result.turns.values()) <= 1.05 * least


def _distinct(prompts: list[tuple[int, ...]]) -> int:
    """Tokens that have to be computed for some prompts: those that no other one begins with."""
    return len({hash(prompt[: end + 1]) for prompt in prompts for end in range(len(prompt))})


async def test_each_level_is_the_one_before_token_for_token(tiny: DualFocus, large: Image.Image) -> None:
    with _writing(tiny, HALF, crop=CropPolicy(square=False, margin=0)):
        turns = (await tiny.answer(_searched(large))).turns
    written: tuple[int, ...] = ()
    for suffix in ("", "-2", "-3"):
        grounding, micro = turns[f"grounding{suffix}"], turns[f"micro{suffix}"]
        assert grounding.prompt_token_ids[: len(written)] == written
        written = grounding.prompt_token_ids + grounding.token_ids
        assert micro.prompt_token_ids[: len(written)] == written
        assert grounding.picture_tokens == micro.picture_tokens[:-1]


async def test_other_places_are_drawn_from_one_prefill_and_looked_at(tiny: DualFocus, large: Image.Image) -> None:
    places = ("100, 100, 200, 200", "700, 100, 800, 200", "100, 700, 200, 800", "700, 700, 800, 800")
    either = rf"\[\{{\"bbox_2d\": \[({'|'.join(places)})\]\}}\]"
    question = replace(_searched(large.rotate(180)), mode=Mode.DUAL, candidates=7)
    with _writing(tiny, grammar=either):
        result = await tiny.answer(question)
    assert (len(result.looks), result.ending) == (7, Ending.NO_OTHER_PLACE)
    answered = [look for look in result.looks if look.micro is not None]
    assert 1 < len(answered) == len({look.box for look in result.looks}) <= 4, "each place once"
    assert _encoder_runs(result) == 1 + len(answered)
    block = tiny.engine.llm.vllm_config.cache_config.block_size
    assert all(look.grounding.computed_tokens <= block for look in result.looks[1:] if look.grounding is not None)


async def test_whether_a_view_is_enough_costs_a_short_prefill_and_one_step(tiny: DualFocus, photo: Photo) -> None:
    picture = photo("coffee").resize((1600, 1200))
    # The tokens that such weights write are no words: any two are, for once, yes and no.
    likeliest = (await tiny.answer(_asked(picture, Mode.MACRO))).turns["macro"].token_ids[0]
    word = tiny.engine.llm.renderer.get_tokenizer().decode([likeliest])
    check = EnoughCheck(prompt="{question}", yes=(word,), no=("No",))
    with _writing(tiny, HALF, enough=check):
        result = await tiny.answer(_asked(picture, Mode.DUAL, enough=True))
    block = tiny.engine.llm.vllm_config.cache_config.block_size
    for name, seen in (("enough-macro", "macro"), ("enough-micro", "micro")):
        turn = result.turns[name]
        assert (turn.completion_tokens, turn.engine_steps) == (1, 1)
        assert turn.picture_tokens == result.turns[seen].picture_tokens
        assert turn.computed_tokens <= turn.prompt_tokens - turn.image_tokens + 2 * block, "the picture is cached"
        assert turn.encoder_runs == 0
        assert len(turn.top_logprobs[0]) >= 20
    assert result.enough is not None
    assert result.enough.share is None or 0 <= result.enough.share <= 1


async def test_a_search_that_is_cancelled_leaves_nothing_in_the_engine(tiny: DualFocus, large: Image.Image) -> None:
    deeper = asyncio.Event()

    class Listener:
        def on_turn_start(self, turn: str) -> None:
            if turn == "micro-2":
                deeper.set()

        def on_turn_accepted(self, turn: str) -> None:
            pass

        def on_text(self, written: Any) -> None:
            pass

    endless = replace(_searched(large), sampling=SamplingParams(temperature=0, max_tokens=100, ignore_eos=True))
    with _writing(tiny, HALF, crop=CropPolicy(square=False, margin=0)):
        answering = asyncio.create_task(tiny.answer(endless, Listener()))
        async with asyncio.timeout(300):
            await deeper.wait()
        answering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await answering
    async with asyncio.timeout(30):
        await tiny.engine.check_health()  # answered between steps: what was aborted before is gone
    assert tiny.engine.unfinished == 0
