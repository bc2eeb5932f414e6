"""What the engine decides before vLLM is asked; on a stand-in for vLLM (tests/engine has the real one)."""

import json
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock, Mock

import pytest
from dualfocus_engine.backend import rendering, vllm_engine
from dualfocus_engine.backend.heartbeat import Heartbeat
from dualfocus_engine.backend.launch import engine_args
from dualfocus_engine.backend.outputs import bounded_request, operators_sampling
from dualfocus_engine.backend.vllm_engine import VllmEngine
from dualfocus_engine.errors import BadQuestion, ConfigError, EngineDead
from dualfocus_engine.families.profiles import Profile, load_profile
from dualfocus_engine.method.prompts import Prompt
from dualfocus_engine.method.questions import Message
from dualfocus_engine.method.results import Score
from dualfocus_engine.method.turn_engine import TurnRequest
from dualfocus_engine.shipped import SHIPPED_MODEL
from vllm import SamplingParams
from vllm.renderers.params import TokenizeParams
from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams
from vllm.v1.engine.async_llm import AsyncLLM

from ..builders import asked, plain, turn


def _engine(ranks: int = 1, generating: dict[str, Any] | None = None, **parallel: Any) -> VllmEngine:
    own = {"generation_config": "auto", "override_generation_config": {}, "max_model_len": 100}
    sizes = {"data_parallel_size": ranks, "data_parallel_size_local": ranks, "local_engines_only": False}
    llm: Any = SimpleNamespace(
        model_config=SimpleNamespace(get_diff_sampling_param=dict, **(own | (generating or {}))),
        renderer=SimpleNamespace(default_chat_tok_params=TokenizeParams(max_total_tokens=100)),
        vllm_config=SimpleNamespace(parallel_config=SimpleNamespace(**(sizes | parallel)), ec_transfer_config=None),
    )
    return VllmEngine(llm, load_profile("paper"), Heartbeat())


