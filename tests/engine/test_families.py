"""Each family's architecture on real vLLM: pictures and crops are put to it as the family's own processor puts them."""

import math
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dualfocus_engine import Box, DualFocus, FocusResult, Mode, Question, Selection, Turn
from dualfocus_engine.families.boxes import CropPolicy
from dualfocus_training.models.families import FAMILIES, ensure_tiny
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor
from vllm import SamplingParams

# `make test` starts three of them; an engine costs 20 s and more. One has the server's sizes, one its processor's, and
# one can't say where something is.
_FIRST = ("qwen2.5-vl", "gemma4", "mistral3")
_ALL = [family if family in _FIRST else pytest.param(family, marks=pytest.mark.slow) for family in FAMILIES]
_ASKED = "What is this?"
# Pictures of LLaVA-OneVision take up to 7,300 tokens, whatever the context.
_CONTEXT = {"llava-onevision": 16384}
_MOST_CONTEXT = 8192
# On a CPU vLLM has these layers in this type alone.
_DTYPE = {"qwen3.5": "bfloat16", "qwen3.5-moe": "bfloat16"}
# This form's configuration is code of its repository. It has no processor of its own: vLLM's is compared with that of
# the other form, which has the same weights and tokens.
_FLAGS = {
    "internvl-chat": {"trust_remote_code": True},
    # vLLM tries the largest video at start.
    "glm-v": {"limit_mm_per_prompt": {"video": 0}},
}
_COMPARED_WITH = {"internvl-chat": "internvl"}
# transformers has none of it.
_VLLMS_ALONE = "isaac"
# Shown at sizes that their processors keep, but would not have made of every picture.
_SHOWN_OTHERWISE = ("gemma4", "isaac")
# The same box as each family writes it, of a picture of 1600 x 900; Qwen2.5-VL's is shown that at 1596 x 896.
_WRITTEN = {
    "qwen2-vl": "it(250,250),(500,500)",
    "qwen2.5-vl": '```json\n[{"bbox_2d": [399, 224, 798, 448], "label": "it"}]\n```',
    "qwen3-vl": '```json\n[{"bbox_2d": [250, 250, 500, 500], "label": "it"}]\n```',
    "qwen3.5": '```json\n[{"bbox_2d": [250, 250, 500, 500], "label": "it"}]\n```',
    "internvl": "it[[250, 250, 500, 500]]",
    "glm-v": "<|begin_of_box|>[[250,250,500,500]]<|end_of_box|>",
    "gemma4": '```json\n[{"box_2d": [250, 250, 500, 500], "label": "it"}]\n```',
    "llava-next": "[0.25, 0.25, 0.50, 0.50]",
    "isaac": 'The <point_box mention="it"> (250,250) (500,500) </point_box>',
}
# What its crop of 400 x 225 is shown at: 256 tokens, and twice its area in the whole picture. Of other families it is
# given to the model's own processor.
_SHOWN = {
    "qwen2-vl": (616, 336),
    "qwen2.5-vl": (616, 336),
    "qwen3-vl": (704, 384),
    "qwen3.5": (704, 384),
    "internvl": (896, 448),
    "glm-v": (616, 336),
    "isaac": (704, 384),
    "gemma4": (1056, 576),
    "gemma3": (896, 896),
    "mistral3": (616, 336),
}
# Where crops are widened to an aspect that the model is shown well: to two tiles side by side, to a square.
_WIDENED = {"internvl": (375, 225, 825, 450), "gemma3": (400, 137, 800, 537)}


@pytest.fixture(scope="module", params=_ALL)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
async def tiny(family: str) -> AsyncIterator[DualFocus]:
    """The tiny model of a family, in full precision."""
    context = _CONTEXT.get(family, _MOST_CONTEXT)
    small = {"dtype": _DTYPE.get(family, "float32"), "max_model_len": context, "kv_cache_memory_bytes": 1 << 29}
    async with DualFocus(str(ensure_tiny(family)), **small, **_FLAGS.get(family, {})) as running:
        yield running


@pytest.fixture(scope="module")
def published(family: str) -> Path:
    """The folder that transformers itself can load."""
    return ensure_tiny(_COMPARED_WITH.get(family, family))


