"""What a question costs beside the least that it can (docs/performance.md, the floor)."""

from collections.abc import Callable
from os.path import commonprefix
from pathlib import Path

import pytest
from dualfocus_engine import DualFocus, FocusResult, Mode, Question
from dualfocus_training.models.untrained import write_untrained
from PIL import Image

Photo = Callable[[str], Image.Image]
IMAGE_TOKENS = 64


def floor(result: FocusResult, *before: FocusResult) -> int:
    """Prompt tokens that two looks have to compute: what no earlier turn holds, of this question or those before."""
    known = [turn.prompt_token_ids + turn.token_ids for earlier in before for turn in earlier.turns.values()]
    total = 0
    for turn in result.turns.values():
        prompt = turn.prompt_token_ids
        total += len(prompt) - max((len(commonprefix([prompt, text])) for text in known), default=0)
        known.append(prompt + turn.token_ids)
    return total


def computed(result: FocusResult) -> int:
    return sum(turn.computed_tokens for turn in result.turns.values())


def runs(result: FocusResult) -> int:
    return sum(turn.encoder_runs or 0 for turn in result.turns.values())


@pytest.mark.parametrize("number", range(4))
async def test_two_looks_compute_little_more_than_they_have_to(focus: DualFocus, photo: Photo, number: int) -> None:
    picture = photo(["camera", "coffee", "rocket", "page"][number]).rotate(180)
    fresh = await focus.ask(picture, f"What is behind number {number}?")
    known = await focus.ask(picture, f"Who stands beside number {number}?")
    block = focus.engine.llm.vllm_config.cache_config.block_size
    for result, least in ((fresh, floor(fresh)), (known, floor(known, fresh))):
        assert least <= computed(result) <= 1.05 * least + block * len(result.turns)
    assert floor(fresh) - floor(known, fresh) >= IMAGE_TOKENS
    assert (runs(fresh), runs(known)) == (2, 1)


async def test_an_answer_takes_a_step_a_token_and_one_for_its_prompt(focus: DualFocus, photo: Photo) -> None:
    macro = (await focus.ask(photo("coffee").rotate(90), "What is it?", Mode.MACRO)).turns["macro"]
    assert macro.engine_steps == macro.completion_tokens


async def test_turns_asked_apart_compute_the_image_again_without_a_cache(focus: DualFocus, photo: Photo) -> None:
    """What a client pays that makes the three calls itself to an engine without prefix caching."""
    result = await focus.ask(photo("chelsea").rotate(90), "What animal is it?")
    apart = sum(turn.prompt_tokens for turn in result.turns.values())
    assert apart - floor(result) >= 2 * IMAGE_TOKENS


async def test_a_repeated_question_computes_blocks_that_are_not_whole(focus: DualFocus, photo: Photo) -> None:
    question = Question.about(photo("page").rotate(90), "What is written?")
    await focus.answer(question)
    again = await focus.answer(question)
    block = focus.engine.llm.vllm_config.cache_config.block_size
    assert all(turn.computed_tokens <= block for turn in again.turns.values())
    assert runs(again) == 0


async def test_questions_at_once_compute_no_more_than_one_alone(tmp_path: Path, photo: Photo) -> None:
    """Pictures of LLaVA-1.5's 576 tokens, of which a step has room for three: the rest begin in pieces.

    The encoder's output is kept for fourteen: a macro turn that came behind other questions' groundings would find
    its picture's gone.
    """
    write_untrained(tmp_path, side=336)
    small = {"kv_cache_memory_bytes": 1 << 29, "enforce_eager": True}
    async with DualFocus(str(tmp_path), max_num_batched_tokens=2048, **small) as focus:
        block = focus.engine.llm.vllm_config.cache_config.block_size
        views = [photo("coffee").rotate(10 * number) for number in range(32)]
        results = await focus.ask_many([Question.about(view, "What is it?") for view in views])
    assert all(computed(result) <= 1.05 * floor(result) + block * len(result.turns) for result in results)
    assert [runs(result) for result in results] == [2] * len(results)
