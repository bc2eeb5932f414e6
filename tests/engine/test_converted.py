"""A converted checkpoint on real vLLM gives the log-probabilities of its original weights."""

from collections.abc import AsyncIterator

import pytest
import torch
from dualfocus_engine import DualFocus
from dualfocus_engine.conversion.convert import convert, plan
from vllm import SamplingParams

from tests.unit.conversion.conversations import Asked, conversations, original_ids
from tests.unit.conversion.original import (
    VOCABULARY,
    config,
    inside,
    language_weights,
    projector_weights,
    tower_weights,
    write_checkpoint,
)
from tests.unit.conversion.plain_forward import IMAGE, logits

pytestmark = pytest.mark.slow
_IMAGE_TOKENS = 16
_LANGUAGE = language_weights() | projector_weights()


@pytest.fixture(scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[DualFocus]:
    """A DualFocus checkpoint with its tower inside, converted, served with its own dualfocus.yaml."""
    folder = tmp_path_factory.mktemp("converted")
    source = write_checkpoint(
        folder / "original", config("/nowhere/clip"), _LANGUAGE | inside(tower_weights()), bins=True
    )
    convert(plan(str(source)), folder / "model", lambda done: None)
    small = {"dtype": "float32", "max_model_len": 2048, "kv_cache_memory_bytes": 1 << 29}
    async with DualFocus(str(folder / "model"), **small) as running:
        yield running


async def test_twenty_conversations_have_the_original_logprobs(served: DualFocus) -> None:
    for number, asked in enumerate(conversations()):
        found, tokens = await _served_logprobs(served, asked, str(number))
        expected = _original_logprobs(asked, tokens)
        # One grey level, here and there, between torchvision's resizing and Pillow's: within what bfloat16 rounds.
        torch.testing.assert_close(found, expected, atol=0.05, rtol=0)


async def test_a_question_is_asked_in_its_own_words(served: DualFocus) -> None:
    assert served.profile.name == "llava-dualfocus"
    result = await served.ask(conversations()[0].pictures[0], "What is this?")
    assert result.macro.prompt_tokens > _IMAGE_TOKENS


async def _served_logprobs(served: DualFocus, asked: Asked, name: str) -> tuple[torch.Tensor, list[int]]:
    """Log-probabilities of a prompt's tokens after the first, and the tokens."""
    prompt = {"prompt": asked.text.removeprefix("<s>"), "multi_modal_data": {"image": asked.pictures}}
    params = SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=0)
    async for output in served.engine.llm.generate(prompt, params, name):
        last = output
    tokens = list(last.prompt_token_ids)
    given = [scores[token].logprob for scores, token in zip(last.prompt_logprobs[1:], tokens[1:], strict=True)]
    return torch.tensor(given), tokens


def _original_logprobs(asked: Asked, tokens: list[int]) -> torch.Tensor:
    """The same by the plain forward; its matrices have the mean row that the conversion adds, in each row added."""
    ids = original_ids(asked.text)
    expanded = [id for one in ids for id in ([VOCABULARY] * _IMAGE_TOKENS if one == IMAGE else [one])]
    assert tokens == expanded
    scores = logits(_LANGUAGE, tower_weights(), ids, asked.pictures)
    longer = torch.cat([scores, scores.mean(1, keepdim=True).expand(-1, 448 - VOCABULARY)], dim=1)
    return longer.log_softmax(-1)[torch.arange(len(tokens) - 1), tokens[1:]]