@pytest.fixture(scope="module")
def processor(published: Path, tiny: DualFocus) -> Any:
    """The family's own, which tells the template what the profile does."""
    if tiny.profile.name == _VLLMS_ALONE:
        own = tiny.engine.llm.renderer.get_mm_processor().info.get_hf_processor()
        own.apply_chat_template = partial(_processed, own)
        return own
    loaded = AutoProcessor.from_pretrained(published)
    loaded.apply_chat_template = partial(loaded.apply_chat_template, **tiny.profile.chat_template_kwargs)
    return loaded


def _processed(processor: Any, asked: list[dict[str, Any]], **_: Any) -> Any:
    """What the others' `apply_chat_template` gives."""
    text = processor.tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    return processor(text=text, images=asked[0]["content"][0]["image"], return_tensors="pt")


async def _answer(tiny: DualFocus, picture: Image.Image, asked: str = _ASKED) -> Turn:
    question = Question.about(picture, asked, Mode.MACRO)
    sampling = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)
    return (await tiny.answer(replace(question, sampling=sampling))).turns["macro"]


def _as_shown(tiny: DualFocus, picture: Image.Image) -> Image.Image:
    """The picture as given; where the processor has another size for some, at the one that the server shows it at."""
    if tiny.profile.name not in _SHOWN_OTHERWISE or tiny.engine.views is None:
        return picture
    shown = Question.about(picture, "").picture.shown_at(tiny.engine.views.show_whole(picture.size))
    return tiny.engine.pictures.encoder_input(shown)


def _inputs(processor: Any, picture: Image.Image) -> Any:
    content = [{"type": "image", "image": picture}, {"type": "text", "text": _ASKED}]
    asked = [{"role": "user", "content": content}]
    options = {"tokenize": True, "return_dict": True, "return_tensors": "pt", "add_generation_prompt": True}
    return processor.apply_chat_template(asked, **options)


async def test_a_picture_is_answered_about(tiny: DualFocus, photo: Callable[[str], Image.Image]) -> None:
    turn = await _answer(tiny, photo("astronaut"))
    assert (turn.completion_tokens, turn.encoder_runs) == (12, 1)


@pytest.mark.parametrize("size", [(110, 110), (60, 40), (448, 448), (2000, 300)])
async def test_a_picture_takes_the_tokens_that_the_familys_processor_counts(
    tiny: DualFocus, processor: Any, photo: Callable[[str], Image.Image], size: tuple[int, int]
) -> None:
    picture = photo("coffee").resize(size)
    turn = await _answer(tiny, picture)
    expected = _inputs(processor, _as_shown(tiny, picture))["input_ids"][0].tolist()
    assert _image_tokens(turn, processor) == expected.count(_image_token(processor)) == turn.image_tokens > 0
    assert list(turn.prompt_token_ids) == expected, "and all the other tokens of the prompt"


async def test_the_answer_is_the_one_that_transformers_gives(
    tiny: DualFocus, family: str, published: Path, processor: Any, photo: Callable[[str], Image.Image]
) -> None:
    if family == _VLLMS_ALONE:
        pytest.skip("transformers has no such model")
    model = AutoModelForImageTextToText.from_pretrained(published, dtype=_DTYPE.get(family, "float32"))
    # Not the model's own sampling; an end may be written and ends nothing, as here.
    greedy = {"do_sample": False, "repetition_penalty": 1.0, "max_new_tokens": 12}
    model.generation_config.eos_token_id = None
    answers = set()
    for name in ("astronaut", "coffee"):
        inputs = _inputs(processor, _as_shown(tiny, photo(name)))
        if family == "gemma3":  # on a CPU vLLM lets a picture's tokens look backwards alone
            inputs["token_type_ids"] = torch.zeros_like(inputs["token_type_ids"])
        expected = model.generate(**inputs, **greedy)[0, inputs["input_ids"].shape[1] :]
        turn = await _answer(tiny, photo(name))
        same = len(expected) if model.dtype == torch.float32 else 1  # rounded, the two soon part
        assert list(turn.token_ids)[:same] == expected.tolist()[:same]
        answers.add(turn.token_ids)
    assert len(answers) == 2, "it looks at the picture"


