"""Both answers scored under one prompt: from the cache, and as if there were none."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from dualfocus_engine import DualFocus, Question, Scoring, Selection
from dualfocus_engine.method.results import Mode
from dualfocus_engine.method.turn_engine import TurnRequest
from PIL import Image
from vllm import SamplingParams

Photo = Callable[[str], Image.Image]


@pytest.mark.parametrize("asked", ["What is on the badge?", "What is on the badge ?", "What is on her badge?"])
async def test_shared_scores_equal_those_of_the_turns_they_share(focus: DualFocus, photo: Photo, asked: str) -> None:
    # Both answers are cut alike: one that is whole would win over one that is not.
    sampling = SamplingParams(temperature=0, max_tokens=32, ignore_eos=True)
    question = replace(Question.about(photo("astronaut"), asked), scoring=Scoring.SHARED, sampling=sampling)
    result = await focus.answer(question)
    macro, micro, shared = result.macro, result.look.micro, result.shared
    assert macro is not None
    assert micro is not None
    assert shared is not None
    # The profile has no words of its own for it: what is shared is the micro turn's prompt.
    assert shared.micro.logprobs == pytest.approx(micro.logprobs, abs=1e-4)
    assert len(shared.macro.logprobs) == macro.completion_tokens
    assert result.winner == ("macro" if shared.macro.mean_nll < shared.micro.mean_nll else "micro")
    assert result.selection is Selection.LOWER_PERPLEXITY
    block = focus.engine.llm.vllm_config.cache_config.block_size
    # What is cached up to the answer's first token says nothing about that token: then all is computed again.
    reused = 0 if micro.prompt_tokens % block == 0 else micro.prompt_tokens // block * block
    assert shared.macro.cached_tokens == reused


@pytest.mark.parametrize("tokens", [3, 70])
async def test_cached_scores_are_exact_whatever_of_the_answer_is_cached(
    focus: DualFocus, photo: Photo, tokens: int
) -> None:
    """An answer of more than a block stands in the cache itself once it was written there."""
    engine = focus.engine
    picture = Question.about(photo("camera"), "What is it?", Mode.MACRO)
    prompt = await engine.prompt(picture.messages)
    sampling = SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True)
    written = await engine.generate(TurnRequest("a", prompt, sampling))
    cached = await engine.score("a", prompt, written.token_ids, cached=True)
    afresh = await engine.score("a", prompt, written.token_ids, cached=False)
    assert cached is not None
    assert afresh is not None
    assert afresh.cached_tokens == 0
    assert cached.logprobs == pytest.approx(afresh.logprobs, abs=1e-4)
    assert cached.logprobs == pytest.approx(written.logprobs, abs=1e-4)


async def test_an_answer_that_fills_the_context_has_no_score(focus: DualFocus, photo: Photo) -> None:
    prompt = await focus.engine.prompt(Question.about(photo("camera"), "What is it?").messages)
    assert await focus.engine.score("a", prompt, [5] * focus.engine.context_length, cached=True) is None