@pytest.fixture(autouse=True)
def _no_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand in for what asks for a real one."""
    monkeypatch.setattr(rendering, "chat_template_of", lambda *given: None)
    monkeypatch.setattr(rendering, "placeholder_pattern", lambda *given: None)
    monkeypatch.setattr(rendering, "placeholder_tokens", lambda *given: frozenset())


def test_where_there_is_one_rank_none_is_named() -> None:
    assert _engine()._rank_option(Prompt((1,), (plain(),))) == {}


def test_all_turns_about_a_picture_go_to_one_rank_and_pictures_to_all() -> None:
    engine = _engine(ranks=4)
    pictures = [plain((shade, 0, 0)) for shade in range(64)]
    ranks = [engine._rank_option(Prompt((1,), (picture,))) for picture in pictures]
    assert ranks == [engine._rank_option(Prompt((2, 3), (picture, plain()))) for picture in pictures]
    assert {rank["data_parallel_rank"] for rank in ranks} == {0, 1, 2, 3}
    smaller = [picture.shown_at((2, 2)) for picture in pictures]
    assert ranks == [engine._rank_option(Prompt((1,), (picture,))) for picture in smaller]


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
    assert given == [{"lora_request": None, "trace_headers": None, "priority": 0, **rank}]


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


async def test_a_first_attempt_that_failed_is_not_told_as_the_end_of_the_text() -> None:
    """It is tried again: whoever reads thoughts from the text would take those of the second for the answer."""
    engine, told, ends = _engine(), [], iter(["error", "stop"])

    async def generate(*rendered: Any, **options: Any) -> AsyncIterator[Any]:
        output = SimpleNamespace(text="", token_ids=[], finish_reason=next(ends))
        yield SimpleNamespace(outputs=[output], prompt_token_ids=[1])

    engine.llm.generate = generate
    engine.engine_input = AsyncMock(return_value={"prompt_token_ids": [1]})  # type: ignore[method-assign]
    request = TurnRequest("macro", Prompt((1,), (plain(),)), SamplingParams(), on_text=told.append)
    await engine._run_to_end(request, None)
    assert [delta.is_last for delta in told] == [True]


def test_who_waits_for_a_turn_to_be_taken_is_given_its_first_output() -> None:
    request = TurnRequest("macro", Prompt((1,), ()), SamplingParams(), on_accepted=lambda: None)
    assert bounded_request(request, room=5).sampling.output_kind is RequestOutputKind.DELTA
    assert bounded_request(replace(request, on_accepted=None), 5).sampling.output_kind is RequestOutputKind.FINAL_ONLY


@pytest.mark.parametrize(
    ("allowed", "of_the_model", "images"), [(999, None, 999), (999, 2, 2), (1, 2, 1), (3, None, 3)]
)
def test_a_prompt_holds_as_many_images_as_vllm_and_the_profile_allow(
    allowed: int, of_the_model: int | None, images: int
) -> None:
    engine = _engine(generating={"multimodal_config": SimpleNamespace(get_limit_per_prompt=lambda modality: allowed)})
    engine.profile = engine.profile.model_copy(update={"max_images": of_the_model})
    assert engine.max_images == images


async def test_a_conversation_of_more_images_than_the_profile_allows_is_refused() -> None:
    engine = _engine()
    engine.profile = engine.profile.model_copy(update={"max_images": 2})
    messages = [asked("What?", plain(), plain()), Message("assistant", "A cup."), asked("And here?", plain())]
    with pytest.raises(BadQuestion, match="at most 2 images may be in a prompt"):
        await engine.prompt(messages)


def test_only_ranks_of_this_server_are_named() -> None:
    engine = _engine(ranks=8, data_parallel_size_local=1, local_engines_only=True)
    assert engine._rank_option(Prompt((1,), (plain(),))) == {}


@pytest.mark.parametrize(("asked", "given"), [(None, 0), (0, 0), (5, 5), (-1, -1)])
def test_every_token_of_an_answer_gets_a_log_probability_and_as_many_as_were_asked_for(
    asked: int | None, given: int
) -> None:
    request = TurnRequest("macro", Prompt((1,), ()), SamplingParams(logprobs=asked, max_tokens=7))
    sampling = bounded_request(request, room=5).sampling
    assert (sampling.logprobs, sampling.max_tokens) == (given, 5)
    assert request.sampling.max_tokens == 7, "the client's own is left as it is"


def test_an_answer_longer_than_there_is_room_for_never_reaches_the_engine() -> None:
    """vLLM's engine reads such a request as it comes in, and the thread that reads would end over it."""
    request = TurnRequest("macro", Prompt((1,), ()), SamplingParams(max_tokens=9, min_tokens=6))
    assert bounded_request(request, room=6).sampling.max_tokens == 6
    with pytest.raises(BadQuestion, match="min_tokens is 6, and an answer may have 5 tokens here"):
        bounded_request(request, room=5)


def test_vllm_makes_an_output_for_each_token_only_where_somebody_reads_them() -> None:
    asked = TurnRequest("macro", Prompt((1,), ()), SamplingParams(), on_accepted=lambda: None)
    assert bounded_request(asked, room=5).sampling.stream_interval == 5, "the first token's, and the last one's"
    read = replace(asked, on_text=lambda delta: None)
    assert bounded_request(read, room=5).sampling.stream_interval is None


def test_tokens_of_a_box_get_none() -> None:
    """Each costs the event loop time, and no figure is made of them."""
    request = TurnRequest("grounding", Prompt((1,), ()), SamplingParams(), is_answer=False)
    assert bounded_request(request, room=5).sampling.logprobs is None


@pytest.mark.parametrize(
    ("generating", "defaults", "allowed"),
    [
        ({}, {"max_tokens": 7}, None),
        ({"override_generation_config": {"max_new_tokens": 5}}, {"max_tokens": 5}, 5),
        ({"generation_config": "vllm", "override_generation_config": {"max_new_tokens": 5}}, {}, 5),
        ({"generation_config": "folder"}, {"max_tokens": 7}, 7),
        ({"generation_config": "folder"}, {}, None),
    ],
)
def test_what_an_operator_allows_an_answer_is_read_as_vllm_reads_it(
    generating: dict[str, Any], defaults: dict[str, Any], allowed: int | None
) -> None:
    config: Any = SimpleNamespace(**{"generation_config": "auto", "override_generation_config": {}} | generating)
    assert operators_sampling(config, defaults).get("max_tokens") == allowed


