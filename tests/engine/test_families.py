"""Each family's architecture on real vLLM: pictures and crops are put to it as the family's own processor puts them."""

import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from dualfocus_engine import Box, DualFocus, FocusResult, Mode, Question, Selection, Turn
from dualfocus_engine.families.boxes import CropPolicy
from dualfocus_training.models.families import FAMILIES, ensure_tiny
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor
from vllm import SamplingParams

# `make test` starts one of them; an engine costs 20 s and more.
_FIRST = "qwen2.5-vl"
_ALL = [family if family == _FIRST else pytest.param(family, marks=pytest.mark.slow) for family in FAMILIES]
_ASKED = "What is this?"
_CONTEXT = 8192
_BLOCK = 16
# This form's configuration is code of its repository. It has no processor of its own: vLLM's is compared with that of
# the other form, which has the same weights and tokens.
_FLAGS = {"internvl-chat": {"trust_remote_code": True}}
_COMPARED_WITH = {"internvl-chat": "internvl"}
# The same box as each family writes it, of a picture of 1600 x 900; Qwen2.5-VL's is shown that at 1596 x 896.
_WRITTEN = {
    "qwen2.5-vl": '```json\n[{"bbox_2d": [399, 224, 798, 448], "label": "it"}]\n```',
    "qwen3-vl": '```json\n[{"bbox_2d": [250, 250, 500, 500], "label": "it"}]\n```',
    "internvl": "it[[250, 250, 500, 500]]",
}
# What its crop of 400 x 225 is shown at (for InternVL 450 x 225): 256 tokens, and twice its area in the whole picture.
_SHOWN = {"qwen2.5-vl": (616, 336), "qwen3-vl": (704, 384), "internvl": (896, 448)}


@pytest.fixture(scope="module", params=_ALL)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
async def tiny(family: str) -> AsyncIterator[DualFocus]:
    """The tiny model of a family, in full precision."""
    small = {"dtype": "float32", "max_model_len": _CONTEXT, "kv_cache_memory_bytes": 1 << 29}
    async with DualFocus(str(ensure_tiny(family)), **small, **_FLAGS.get(family, {})) as running:
        yield running


@pytest.fixture(scope="module")
def published(family: str) -> Path:
    """The folder that transformers itself can load."""
    return ensure_tiny(_COMPARED_WITH.get(family, family))


@pytest.fixture(scope="module")
def processor(published: Path) -> Any:
    return AutoProcessor.from_pretrained(published)


async def _answer(tiny: DualFocus, picture: Image.Image) -> Turn:
    question = Question.about(picture, _ASKED, Mode.MACRO)
    sampling = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)
    return (await tiny.answer(replace(question, sampling=sampling))).turns["macro"]


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
    expected = _inputs(processor, picture)["input_ids"][0].tolist()
    image_tokens = turn.prompt_token_ids.count(processor.image_token_id)
    assert image_tokens == expected.count(processor.image_token_id) == turn.image_tokens > 0
    assert list(turn.prompt_token_ids) == expected, "and all the other tokens of the prompt"


async def test_the_answer_is_the_one_that_transformers_gives(
    tiny: DualFocus, published: Path, processor: Any, photo: Callable[[str], Image.Image]
) -> None:
    model = AutoModelForImageTextToText.from_pretrained(published, dtype="float32")
    # Not the model's own sampling.
    greedy = {"do_sample": False, "repetition_penalty": 1.0, "max_new_tokens": 12, "min_new_tokens": 12}
    answers = set()
    for name in ("astronaut", "coffee"):
        inputs = _inputs(processor, photo(name))
        expected = model.generate(**inputs, **greedy)[0, inputs["input_ids"].shape[1] :]
        turn = await _answer(tiny, photo(name))
        assert list(turn.token_ids) == expected.tolist()
        answers.add(turn.token_ids)
    assert len(answers) == 2, "it looks at the picture"


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


def _image_tokens(turn: Turn, processor: Any) -> int:
    return turn.prompt_token_ids.count(processor.image_token_id)


