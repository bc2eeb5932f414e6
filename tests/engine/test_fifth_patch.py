"""LLaVA-HighRes on real vLLM: pictures in patches joined flat, the crop as one more of them, and what that costs."""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import pytest
import torch
from dualfocus_engine import Box, DualFocus, FocusResult, Question, Turn
from dualfocus_engine.conversion.convert import convert, plan
from PIL import Image
from vllm import SamplingParams

from tests.unit.conversion.conversations import original_ids
from tests.unit.conversion.original import (
    VOCABULARY,
    config,
    inside,
    language_weights,
    projector_weights,
    tower_weights,
    write_checkpoint,
)
from tests.unit.conversion.plain_forward import IMAGE, flat_logits

pytestmark = pytest.mark.slow
SIDE, PATCH_TOKENS = 336, 576
GRID = (2 * SIDE, 2 * SIDE)
LANGUAGE, TOWER = language_weights() | projector_weights(), tower_weights(side=SIDE)
BOX = Box(0.25, 0.25, 0.5, 0.5)
# Of 800 x 600 pixels: the box's square, and the margin of 25 pixels.
CROP = (175, 100, 425, 350)
Shown = tuple[Image.Image, ...]  # a picture, and its crop where it has one
QUESTIONS = ("What color is the dog?", "Où est le chat ?", "Which is left?\nA. a cup\nB. a fork", "Is it 12:45?", "A")


@pytest.fixture(scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory, small_engine: dict[str, Any]) -> AsyncIterator[DualFocus]:
    """A checkpoint in LLaVA's format, converted and served with its own profile; its vision tower is watched."""
    folder = tmp_path_factory.mktemp("high-res")
    tiles = {"image_aspect_ratio": "anyres", "image_grid_pinpoints": [GRID], "unfreeze_mm_vision_tower": True}
    fields = config("/nowhere/clip", **tiles, max_position_embeddings=8192)  # two pictures have 6,000 tokens
    source = write_checkpoint(folder / "original", fields, LANGUAGE | inside(TOWER))
    convert(plan(str(source)), folder / "model", lambda done: None)
    probe = "encoder_probe.EncoderProbe"
    async with DualFocus(str(folder / "model"), worker_extension_cls=probe, **small_engine) as running:
        await running.engine.llm.collective_rpc("watch_vision_tower")
        yield running


@pytest.fixture
def picture(photo: Callable[[str], Image.Image]) -> Image.Image:
    return photo("coffee").resize((800, 600), Image.Resampling.BICUBIC)


async def _two_looks(served: DualFocus, picture: Image.Image, asked: str, **given: Any) -> FocusResult:
    sampling = SamplingParams(temperature=0, max_tokens=6, ignore_eos=True)
    return await served.answer(replace(Question.about(picture, asked), sampling=sampling, **given))


async def _patches_seen(served: DualFocus) -> int:
    (patches,) = await served.engine.llm.collective_rpc("encoded_images")
    return int(patches)