@pytest.mark.parametrize(
    ("generating", "named"),
    [
        ({}, None),
        ({"override_generation_config": {"temperature": 0.7}}, 0.7),
        ({"generation_config": "folder"}, 0.6),
    ],
)
def test_the_models_own_temperature_is_none_of_the_operators(generating: dict[str, Any], named: float | None) -> None:
    config: Any = SimpleNamespace(**{"generation_config": "auto", "override_generation_config": {}} | generating)
    assert operators_sampling(config, {"temperature": 0.6}).get("temperature") == named


@pytest.mark.parametrize(
    ("is_answer", "asked", "given"), [(True, 50, 5), (True, 3, 3), (True, None, 5), (False, 50, 50)]
)
async def test_no_answer_is_longer_than_the_operator_allows(
    is_answer: bool, asked: int | None, given: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Boxes have the profile's own limit."""
    engine, sampled = _engine(generating={"override_generation_config": {"max_new_tokens": 5}}), []

    async def run(request: TurnRequest, rendered: Any) -> Any:
        sampled.append(request.sampling.max_tokens)
        raise InterruptedError

    monkeypatch.setattr(engine, "engine_input", AsyncMock(return_value={"prompt_token_ids": [1, 2]}))
    monkeypatch.setattr(engine, "_run_to_end", run)
    request = TurnRequest("micro", Prompt((1, 2), ()), SamplingParams(max_tokens=asked), is_answer=is_answer)
    with suppress(InterruptedError):
        await engine.generate(request)
    assert sampled == [given]


@pytest.mark.parametrize("own", [Score((-1.0,), 0), None])
async def test_an_answer_under_a_grammar_that_can_not_be_scored_without_it_says_so(
    own: Score | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = _engine()
    monkeypatch.setattr(engine, "engine_input", AsyncMock(return_value={"prompt_token_ids": [1, 2]}))
    monkeypatch.setattr(engine, "_run_to_end", AsyncMock())
    monkeypatch.setattr(vllm_engine, "read_turn", lambda *given: turn("{}", 0.5))
    monkeypatch.setattr(engine, "score", AsyncMock(return_value=own))
    sampling = SamplingParams(max_tokens=5, structured_outputs=StructuredOutputsParams(json={}))
    answer = await engine.generate(TurnRequest("macro", Prompt((1, 2), ()), sampling, is_answer=True))
    assert (answer.rescored, answer.is_masked) == (own is not None, own is None)


async def test_a_turn_that_the_engine_ended_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was told to stop while the server still waits for it: what was written by then is a piece of an answer."""
    engine = _engine()
    output = SimpleNamespace(outputs=[SimpleNamespace(finish_reason="abort", token_ids=[5])])
    monkeypatch.setattr(engine, "_submit", AsyncMock(return_value=output))
    with pytest.raises(EngineDead):
        await engine._run_to_end(TurnRequest("macro", Prompt((1, 2), ()), SamplingParams(), is_answer=True), {})


def test_another_profile_has_its_words_on_the_same_engine_and_with_the_same_pictures() -> None:
    engine = _engine()
    own = engine.profile.model_copy(update={"max_box_tokens": 5, "max_answer_tokens": 7, "temperature": 0.5})
    other = engine.with_profile(own)
    assert other.llm is engine.llm
    assert other.pictures is engine.pictures
    assert (other.grounding_sampling().max_tokens, other.answer_sampling().max_tokens) == (5, 7)
    assert (other.answer_sampling().temperature, engine.answer_sampling().temperature) == (0.5, 0.0)


@pytest.mark.parametrize(
    "differing", [{"pad_color": (0, 0, 0)}, {"pad_color": (0, 0, 0), "image_size": 336}, {"crop_in_picture": True}]
)
def test_a_profile_that_shows_pictures_otherwise_needs_another_engine(differing: dict[str, Any]) -> None:
    engine = _engine()
    with pytest.raises(ConfigError, match="another pad_color, image_size or crop_in_picture than 'paper'"):
        engine.with_profile(engine.profile.model_copy(update=differing))


@pytest.mark.parametrize(
    ("tokens", "known", "scored"),
    [
        pytest.param([1, 2, 7, 8], {1: 2, 2: 7, 3: 8}, True, id="as it was written"),
        pytest.param([1, 2, 78], {1: 2, 2: 78}, False, id="its text split anew"),
        pytest.param([1, 2, 7, 8], {3: 8}, False, id="forgotten up to the last chunk"),
        pytest.param([1, 2, 7, 8], {}, False, id="forgotten"),
    ],
)
async def test_an_answer_is_scored_where_its_own_tokens_were_or_not_at_all(
    tokens: list[int], known: dict[int, int], scored: bool
) -> None:
    """`known`: the token at each place that has a log-probability."""
    engine = _engine()
    logprobs = [{known[place]: SimpleNamespace(logprob=-place)} if place in known else None for place in range(4)]
    output = SimpleNamespace(num_cached_tokens=0, prompt_token_ids=tokens, prompt_logprobs=logprobs[: len(tokens)])
    engine.engine_input = AsyncMock(return_value={"prompt_token_ids": tokens})  # type: ignore[method-assign]
    engine._run_to_end = AsyncMock(return_value=output)  # type: ignore[method-assign]
    score = await engine.score("macro", Prompt((1, 2), ()), [7, 8])
    assert (score and score.logprobs) == ((-2, -3) if scored else None)


OBSTACLES: list[tuple[str, dict[str, Any]]] = [
    ("--tokenizer-mode hf", {"tokenizer_mode": "mistral"}),
    ("--tokenizer-mode inkling", {"tokenizer_mode": "inkling"}),
    ("--logprobs-mode raw_logprobs", {"logprobs_mode": "processed_logprobs"}),
    ("--language-model-only", {"language_model_only": True}),
    ("--limit-mm-per-prompt allows 0 images", {"limit_mm_per_prompt": {"image": 0}}),
    ("--limit-mm-per-prompt allows 1 images", {"limit_mm_per_prompt": {"image": {"count": 1}}}),
    ("--runner pooling", {"runner": "pooling"}),
    ("--convert", {"convert": "embed"}),
    ("--mm-encoder-only", {"mm_encoder_only": True}),
    ("ec_producer", {"ec_transfer_config": {"ec_connector": "ECExampleConnector", "ec_role": "ec_producer"}}),
    ("--skip-tokenizer-init", {"skip_tokenizer_init": True}),
    ("--kv-sharing-fast-prefill", {"kv_sharing_fast_prefill": True}),
]


@pytest.mark.parametrize(("named", "flags"), OBSTACLES)
def test_a_flag_that_makes_two_looks_impossible_is_named_before_the_model_is_loaded(
    named: str, flags: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AsyncLLM, "from_vllm_config", pytest.fail)
    with pytest.raises(ConfigError, match=f"Two looks are impossible: .*{named}"):
        VllmEngine.start(engine_args(str(SHIPPED_MODEL), **flags), load_profile("paper"))


@pytest.mark.parametrize("flags", [{}, {"limit_mm_per_prompt": {"image": 2}}, {"enable_mm_embeds": True}])
def test_no_other_flag_stands_in_the_way(flags: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    _start_up_to_loading(load_profile("paper"), monkeypatch, **flags)


def test_a_crop_that_is_shown_alone_needs_room_for_one_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = load_profile("paper").model_copy(update={"crop_alone": True})
    _start_up_to_loading(alone, monkeypatch, limit_mm_per_prompt={"image": 1})


def test_a_crop_in_its_picture_needs_a_model_that_takes_it_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AsyncLLM, "from_vllm_config", pytest.fail)
    told = "'fifth-patch' shows the crop as a patch of its picture, and LlavaForConditionalGeneration takes none"
    with pytest.raises(ConfigError, match=told):
        VllmEngine.start(engine_args(str(SHIPPED_MODEL)), load_profile("fifth-patch"))


def _start_up_to_loading(profile: Profile, monkeypatch: pytest.MonkeyPatch, **flags: Any) -> None:
    monkeypatch.setattr(AsyncLLM, "from_vllm_config", Mock(side_effect=InterruptedError))
    with pytest.raises(InterruptedError):
        VllmEngine.start(engine_args(str(SHIPPED_MODEL), **flags), profile)


def test_a_model_without_pictures_is_named(tmp_path: Path) -> None:
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 64, "hidden_size": 64}
    sizes = {"num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}
    (tmp_path / "config.json").write_text(json.dumps(config | sizes))
    with pytest.raises(ConfigError, match="takes no pictures"):
        VllmEngine.start(engine_args(str(tmp_path), skip_tokenizer_init=True), load_profile("paper"))
