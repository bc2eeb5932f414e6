"""What the engine decides before vLLM is asked; on a stand-in for vLLM (tests/engine has the real one)."""

from collections.abc import AsyncIterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from dualfocus_engine.backend import vllm_engine
from dualfocus_engine.backend.heartbeat import Heartbeat
from dualfocus_engine.backend.launch import engine_args
from dualfocus_engine.backend.outputs import bounded_request
from dualfocus_engine.backend.vllm_engine import VllmEngine
from dualfocus_engine.errors import ConfigError
from dualfocus_engine.families.profiles import load_profile
from dualfocus_engine.method.prompts import Prompt
from dualfocus_engine.method.turn_engine import TurnRequest
from vllm import SamplingParams
from vllm.renderers.params import TokenizeParams
from vllm.sampling_params import RequestOutputKind

from ..builders import plain


def _engine(ranks: int = 1, **parallel: Any) -> VllmEngine:
    sizes = {"data_parallel_size": ranks, "data_parallel_size_local": ranks, "local_engines_only": False}
    llm: Any = SimpleNamespace(
        model_config=SimpleNamespace(get_diff_sampling_param=dict),
        renderer=SimpleNamespace(default_chat_tok_params=TokenizeParams(max_total_tokens=100)),
        vllm_config=SimpleNamespace(parallel_config=SimpleNamespace(**(sizes | parallel))),
    )
    with pytest.MonkeyPatch.context() as patch:  # what asks for a real tokenizer
        patch.setattr(vllm_engine, "chat_template_of", lambda *given: None)
        patch.setattr(vllm_engine, "placeholder_pattern", lambda *given: None)
        patch.setattr(vllm_engine, "placeholder_tokens", lambda *given: frozenset())
        return VllmEngine(llm, load_profile("paper"), Heartbeat())


def test_where_there_is_one_rank_none_is_named() -> None:
    assert _engine()._rank_option(Prompt((1,), (plain(),))) == {}


def test_all_turns_about_a_picture_go_to_one_rank_and_pictures_to_all() -> None:
    engine = _engine(ranks=4)
    pictures = [plain((shade, 0, 0)) for shade in range(64)]
    ranks = [engine._rank_option(Prompt((1,), (picture,))) for picture in pictures]
    assert ranks == [engine._rank_option(Prompt((2, 3), (picture, plain()))) for picture in pictures]
    assert {rank["data_parallel_rank"] for rank in ranks} == {0, 1, 2, 3}


async def test_the_rank_reaches_vllm() -> None:
    engine, given = _engine(ranks=4), []

    async def generate(*rendered: Any, **options: Any) -> AsyncIterator[Any]:
        given.append(options)
        yield SimpleNamespace(outputs=[SimpleNamespace(text="red", finish_reason="stop")])

    engine.llm.generate = generate
    prompt = Prompt((1,), (plain(),))
    await engine._submit(TurnRequest("macro", prompt, SamplingParams()), None)
    rank = engine._rank_option(prompt)
    assert rank
    thinking = engine._thinking_options(TurnRequest("macro", prompt, SamplingParams()))
    assert given == [{"lora_request": None, "trace_headers": None, "priority": 0, **thinking, **rank}]


@pytest.mark.parametrize(
    ("reasons", "told"), [(["stop"], 1), ([None, None, "stop"], 1), ([None, "error"], 1), (["error"], 0)]
)
async def test_a_turn_is_taken_once_its_first_output_is_no_failure(reasons: list[str | None], told: int) -> None:
    """A grammar that vLLM can't compile fails there, not where the turn is handed over."""
    engine, accepted = _engine(), []

    async def generate(*rendered: Any, **options: Any) -> AsyncIterator[Any]:
        for reason in reasons:
            output = SimpleNamespace(text="red", finish_reason=reason)
            yield SimpleNamespace(outputs=[output], add=lambda *given, **options: None)

    engine.llm.generate = generate
    request = TurnRequest("macro", Prompt((1,), ()), SamplingParams(), on_accepted=lambda: accepted.append("macro"))
    await engine._submit(request, None)
    assert accepted == ["macro"] * told


def test_who_waits_for_a_turn_to_be_taken_is_given_its_first_output() -> None:
    request = TurnRequest("macro", Prompt((1,), ()), SamplingParams(), on_accepted=lambda: None)
    assert bounded_request(request, room=5).sampling.output_kind is RequestOutputKind.DELTA
    assert bounded_request(replace(request, on_accepted=None), 5).sampling.output_kind is RequestOutputKind.FINAL_ONLY


def test_only_ranks_of_this_server_are_named() -> None:
    engine = _engine(ranks=8, data_parallel_size_local=1, local_engines_only=True)
    assert engine._rank_option(Prompt((1,), (plain(),))) == {}


@pytest.mark.parametrize(("asked", "given"), [(None, 0), (0, 0), (5, 5), (-1, -1)])
def test_every_token_gets_a_log_probability_and_as_many_as_were_asked_for(asked: int | None, given: int) -> None:
    request = TurnRequest("macro", Prompt((1,), ()), SamplingParams(logprobs=asked, max_tokens=7))
    sampling = bounded_request(request, room=5).sampling
    assert (sampling.logprobs, sampling.max_tokens) == (given, 5)
    assert request.sampling.max_tokens == 7, "the client's own is left as it is"


def test_log_probabilities_other_than_the_models_own_are_refused_before_a_model_is_loaded() -> None:
    args = engine_args("no-such-model", logprobs_mode="processed_logprobs")
    with pytest.raises(ConfigError, match="--logprobs-mode raw_logprobs"):
        VllmEngine.start(args, load_profile("paper"))
