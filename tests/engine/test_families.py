"""Each family's architecture on real vLLM: pictures are put to it as the family's own processor puts them."""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest
from dualfocus_engine import DualFocus, Mode, Question, Turn
from dualfocus_training.models.families import FAMILIES, ensure_tiny
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor
from vllm import SamplingParams

# `make test` starts one of them; an engine costs 20 s and more.
_FIRST = "qwen2.5-vl"
_ALL = [family if family == _FIRST else pytest.param(family, marks=pytest.mark.slow) for family in FAMILIES]
_ASKED = "What is this?"


@pytest.fixture(scope="module", params=_ALL)
async def tiny(request: pytest.FixtureRequest) -> AsyncIterator[DualFocus]:
    """The tiny model of a family, in full precision."""
    async with DualFocus(str(ensure_tiny(request.param)), dtype="float32") as running:
        yield running


@pytest.fixture(scope="module")
def processor(tiny: DualFocus) -> Any:
    return AutoProcessor.from_pretrained(tiny.model)


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
    assert image_tokens == expected.count(processor.image_token_id) > 0
    assert list(turn.prompt_token_ids) == expected, "and all the other tokens of the prompt"


async def test_the_answer_is_the_one_that_transformers_gives(
    tiny: DualFocus, processor: Any, photo: Callable[[str], Image.Image]
) -> None:
    model = AutoModelForImageTextToText.from_pretrained(tiny.model, dtype="float32")
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