async def test_a_box_in_the_familys_notation_is_looked_at_from_the_cached_prefix(
    tiny: DualFocus, processor: Any, photo: Callable[[str], Image.Image]
) -> None:
    picture = photo("coffee").resize((1600, 900))
    grammar = re.escape(_WRITTEN[tiny.profile.name])
    held = tiny.profile.box_format.model_copy(update={"grammar": grammar})
    with _asked_with(tiny, box_format=held, crop=CropPolicy(square=False, margin=0)):
        result = await _two_looks(tiny, picture)
    assert result.look.micro is not None, result.look.failed
    assert result.look.box is not None
    assert result.look.box.as_tuple() == pytest.approx((0.25, 0.25, 0.5, 0.5), abs=1e-3)
    assert result.look.crop_box is not None
    # InternVL's is as wide as two tiles side by side, around the box's middle.
    left, right = (375, 825) if tiny.profile.name == "internvl" else (400, 800)
    assert result.look.crop_box == pytest.approx((left, 225, right, 450), abs=1)
    grounding, micro = result.turns["grounding"], result.turns["micro"]
    assert micro.cached_tokens >= grounding.prompt_tokens // _BLOCK * _BLOCK
    assert micro.prompt_token_ids[: grounding.prompt_tokens] == grounding.prompt_token_ids
    assert _image_tokens(micro, processor) > _image_tokens(grounding, processor)
    # The crop's pixels: what the family's own processor makes no further change to.
    crop = Question.about(picture, "").picture.crop(result.look.crop_box)
    size = _SHOWN[tiny.profile.name]
    shown = tiny.engine.pictures.encoder_input(crop.shown_at(size))
    by_hand = picture.crop(result.look.crop_box).resize(size, Image.Resampling.BICUBIC)
    assert (shown.size, shown.tobytes()) == (size, by_hand.tobytes())
    assert _tokens_by_hand(processor, shown) == _image_tokens(micro, processor) - _image_tokens(grounding, processor)


def _tokens_by_hand(processor: Any, shown: Image.Image) -> int:
    """The image tokens that the family's own processor makes of what the encoder is shown; it must not resize it."""
    inputs = _inputs(processor, shown)
    if "image_grid_thw" in inputs:
        _, rows, columns = inputs["image_grid_thw"][0].tolist()
        patch = processor.image_processor.patch_size
        assert (columns * patch, rows * patch) == shown.size
    return int(inputs["input_ids"][0].tolist().count(processor.image_token_id))


@pytest.mark.parametrize("size", [(60, 40), (300, 300), (2000, 300)])
async def test_a_crop_takes_the_tokens_that_the_views_say(
    tiny: DualFocus, processor: Any, photo: Callable[[str], Image.Image], size: tuple[int, int]
) -> None:
    picture = photo("coffee").resize((2400, 1200))
    box = Box(0.05, 0.1, 0.05 + size[0] / 2400, 0.1 + size[1] / 1200)
    with _asked_with(tiny, crop=CropPolicy(square=False, margin=0)):
        result = await _two_looks(tiny, picture, box=box, whole_tokens=1024)
    views = tiny.engine.views
    assert views is not None
    tokens = _image_tokens(result.turns["micro"], processor) - _image_tokens(result.turns["macro"], processor)
    assert (views.crop.least or 0) <= tokens <= (views.crop.most or 0)
    assert result.look.crop_box is not None
    crop = result.look.crop_box
    assert (crop.left, crop.top) <= (120, 120)
    assert crop.right - crop.left >= size[0] - 1
    assert crop.bottom - crop.top >= size[1] - 1


async def test_a_picture_larger_than_the_context_is_answered_by_two_looks_and_said_to_be_smaller(
    tiny: DualFocus, processor: Any, photo: Callable[[str], Image.Image]
) -> None:
    picture = photo("coffee").resize((4000, 3000))
    result = await _two_looks(tiny, picture, box=Box(0.3, 0.3, 0.4, 0.4))
    assert result.look.micro is not None, result.look.failed
    assert result.look.micro.prompt_tokens < _CONTEXT
    assert result.macro is not None
    views, whole = tiny.engine.views, _image_tokens(result.macro, processor)
    assert views is not None
    needed = views.tokens(views.show_whole(picture.size))
    assert (whole < needed, len(result.notes)) == ((True, 1) if needed > _CONTEXT else (False, 0))
    # Nothing is taken from the picture that the context could hold: all but the crop, an answer and the wording.
    assert whole >= min(needed, _CONTEXT - 1280 - 1024 - 800)


async def test_a_part_that_would_be_shown_no_larger_is_not_looked_at(
    tiny: DualFocus, photo: Callable[[str], Image.Image]
) -> None:
    result = await _two_looks(tiny, photo("coffee").resize((1600, 900)), box=Box(0, 0, 1, 1), crop_tokens=256)
    assert (result.selection, result.look.micro) == (Selection.NOTHING_TO_ENLARGE, None)
    assert set(result.turns) == {"macro"}