@pytest.mark.parametrize("times", [1, 20])
async def test_another_question_about_a_picture_begins_behind_it_unless_a_long_one_hid_it(
    tiny: DualFocus, photo: Callable[[str], Image.Image], times: int
) -> None:
    picture = photo("coffee").resize((770 + times, 560))
    first = await _answer(tiny, picture, "What was here before? " * times)
    turn = await _answer(tiny, picture)
    config = tiny.engine.llm.vllm_config
    block, window = config.cache_config.block_size, config.model_config.hf_text_config.to_dict().get("sliding_window")
    # Layers with a state keep that of a prompt's last whole block alone, those with a window what stands in it.
    both = zip(first.prompt_token_ids, turn.prompt_token_ids, strict=False)
    shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], both))
    is_hidden = config.model_config.is_hybrid and (first.prompt_tokens - 1) // block * block > shared
    is_lost = is_hidden or first.prompt_tokens > (window or math.inf)
    assert turn.cached_tokens >= (0 if is_lost else (turn.image_tokens - 1) // block * block)
    assert (turn.cached_tokens == 0, turn.encoder_runs) == (is_lost, 0)


@contextmanager
def _asked_with(tiny: DualFocus, **changes: Any) -> Iterator[None]:
    """Ask with the family's profile in which a few things are otherwise."""
    engine, own = tiny.engine, tiny.engine.profile
    engine.profile = own.model_copy(update=changes)
    try:
        yield
    finally:
        engine.profile = own


async def _two_looks(tiny: DualFocus, picture: Image.Image, **options: Any) -> FocusResult:
    sampling = SamplingParams(temperature=0, max_tokens=4, ignore_eos=True)
    return await tiny.answer(replace(Question.about(picture, _ASKED), sampling=sampling, **options))


def _image_token(processor: Any) -> int:
    """The token that stands for each part of a picture; Gemma 3's processor calls the one before them so."""
    return int(getattr(processor.tokenizer, "image_token_id", None) or processor.image_token_id)


def _image_tokens(turn: Turn, processor: Any) -> int:
    return turn.prompt_token_ids.count(_image_token(processor))


async def test_a_box_in_the_familys_notation_is_looked_at_from_the_cached_prefix(
    tiny: DualFocus, processor: Any, photo: Callable[[str], Image.Image]
) -> None:
    picture = photo("coffee").resize((1600, 900))
    name = tiny.profile.name
    written = {"box": Box(0.25, 0.25, 0.5, 0.5)} if not tiny.profile.grounds else {}
    held = tiny.profile.box_format.model_copy(update={"grammar": re.escape(_WRITTEN.get(name, ""))})
    with _asked_with(tiny, box_format=held, crop=CropPolicy(square=False, margin=0)):
        result = await _two_looks(tiny, picture, **written)
    assert result.look.micro is not None, result.look.failed
    assert result.look.box is not None
    assert result.look.box.as_tuple() == pytest.approx((0.25, 0.25, 0.5, 0.5), abs=1e-3)
    assert result.look.crop_box is not None
    assert result.look.crop_box == pytest.approx(_WIDENED.get(name, (400, 225, 800, 450)), abs=1)
    assert sum(turn.encoder_runs or 0 for turn in result.turns.values()) == 2, "the picture once, and the crop"
    _assert_shared(result, processor, tiny.engine.llm.vllm_config.cache_config.block_size)
    # The crop's pixels: what the family's own processor makes no further change to.
    crop = Question.about(picture, "").picture.crop(result.look.crop_box)
    by_hand = picture.crop(result.look.crop_box)
    if tiny.engine.views is not None:
        crop = crop.shown_at(_SHOWN[name])
        by_hand = by_hand.resize(_SHOWN[name], Image.Resampling.BICUBIC)
    shown = tiny.engine.pictures.encoder_input(crop)
    assert shown.size == by_hand.size
    difference = np.abs(np.asarray(shown, int) - np.asarray(by_hand, int))
    assert difference.max() <= 2, "resized as Pillow does, but for a level here and there"
    assert (difference > 0).mean() < 0.01
    assert _tokens_by_hand(processor, shown) == _crop_tokens(result, processor)


def _assert_shared(result: FocusResult, processor: Any, block: int) -> None:
    """The micro turn continues the grounding turn from the cache; of a client's box two turns share the picture.

    Layers with a window, or with a state, share whole blocks in front of a prompt's last token.
    """
    micro, macro = result.turns["micro"], result.turns["macro"]
    if (grounding := result.turns.get("grounding")) is None:
        shared = sum(one == other for one, other in zip(micro.prompt_token_ids, macro.prompt_token_ids, strict=False))
        assert shared > _image_tokens(macro, processor)
        assert max(micro.cached_tokens, macro.cached_tokens) >= (_image_tokens(macro, processor) - 1) // block * block
        return
    assert micro.cached_tokens >= (grounding.prompt_tokens - 1) // block * block
    assert micro.prompt_token_ids[: grounding.prompt_tokens] == grounding.prompt_token_ids


def _crop_tokens(result: FocusResult, processor: Any) -> int:
    return _image_tokens(result.turns["micro"], processor) - _image_tokens(result.turns["macro"], processor)


def _tokens_by_hand(processor: Any, shown: Image.Image) -> int:
    """The image tokens that the family's own processor makes of what the encoder is shown; it must not resize it."""
    inputs = _inputs(processor, shown)
    if "image_grid_thw" in inputs:
        _, rows, columns = inputs["image_grid_thw"][0].tolist()
        patch = processor.image_processor.patch_size
        assert (columns * patch, rows * patch) == shown.size
    return int(inputs["input_ids"][0].tolist().count(_image_token(processor)))


@pytest.mark.parametrize("size", [(60, 40), (300, 300), (2000, 300)])
async def test_a_crop_takes_the_tokens_that_the_views_say(
    tiny: DualFocus, processor: Any, photo: Callable[[str], Image.Image], size: tuple[int, int]
) -> None:
    picture = photo("coffee").resize((2400, 1200))
    box = Box(0.05, 0.1, 0.05 + size[0] / 2400, 0.1 + size[1] / 1200)
    with _asked_with(tiny, crop=CropPolicy(square=False, margin=0)):
        result = await _two_looks(tiny, picture, box=box, whole_tokens=1024)
    views, tokens = tiny.engine.views, _crop_tokens(result, processor)
    assert result.look.crop_box is not None
    if views is None or views.crop.most is None:
        # The processor decides.
        shown = picture.crop(result.look.crop_box)
        if views is not None:
            shown = shown.resize(views.show_crop(shown.size, 1.0))
        assert tokens == _tokens_by_hand(processor, shown)
    else:
        assert (views.crop.least or 0) <= tokens <= views.crop.most
    crop = result.look.crop_box
    assert (crop.left, crop.top) <= (120, 120)
    assert crop.right - crop.left >= size[0] - 1
    assert crop.bottom - crop.top >= size[1] - 1


async def test_a_very_large_picture_is_answered_by_two_looks_and_said_to_be_smaller_where_the_context_demands_it(
    tiny: DualFocus, family: str, processor: Any, photo: Callable[[str], Image.Image]
) -> None:
    if family.endswith("-moe"):
        pytest.skip("pictures are those of its dense form, which is shown one")
    picture = photo("coffee").resize((4000, 3000))
    result = await _two_looks(tiny, picture, box=Box(0.3, 0.3, 0.4, 0.4))
    assert result.look.micro is not None, result.look.failed
    context = tiny.engine.context_length
    assert result.look.micro.prompt_tokens < context
    assert result.macro is not None
    views, whole = tiny.engine.views, _image_tokens(result.macro, processor)
    needed = views.tokens(views.show_whole(picture.size)) if views else _tokens_by_hand(processor, picture)
    # All but the crop, an answer, the box and the wording: nothing is taken from a picture that the context could hold.
    room = context - 1280 - 1024 - max(tiny.profile.max_box_tokens, 128) - 700
    assert (whole < needed, len(result.notes)) == ((True, 1) if views and needed > room else (False, 0))
    assert whole >= min(needed, room)


async def test_a_part_that_would_be_shown_no_larger_is_not_looked_at(
    tiny: DualFocus, photo: Callable[[str], Image.Image]
) -> None:
    if tiny.engine.views is None:
        pytest.skip("how large its processor shows a picture is not known")
    result = await _two_looks(tiny, photo("coffee").resize((1600, 900)), box=Box(0, 0, 1, 1), crop_tokens=256)
    assert (result.selection, result.look.micro) == (Selection.NOTHING_TO_ENLARGE, None)
    assert set(result.turns) == {"macro"}
