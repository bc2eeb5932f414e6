"""Qwen-VL-Chat, from a tiny checkpoint in the hub's layout, on real vLLM: held to a plain forward of its weights."""

import json
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from dualfocus_engine import Box, DualFocus, FocusResult, Question
from PIL import Image
from safetensors.torch import save_file
from vllm import SamplingParams
from vllm.lora.request import LoRARequest

from tests.engine.qwen_vl.conversations import Asked, conversations, logprobs, original_ids, original_logprobs
from tests.engine.qwen_vl.original import LAYERS, QUERIES, Weights, weights, write_checkpoint

# As the hub's files say, and in 32 bits, where next to nothing is rounded.
_DTYPES = ["bfloat16", pytest.param("float32", marks=pytest.mark.slow)]
# How far log-probabilities may be from the plain forward's in 32 bits: at most, and on average. In bfloat16 the plain
# forward itself is off by 0.14 at most, and by 0.024 on average. Pictures that the server resizes are a level off here
# and there, which makes 0.0001.
_CLOSE = {"bfloat16": (0.25, 0.04), "float32": (1e-3, 3e-4)}
_RANK = 4
_BOX = "<ref>the sign</ref><box>(250,250),(500,500)</box>"
# What an adapter of the authors' own training changes.
_ADAPTED = ("attn.c_attn", "attn.c_proj", "mlp.w1", "mlp.w2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("hub") / "Qwen-VL-Chat")


@pytest.fixture(scope="module", params=_DTYPES)
def dtype(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
async def served(folder: Path, dtype: str, small_engine: dict[str, Any]) -> AsyncIterator[DualFocus]:
    """The files as they are, with no flag that says what they are."""
    flags = small_engine | {"dtype": dtype, "enable_lora": True, "max_lora_rank": 8}
    async with DualFocus(str(folder), **flags) as running:
        yield running


def _assert_close(found: torch.Tensor, expected: torch.Tensor, dtype: str) -> None:
    apart, (most, on_average) = (found - expected).abs(), _CLOSE[dtype]
    assert apart.max() <= most
    assert apart.mean() <= on_average


async def _served_logprobs(served: DualFocus, asked: Asked, adapter: LoRARequest | None = None) -> torch.Tensor:
    """Log-probabilities of a prompt's tokens after the first; the tokens are tiktoken's."""
    prompt = {"prompt": asked.text, "multi_modal_data": {"image": asked.pictures}}
    params = SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=0)
    name = f"{adapter is not None}-{hash(asked.text)}"
    async for output in served.engine.llm.generate(prompt, params, name, lora_request=adapter):
        last = output
    tokens = list(last.prompt_token_ids)
    assert tokens == original_ids(asked.text)
    given = [scores[token].logprob for scores, token in zip(last.prompt_logprobs[1:], tokens[1:], strict=True)]
    return torch.tensor(given)


async def test_twenty_conversations_have_the_log_probabilities_of_a_plain_forward(
    served: DualFocus, dtype: str
) -> None:
    asked = conversations()
    assert [len(one.pictures) for one in asked] == [1, 2] * 10
    for one in asked:
        _assert_close(await _served_logprobs(served, one), original_logprobs(weights(), one), dtype)


def test_what_is_compared_depends_on_each_picture() -> None:
    one = conversations()[1]
    expected = original_logprobs(weights(), one)
    for place in range(2):
        others = [picture.rotate(180) if at == place else picture for at, picture in enumerate(one.pictures)]
        changed = original_logprobs(weights(), one._replace(pictures=others))
        assert (changed - expected).abs().max() > 2 * _CLOSE["bfloat16"][0]


async def _two_looks(served: DualFocus, picture: Image.Image, box: Box | None = None) -> FocusResult:
    """Ask with a box of the client's, or with a grounding turn that is held to writing one."""
    engine, own = served.engine, served.engine.profile
    sampling = SamplingParams(temperature=0, max_tokens=4, ignore_eos=True)
    question = replace(Question.about(picture, "What does it say?"), sampling=sampling, box=box)
    held = own.box_format.model_copy(update={"grammar": re.escape(_BOX)})
    engine.profile = own.model_copy(update={"box_format": held})
    try:
        return await served.answer(question)
    finally:
        engine.profile = own


async def test_two_looks_share_the_prefix_and_encode_each_picture_once(
    served: DualFocus, photo: Callable[[str], Image.Image]
) -> None:
    result = await _two_looks(served, photo("coffee"))
    assert served.profile.name == "qwen-vl"
    assert result.look.box is not None
    assert result.look.box.as_tuple() == (0.25, 0.25, 0.5, 0.5)
    grounding, macro, micro = (result.turns[name] for name in ("grounding", "macro", "micro"))
    assert [turn.image_tokens for turn in (grounding, macro, micro)] == [QUERIES, QUERIES, 2 * QUERIES]
    assert sum(turn.encoder_runs or 0 for turn in result.turns.values()) == 2, "the picture once, and the crop"
    block = served.engine.llm.vllm_config.cache_config.block_size
    assert max(grounding.cached_tokens, macro.cached_tokens) >= QUERIES // block * block
    assert micro.cached_tokens >= (grounding.prompt_tokens - 1) // block * block
    assert micro.prompt_token_ids[: grounding.prompt_tokens] == grounding.prompt_token_ids
    again = await _two_looks(served, photo("coffee"))
    assert sum(turn.encoder_runs or 0 for turn in again.turns.values()) == 0


async def test_the_micro_turn_is_the_conversation_as_the_authors_write_it(
    served: DualFocus, photo: Callable[[str], Image.Image]
) -> None:
    result = await _two_looks(served, photo("coffee"), box=Box(0.25, 0.25, 0.5, 0.5))
    assert list(result.turns["micro"].prompt_token_ids) == original_ids(
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nPicture 1: <img></img>\n"
        "Provide the coordinates of the region this question is asking about: What does it say?<|im_end|>\n"
        "<|im_start|>assistant\n<ref>region</ref><box>(250,250),(500,500)</box><|im_end|>\n"
        "<|im_start|>user\nPicture 2: <img></img>\n"
        "Combine these two images and answer the question: What does it say?<|im_end|>\n<|im_start|>assistant\n"
    )


async def test_a_crop_is_shown_as_the_square_that_the_model_sees(
    served: DualFocus, dtype: str, photo: Callable[[str], Image.Image]
) -> None:
    picture = photo("coffee")
    result = await _two_looks(served, picture)
    turn, region = result.turns["micro"], result.look.crop_box
    assert region is not None
    assert region.right - region.left == region.bottom - region.top, "so it is not distorted"
    shown = [picture, picture.crop(region)]
    expected = logprobs(weights(), [*turn.prompt_token_ids, *turn.token_ids], shown)[-len(turn.token_ids) :]
    _assert_close(torch.tensor(turn.logprobs), expected, dtype)


async def test_answers_are_greedy_whatever_the_models_own_generation_config_says(served: DualFocus) -> None:
    assert served.engine.llm.model_config.get_diff_sampling_param()["top_p"] == 0.3
    assert served.engine.answer_sampling().temperature == 0
    assert served.engine.default_max_tokens == 512


async def test_an_adapter_of_the_authors_training_changes_what_it_names(
    served: DualFocus, dtype: str, tmp_path: Path
) -> None:
    changed = _adapter(tmp_path)
    asked = conversations()[1]
    adapter = LoRARequest("trained", 1, str(tmp_path))
    found = await _served_logprobs(served, asked, adapter)
    _assert_close(found, original_logprobs(weights() | changed, asked), dtype)
    for name in changed:  # each matters
        without = original_logprobs(weights() | changed | {name: weights()[name]}, asked)
        assert (without - found).abs().max() > 2 * _CLOSE["bfloat16"][0], name


def _adapter(folder: Path) -> Weights:
    """Write an adapter as peft does; returns the weights that it changes, merged, in 32 bits."""
    random, own, tensors, changed = torch.Generator().manual_seed(3), weights(), {}, {}
    for name in (f"transformer.h.{layer}.{part}" for layer in range(LAYERS) for part in _ADAPTED):
        rows, columns = own[f"{name}.weight"].shape
        first = torch.randn(_RANK, columns, generator=random) * columns**-0.5
        second = torch.randn(rows, _RANK, generator=random) * 0.1
        tensors |= {f"base_model.model.{name}.lora_A.weight": first, f"base_model.model.{name}.lora_B.weight": second}
        changed[f"{name}.weight"] = own[f"{name}.weight"].float() + 2 * second @ first
    save_file(tensors, folder / "adapter_model.safetensors")
    targets = ["c_attn", "attn.c_proj", "w1", "w2"]
    settings = {"peft_type": "LORA", "r": _RANK, "lora_alpha": 2 * _RANK, "target_modules": targets, "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return changed


async def test_a_context_beyond_the_models_own_is_refused(folder: Path, small_engine: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"max_model_len \(4096\) is greater than .*=2048"):
        DualFocus(str(folder), max_model_len=4096, **small_engine).start()