async def test_a_question_costs_five_patches_and_six_and_micro_begins_anew_at_the_picture(
    served: DualFocus, picture: Image.Image
) -> None:
    before = await _patches_seen(served)
    grammar = served.profile.box_format.model_copy(update={"grammar": r"\[0\.25, 0\.25, 0\.50, 0\.50\]"})
    own, served.engine.profile = served.engine.profile, served.profile.model_copy(update={"box_format": grammar})
    try:
        result = await _two_looks(served, picture, QUESTIONS[0])
    finally:
        served.engine.profile = own
    turns = result.turns
    assert result.look.crop_box == CROP
    assert [turns[name].image_tokens // PATCH_TOKENS for name in ("macro", "grounding", "micro")] == [5, 5, 6]
    texts = {name: len([id for id in _folded(turn) if id != IMAGE]) for name, turn in turns.items()}
    for name, patches in (("macro", 5), ("grounding", 5), ("micro", 6)):
        assert turns[name].prompt_tokens == patches * PATCH_TOKENS + texts[name]
    # Macro and grounding share the picture; micro shares what stands in front of it, and encodes all six patches.
    block = served.engine.llm.vllm_config.cache_config.block_size
    in_front = turns["micro"].prompt_token_ids.index(VOCABULARY)
    shared = max(turns["macro"].cached_tokens, turns["grounding"].cached_tokens)
    assert shared >= (in_front + 5 * PATCH_TOKENS) // block * block
    assert turns["micro"].cached_tokens == in_front // block * block
    assert sum(turn.encoder_runs or 0 for turn in turns.values()) == 2
    assert await _patches_seen(served) - before == 5 + 6


async def test_all_turns_have_the_log_probabilities_of_a_plain_forward(served: DualFocus, picture: Image.Image) -> None:
    for asked in QUESTIONS:
        result = await _two_looks(served, picture, asked, box=BOX)
        macro, micro = result.turns["macro"], result.turns["micro"]
        opening = f"<s>{served.profile.system} USER: <image>\n"
        assert _folded(macro) == original_ids(f"{opening}{asked} ASSISTANT:")
        grounding, following = served.profile.grounding_text(asked), served.profile.micro_text(asked)
        written = "[0.25, 0.25, 0.50, 0.50]</s>"
        assert _folded(micro) == original_ids(f"{opening}{grounding} ASSISTANT: {written}USER: {following} ASSISTANT:")
        await _assert_plain(served, macro, [(picture,)])
        await _assert_plain(served, micro, [(picture, picture.crop(CROP))])


async def test_the_comparison_can_fail(served: DualFocus, picture: Image.Image) -> None:
    micro = (await _two_looks(served, picture, QUESTIONS[0], box=BOX)).turns["micro"]
    crop = picture.crop(CROP)
    for other in ((picture, picture.crop((0, 0, 250, 250))), (crop, picture)):
        with pytest.raises(AssertionError, match="not close"):
            await _assert_plain(served, micro, [(picture, crop)], seen=[other])


@pytest.mark.parametrize("zoomed", [0, 1])
async def test_of_two_pictures_the_one_that_is_zoomed_has_the_crop(
    served: DualFocus, picture: Image.Image, zoomed: int
) -> None:
    both = [picture, picture.rotate(180)]
    message = replace(
        Question.about(picture, QUESTIONS[0]).messages[0],
        pictures=tuple(Question.about(one, "").picture for one in both),
    )
    result = await _two_looks(served, picture, QUESTIONS[0], messages=(message,), image_index=zoomed, box=BOX)
    block = served.engine.llm.vllm_config.cache_config.block_size
    in_front = _folded(result.turns["micro"]).index(IMAGE)
    patches = [6 if place == zoomed else 5 for place in (0, 1)]
    assert result.turns["micro"].image_tokens == sum(patches) * PATCH_TOKENS
    # A picture in front of the one that is zoomed is shared too.
    shared = in_front + (5 * PATCH_TOKENS if zoomed else 0)
    assert result.turns["micro"].cached_tokens >= shared // block * block
    shown = [(one, one.crop(CROP)) if place == zoomed else (one,) for place, one in enumerate(both)]
    await _assert_plain(served, result.turns["micro"], shown)


def _folded(turn: Turn) -> list[int]:
    """A prompt's tokens with one mark for each picture."""
    grouped = ((id, list(run)) for id, run in groupby(turn.prompt_token_ids))
    return [one for id, run in grouped for one in ([IMAGE] if id == VOCABULARY else run)]


async def _assert_plain(
    served: DualFocus, turn: Turn, shown: Sequence[Shown], seen: Sequence[Shown] | None = None
) -> None:
    """Hold a turn to the plain forward of `seen`, what it shows where nothing else is named.

    That is: what it said of each token of its answer, and what vLLM says of each token of its prompt.
    """
    answered = [*turn.prompt_token_ids, *turn.token_ids]
    scores = flat_logits(LANGUAGE, TOWER, [*_folded(turn), *turn.token_ids], seen or shown, GRID, SIDE)
    # The rows that the conversion adds are the mean of the others.
    longer = torch.cat([scores, scores.mean(1, keepdim=True).expand(-1, 448 - VOCABULARY)], dim=1)
    expected = longer.log_softmax(-1)[torch.arange(len(answered) - 1), answered[1:]]
    of_prompt = await _prompt_logprobs(served, turn, shown)
    # A grey level, here and there, between torchvision's resizing and Pillow's.
    torch.testing.assert_close(torch.tensor([*of_prompt, *turn.logprobs]), expected, atol=0.01, rtol=0)


async def _prompt_logprobs(served: DualFocus, turn: Turn, shown: Sequence[Shown]) -> list[float]:
    """Log-probabilities of a turn's prompt after its first token, asked anew by the pictures themselves."""
    ids = [VOCABULARY if id == IMAGE else id for id in _folded(turn)]
    images = [one if len(one) > 1 else one[0] for one in shown]
    params = SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=0)
    prompt = {"prompt_token_ids": ids, "multi_modal_data": {"image": images}}
    async for output in served.engine.llm.generate(prompt, params, f"scored-{id(turn)}"):
        last = output
    assert tuple(last.prompt_token_ids) == turn.prompt_token_ids
    scores = zip(last.prompt_logprobs[1:], last.prompt_token_ids[1:], strict=True)
    return [choices[token].logprob for choices, token in scores]
