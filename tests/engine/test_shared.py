"""Both answers scored under one prompt: from the cache, and as if there were none."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from dualfocus_engine import DualFocus, Question, Scoring, Selection
from dualfocus_engine.machine.platform import is_cpu_build
from dualfocus_engine.method.prompts import Prompt
from dualfocus_engine.method.results import Mode, Score
from dualfocus_engine.method.turn_engine import TurnRequest
from PIL import Image
from vllm import RequestOutput, SamplingParams

Photo = Callable[[str], Image.Image]
# On a GPU attention in float32 multiplies with ten bits (TF32), and sums up in an order that the batch decides.
EXACT = 1e-4 if is_cpu_build() else 1e-2


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
    assert shared.micro.logprobs == pytest.approx(micro.logprobs, abs=EXACT)
    assert len(shared.macro.logprobs) == macro.completion_tokens
    assert result.winner == ("macro" if shared.macro.mean_nll < shared.micro.mean_nll else "micro")
    assert result.selection is Selection.LOWER_PERPLEXITY
    block = focus.engine.llm.vllm_config.cache_config.block_size
    # What is cached up to the answer's first token says nothing about that token: then all is computed again.
    reused = 0 if micro.prompt_tokens % block == 0 else micro.prompt_tokens // block * block
    assert shared.macro.cached_tokens == reused


@pytest.mark.parametrize("tokens", [3, 70])
async def test_scores_are_exact_whatever_of_the_answer_is_cached(
    focus: DualFocus, photo: Photo, tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer of more than a block stands in the cache itself once it was written there.

    Logits are those of the answer and of less than a block before it, never of the whole prompt.
    """
    engine, run = focus.engine, focus.engine._run_to_end
    picture = Question.about(photo("camera"), "What is it?", Mode.MACRO)
    prompt = await engine.prompt(picture.messages)
    sampling = SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True)
    written = await engine.generate(TurnRequest("a", prompt, sampling))
    outputs: list[RequestOutput] = []

    async def spy(request: TurnRequest, rendered: Any) -> RequestOutput:
        outputs.append(await run(request, rendered))
        return outputs[-1]

    monkeypatch.setattr(engine, "_run_to_end", spy)
    score = await engine.score("a", prompt, written.token_ids)
    assert score is not None
    block = engine.llm.vllm_config.cache_config.block_size
    in_cache = (written.prompt_tokens + tokens - 1) // block * block >= written.prompt_tokens
    assert score.cached_tokens == (0 if in_cache else written.prompt_tokens // block * block)
    assert len(outputs) == (3 if in_cache else 1)
    for output in outputs:
        if output.prompt_logprobs is not None:
            assert len(output.prompt_token_ids) - output.num_cached_tokens <= block + tokens
    forced = [logprob for _, logprob in await _forced(focus, prompt.opened(written.token_ids))][-tokens:]
    assert score.logprobs == pytest.approx(forced, abs=EXACT)
    assert score.logprobs == pytest.approx(written.logprobs, abs=EXACT)


async def test_the_released_loss_is_the_mean_over_box_and_answer_of_one_pass(
    focus: DualFocus, photo: Photo, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, score = focus.engine, focus.engine.score
    scored: dict[str, tuple[Prompt, Sequence[int]]] = {}

    async def spy(name: str, prompt: Prompt, answer: Sequence[int]) -> Score | None:
        scored[name] = prompt, answer
        return await score(name, prompt, answer)

    monkeypatch.setattr(engine, "score", spy)
    question = Question.about(photo("astronaut"), "What is on the badge?")
    result = await focus.answer(replace(question, scoring=Scoring.RELEASED))
    assert result.shared is not None
    monkeypatch.undo()
    before_box, box = scored["grounding"]
    begin = len((await engine.engine_input(before_box))["prompt_token_ids"])
    for name, told in zip(("macro", "micro"), result.shared, strict=True):
        prompt, answer = scored[name]
        assert answer[-1] == box[-1] == engine.closing_token
        whole = await _forced(focus, prompt.opened(answer))
        both = [*whole[begin : begin + len(box)], *whole[-len(answer) :]]
        assert [token for token, _ in both] == [*box, *answer]
        assert told.mean_nll == pytest.approx(-sum(logprob for _, logprob in both) / len(both), abs=EXACT)


async def _forced(focus: DualFocus, prompt: Prompt) -> list[tuple[int, float]]:
    """Each token of a prompt with its log-probability, computed at once; the first one's is no matter."""
    rendered = await focus.engine.engine_input(prompt)
    sampling = SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=0, skip_reading_prefix_cache=True)
    async for output in focus.engine.llm.generate(rendered, sampling, "forced"):
        ids, scores = output.prompt_token_ids, output.prompt_logprobs
    return [(ids[0], 0.0), *((id, each[id].logprob) for id, each in zip(ids[1:], scores[1:], strict=True))]


async def test_an_answer_that_fills_the_context_has_no_score(focus: DualFocus, photo: Photo) -> None:
    prompt = await focus.engine.prompt(Question.about(photo("camera"), "What is it?").messages)
    assert await focus.engine.score("a", prompt, [5] * focus.engine.context_length) is None
