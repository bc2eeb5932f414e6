"""What DualFocus leans on in vLLM, one test a lean: an upgrade that moves one fails here first and says which."""

import inspect
import re
import time
from dataclasses import fields, replace

import pytest
import torch
import vllm
import vllm.entrypoints.cli.serve
from dualfocus_engine import BadQuestion, DualFocus, EngineDead, Question
from dualfocus_engine.backend.engine_core.cpu_kernels import shrink_by_adapter
from dualfocus_engine.backend.engine_core.drafts import SPECULATIVE_CONFIG
from dualfocus_engine.backend.engine_core.ec_connector import ENCODER_RUNS
from dualfocus_engine.backend.launch import _addresses
from dualfocus_engine.backend.sampling_limits import MAX_ALLOWED, MAX_BIASED, MAX_STOPS
from dualfocus_engine.method.questions import Message
from dualfocus_engine.method.turn_engine import TurnRequest
from dualfocus_engine.pictures.pictures import Picture, open_picture
from PIL import Image
from vllm import SamplingParams
from vllm.collect_env import SystemEnv
from vllm.config import SpeculativeConfig
from vllm.distributed.ec_transfer.ec_connector.base import ECConnectorBase
from vllm.distributed.ec_transfer.ec_connector.encoder_output_width import measure_encoder_output_widths
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.entrypoints.generate.base.protocol import DeltaMessage
from vllm.entrypoints.generate.base.serving import PRIORITY_HEADER
from vllm.entrypoints.launchers.launcher import NoSignalServer
from vllm.entrypoints.launchers.utils.ssl import SSLCertRefresher
from vllm.entrypoints.openai.chat_completion import serving
from vllm.entrypoints.openai.chat_completion.api_router import ENDPOINT_LOAD_METRICS_FORMAT_HEADER_LABEL
from vllm.entrypoints.openai.chat_completion.protocol import (
    ChatCompletionRequest,
    ChatCompletionResponse,
    ChatCompletionResponseStreamChoice,
)
from vllm.entrypoints.openai.chat_completion.serving import OpenAIServingChat
from vllm.entrypoints.openai.completion import serving as completion_serving
from vllm.entrypoints.openai.completion.protocol import CompletionResponse
from vllm.entrypoints.openai.completion.serving import OpenAIServingCompletion
from vllm.entrypoints.openai.models.serving import OpenAIServingModels
from vllm.entrypoints.serve.dev.rpc import api_router as rpc
from vllm.entrypoints.serve.instrumentator import offline_docs
from vllm.entrypoints.serve.profile import api_router as profile
from vllm.entrypoints.serve.utils.orca_metrics import metrics_header
from vllm.entrypoints.serve.utils.sse_keep_alive import SSE_KEEP_ALIVE_COMMENT
from vllm.exceptions import VLLMValidationError
from vllm.lora.ops.torch_ops import lora_ops
from vllm.lora.punica_wrapper import punica_cpu
from vllm.multimodal.cache import factories
from vllm.outputs import RequestOutput
from vllm.parser.abstract_parser import Parser
from vllm.reasoning import ReasoningParser
from vllm.renderers.params import ChatParams
from vllm.triton_utils.dispatcher import register_kernels
from vllm.utils.cpu_triton_utils import _expand_kernel_impl
from vllm.utils.import_utils import import_plugin
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.core_client import MPClient
from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError
from vllm.v1.engine.output_processor import OutputProcessor
from vllm.v1.engine.utils import CoreEngineLaunch, bind_engine_zmq_listeners, launch_core_engines
from vllm.v1.metrics.loggers import StatLoggerBase
from vllm.v1.sample import rejection_sampler
from vllm.v1.sample.ops.topk_topp_sampler import apply_top_k_top_p
from vllm.v1.worker.gpu.sample import bad_words, logit_bias
from vllm.v1.worker.gpu_model_runner import GPUModelRunner


def test_the_version_is_the_pinned_one() -> None:
    assert vllm.__version__.split("+")[0] == "0.32.0"


async def test_the_engine_core_answers_a_round_trip(focus: DualFocus) -> None:
    assert await focus.engine.llm.is_sleeping() is False


async def test_images_are_rendered_by_key_alone(focus: DualFocus) -> None:
    part = {"type": "image_pil", "image_pil": None, "uuid": "a-key"}
    messages = [{"role": "user", "content": [part, {"type": "text", "text": "What?"}]}]
    params = ChatParams(chat_template_kwargs={"add_generation_prompt": True, "tokenize": False})
    _, prompt = await focus.engine.llm.renderer.render_messages_async(messages, params)
    assert prompt["prompt"] == "USER: <image>\nWhat? ASSISTANT: "
    assert prompt["multi_modal_uuids"] == {"image": ["a-key"]}


async def test_an_image_is_known_by_the_key_it_was_given(focus: DualFocus) -> None:
    """Two pictures under one key are one picture to every cache: keys have to name content."""
    grey = Image.new("RGB", (64, 64), (90, 90, 90))
    picture = open_picture(grey)
    prompt = await focus.engine.prompt([Message("user", "What is it?", (picture,))])
    first = await focus.engine.generate(TurnRequest("a", prompt, SamplingParams(temperature=0, max_tokens=2)))
    again = await focus.engine.generate(TurnRequest("b", prompt, SamplingParams(temperature=0, max_tokens=2)))
    assert (first.encoder_runs, again.encoder_runs) == (1, 0)


async def test_a_picture_that_was_processed_needs_no_pixels_and_another_is_missed(focus: DualFocus) -> None:
    renderer, picture = focus.engine.llm.renderer, open_picture(Image.new("RGB", (64, 64), (9, 90, 9)))
    prompt = await focus.engine.prompt([Message("user", "What is it?", (picture,))])
    assert not renderer.mm_processor_cache.is_cached_item(picture.key)
    with pytest.raises(ValueError, match="Cache miss for image"):
        await focus.engine._engine_input_with(prompt, [None])
    await focus.engine.generate(TurnRequest("a", prompt, SamplingParams(temperature=0, max_tokens=2)))
    assert renderer.mm_processor_cache.is_cached_item(picture.key)
    assert await focus.engine.encoder_input(picture) is None
    await focus.engine._engine_input_with(prompt, [None])


async def test_a_rendered_prompt_says_how_many_tokens_stand_for_its_pictures(focus: DualFocus) -> None:
    prompt = await focus.engine.prompt([Message("user", "What is it?", (_picture(),))])
    rendered = await focus.engine.engine_input(prompt)
    (place,) = rendered["mm_placeholders"]["image"]
    image = focus.engine.encode("<image>")[0]
    assert place.get_num_embeds() == place.length == rendered["prompt_token_ids"].count(image) == 64


async def test_logprobs_are_the_models_own_whatever_the_sampling(focus: DualFocus) -> None:
    prompt = await focus.engine.prompt([Message("user", "Say something.", (_picture(),))])
    greedy = SamplingParams(temperature=0, max_tokens=1, logprobs=20)
    plain = await focus.engine.generate(TurnRequest("a", prompt, greedy))
    hot = SamplingParams(temperature=2.0, top_k=3, seed=1, max_tokens=1, logprobs=20, presence_penalty=1.5)
    sampled = await focus.engine.generate(TurnRequest("b", prompt, hot))
    token = sampled.token_ids[0]
    assert sampled.logprobs[0] == pytest.approx(plain.top_logprobs[0][token].logprob, abs=1e-4)


def _picture() -> Picture:
    return open_picture(Image.new("RGB", (64, 64), (30, 60, 90)))


def test_request_outputs_carry_what_a_connector_returns() -> None:
    assert "ec_transfer_params" in inspect.signature(RequestOutput).parameters
    wanted = {"num_cached_tokens", "num_cache_creation_tokens", "metrics"}
    assert wanted <= set(inspect.signature(RequestOutput).parameters)


def test_the_connector_interface_is_complete() -> None:
    assert ECConnectorBase.__abstractmethods__ == {
        "start_load_caches",
        "save_caches",
        "has_cache_item",
        "update_state_after_alloc",
        "build_connector_meta",
    }
    assert ENCODER_RUNS == "encoder_runs"


def test_the_engine_encodes_nothing_for_the_connector_at_start(focus: DualFocus) -> None:
    """A producer's engine would encode the largest picture and video that the model takes: minutes on a CPU."""
    config = focus.engine.llm.vllm_config.ec_transfer_config
    assert (config.is_ec_producer, config.is_ec_consumer) == (False, True)
    asked = inspect.getsource(measure_encoder_output_widths)
    assert "if ec_config is None or not ec_config.is_ec_producer:\n        return\n" in asked


def test_a_request_is_held_back_while_a_connector_says_so() -> None:
    """Asked before it is scheduled for the first time, with what the prefix cache holds of it."""
    assert list(inspect.signature(ECConnectorBase.ensure_cache_available).parameters)[1:] == [
        "request",
        "num_computed_tokens",
    ]
    asked = inspect.getsource(Scheduler.schedule)
    assert (
        "if self._ec_transfer_pending(request, num_computed_tokens):\n"
        "                        skip_request(request_queue)" in asked
    )


def test_the_engine_has_the_defaults_of_vllms_own_server() -> None:
    assert "UsageContext.OPENAI_API_SERVER" in inspect.getsource(vllm.entrypoints.cli.serve)
    told = {"vllm_config", "stat_loggers", "usage_context", "enable_log_requests", "disable_log_stats"}
    assert told | {"aggregate_engine_logging"} <= set(inspect.signature(AsyncLLM.from_vllm_config).parameters)
    assert inspect.iscoroutinefunction(AsyncLLM.do_log_stats)


def test_encoder_outputs_are_kept_for_questions_in_flight(focus: DualFocus) -> None:
    config = focus.engine.llm.vllm_config.scheduler_config
    assert config.encoder_cache_size == 4 * config.max_num_batched_tokens


def test_boxes_can_be_drafted() -> None:
    config = SpeculativeConfig.__dataclass_fields__
    assert set(SPECULATIVE_CONFIG) <= set(config)
    asked = inspect.getsource(GPUModelRunner.propose_draft_token_ids)
    assert (
        ".propose(\n                sampled_token_ids,\n                self.input_batch.num_tokens_no_spec,\n" in asked
    )


def test_what_is_mended_in_the_cpu_builds_sampling_still_has_to_be() -> None:
    """Once this fails, look whether `cpu_kernels.py` can go."""
    assert "_ensure_int64(output)," in inspect.getsource(_expand_kernel_impl)
    assert callable(register_kernels)
    assert rejection_sampler.apply_top_k_top_p is not None
    nothing, top_k = torch.zeros(0, 5), torch.zeros(0, dtype=torch.int32)
    with pytest.raises(RuntimeError, match="max"):
        apply_top_k_top_p(nothing, top_k, None)


def test_what_is_mended_of_adapters_on_the_cpu_still_has_to_be() -> None:
    """Once this fails, `mend_adapters` can go."""
    inputs, weights, none = torch.ones(1, 3), torch.ones(2, 4, 3), torch.tensor([-1])
    theirs, ours = torch.zeros(1, 4), torch.zeros(1, 4)
    lora_ops.bgmv_shrink(inputs, weights, theirs, none)
    shrink_by_adapter(inputs, weights, ours, none)
    assert (theirs.sum(), ours.sum()) == (12, 0)
    for module in (punica_cpu, lora_ops):
        assert "    bgmv_shrink(" in inspect.getsource(module)


def test_a_prompt_can_be_scored_from_the_cache() -> None:
    assert SamplingParams(prompt_logprobs=0, skip_reading_prefix_cache=False).skip_reading_prefix_cache is False


def test_generate_and_its_outputs_are_there() -> None:
    wanted = {"sampling_params", "request_id", "data_parallel_rank", "trace_headers"}
    assert wanted <= set(inspect.signature(AsyncLLM.generate).parameters)
    assert "aggregate" in inspect.signature(RequestOutput.add).parameters
    assert SamplingParams(max_tokens=3).clone() is not SamplingParams(max_tokens=3)


async def test_the_engine_says_how_much_it_has_to_do_and_on_how_many_ranks(focus: DualFocus) -> None:
    assert focus.engine.llm.get_num_unfinished_requests() == 0
    parallel = focus.engine.llm.vllm_config.parallel_config
    assert (parallel.data_parallel_size, parallel.data_parallel_size_local) == (1, 1)
    assert (parallel.local_engines_only, focus.engine.llm.engine_core.engine_ranks_managed) == (False, [0])


async def test_prompts_are_tokenized_with_or_without_what_opens_them(focus: DualFocus) -> None:
    renderer = focus.engine.llm.renderer
    assert renderer.default_chat_tok_params.add_special_tokens is True, "chat requests themselves ask for False"
    assert ChatCompletionRequest.model_fields["add_special_tokens"].default is False
    assert renderer.get_tokenizer().bos_token == "<s>"


async def test_an_answer_scored_as_a_prompt_has_the_log_probabilities_it_was_written_with(focus: DualFocus) -> None:
    prompt = await focus.engine.prompt([Message("user", "What is this?", (_picture(),))])
    turn = await focus.engine.generate(TurnRequest("a", prompt, SamplingParams(temperature=0, max_tokens=8)))
    scored = await focus.engine.score("a", prompt, turn.token_ids)
    assert scored is not None
    assert scored.logprobs == pytest.approx(turn.logprobs, abs=1e-3)


def test_chat_serving_is_delegated_to() -> None:
    assert {"request", "raw_request"} <= set(inspect.signature(OpenAIServingChat.create_chat_completion).parameters)
    wanted = {"token_ids", "top_logprobs", "tokenizer", "num_output_top_logprobs", "return_as_token_id"}
    assert wanted <= set(inspect.signature(OpenAIServingChat._create_chat_logprobs).parameters)
    assert {"max_tokens", "default_sampling_params"} <= set(
        inspect.signature(ChatCompletionRequest.to_sampling_params).parameters
    )
    assert "ec_transfer_params" in ChatCompletionResponse.model_fields


def test_streams_of_chat_serving_are_what_is_read_and_written_of_them() -> None:
    written = inspect.getsource(OpenAIServingChat.chat_completion_stream_generator)
    assert 'logger.exception("Error in chat completion stream generator.")' in written
    assert serving.logger.name == "vllm.entrypoints.openai.chat_completion.serving"
    assert "model_dump_json(exclude_unset=True)" in written
    role = ChatCompletionResponseStreamChoice(index=0, delta=DeltaMessage(role="assistant", content=""))
    assert '"delta":{"role":' in role.model_dump_json(exclude_unset=True)
    assert SSE_KEEP_ALIVE_COMMENT == ": keep-alive\n\n"


def test_thoughts_and_calls_are_read_as_vllms_own_serving_reads_them() -> None:
    assert {"reasoning_ended", "reasoning_parser_kwargs"} <= set(inspect.signature(AsyncLLM.generate).parameters)
    assert {"parse", "parse_delta", "adjust_request", "count_reasoning_tokens", "set_prompt_token_ids"} <= set(
        dir(Parser)
    )
    assert {"reasoning_end_str", "is_reasoning_end"} <= set(dir(ReasoningParser))
    assert list(inspect.signature(Parser.parse).parameters)[1:] == [
        *("model_output", "request", "enable_auto_tools", "model_output_token_ids"),
    ]
    assert list(inspect.signature(OpenAIServingChat._make_parser).parameters)[1:] == [
        *("request", "tokenizer", "chat_template_kwargs"),
    ]
    assert "parser_cls" in inspect.getsource(OpenAIServingChat.__init__)
    assert "_grammar_from_parser" in ChatCompletionRequest.__private_attributes__


def test_completions_are_delegated_to() -> None:
    assert list(inspect.signature(OpenAIServingCompletion.create_completion).parameters)[1:] == [
        "request",
        "raw_request",
    ]
    assert "ec_transfer_params" in CompletionResponse.model_fields
    written = inspect.getsource(OpenAIServingCompletion.completion_stream_generator)
    assert 'logger.exception("Error in completion stream generator.")' in written
    assert "model_dump_json(exclude_unset=True)" in written
    assert completion_serving.logger.name == "vllm.entrypoints.openai.completion.serving"
    assert PRIORITY_HEADER == "X-Vllm-Priority"


def test_what_administrators_ask_of_the_engine_is_there() -> None:
    asked = {
        *("sleep", "wake_up", "release_kv_cache_memory", "is_sleeping", "get_kv_event_sources"),
        *("reset_prefix_cache", "reset_mm_cache", "reset_encoder_cache", "collective_rpc", "start_profile"),
    }
    assert asked <= set(dir(AsyncLLM))
    assert {"load_lora_adapter", "unload_lora_adapter"} <= set(dir(OpenAIServingModels))
    for module in (rpc, profile):
        assert "request.app.state.engine_client" in inspect.getsource(module.engine_client)
    assert "env_vars" in SystemEnv._fields


def test_what_start_up_takes_from_vllms_server_is_there() -> None:
    wanted = ["ssl_context", "key_path", "cert_path", "ca_path"]
    assert list(inspect.signature(SSLCertRefresher).parameters) == wanted
    assert list(inspect.signature(import_plugin).parameters) == ["plugin_path"]
    assert "enable_offline_docs" in inspect.getsource(offline_docs.attach_router)


def test_an_engine_can_be_shared_by_several_processes() -> None:
    assert list(inspect.signature(bind_engine_zmq_listeners).parameters) == ["vllm_config", "num_api_servers"]
    wanted = ["vllm_config", "executor_class", "log_stats", "addresses"]
    assert list(inspect.signature(launch_core_engines).parameters) == wanted
    parts = {"engine_manager", "coordinator", "addresses", "tensor_queue", "watched_frontend_processes"}
    assert parts <= {field.name for field in fields(CoreEngineLaunch)}
    assert {"_api_process_count", "_api_process_rank"} <= {field.name for field in fields(AsyncEngineArgs)}
    wanted = ["client_addresses", "client_count", "client_index"]
    assert list(inspect.signature(AsyncLLM.from_vllm_config).parameters)[-3:] == wanted
    addresses, read = inspect.getsource(_addresses), inspect.getsource(MPClient.__init__)
    told = set(re.findall(r'"(\w+)": ', addresses))
    assert told == set(re.findall(r'client_addresses(?:\.get\(|\[)"(\w+)"', read))
    assert list(inspect.signature(NoSignalServer).parameters) == ["config", "peer_loads"]
    # Each process has a cache of processed pictures of its own then, and the engine none.
    assert "parallel_config._api_process_count == 1" in inspect.getsource(factories)


def test_a_cancellation_of_chat_serving_becomes_an_error() -> None:
    """Where it no longer does, `_raise_if_cancelled` can go."""
    written = inspect.getsource(OpenAIServingChat.chat_completion_full_generator)
    assert (
        'except asyncio.CancelledError:\n            return self.create_error_response("Client disconnected")'
        in written
    )


def test_the_engines_load_is_told_in_a_header() -> None:
    assert ENDPOINT_LOAD_METRICS_FORMAT_HEADER_LABEL == "endpoint-load-metrics-format"
    assert list(inspect.signature(metrics_header).parameters) == ["metrics_format"]


def test_the_end_of_an_engine_can_be_noticed_and_told() -> None:
    assert isinstance(AsyncLLM.errored, property)
    assert "request_id" in inspect.signature(AsyncLLM.abort).parameters
    assert list(inspect.signature(OutputProcessor.propagate_error).parameters) == ["self", "e"]
    assert issubclass(EngineDeadError, Exception)
    assert issubclass(EngineGenerateError, Exception)


async def test_an_engine_that_is_given_up_takes_no_more(focus: DualFocus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(focus.engine.llm.engine_core.resources, "engine_dead", False)  # put back at the end
    focus.engine.fail_all_requests()
    assert focus.engine.is_dead
    with pytest.raises(EngineDead):
        # A picture of its own: vLLM notes it as sent, though its engine never gets it.
        await focus.ask(Image.new("RGB", (48, 80), (1, 2, 3)), "What?")


def test_what_no_step_can_encode_is_refused_before_it_waits_for_ever(focus: DualFocus) -> None:
    llm, scheduler = focus.engine.llm, focus.engine.llm.vllm_config.scheduler_config
    assert llm.input_processor.mm_encoder_cache_size == scheduler.max_num_encoder_input_tokens
    assert scheduler.encoder_cache_size == 4 * scheduler.max_num_encoder_input_tokens, "more outputs are kept"


def test_no_embeddings_are_taken_for_those_that_a_connector_would_bring(focus: DualFocus) -> None:
    pictures = focus.engine.llm.model_config.multimodal_config
    assert (pictures.enable_mm_embeds, pictures.allow_missing_mm_embeddings) == (False, False)


def test_the_newer_runners_tables_are_as_large_as_is_taken(focus: DualFocus) -> None:
    assert (MAX_BIASED, MAX_ALLOWED, MAX_STOPS) == (
        logit_bias.MAX_NUM_LOGIT_BIAS_TOKENS,
        logit_bias.MAX_NUM_ALLOWED_TOKEN_IDS,
        logit_bias.MAX_NUM_STOP_TOKEN_IDS,
    )
    assert "max_total_tokens = envs.VLLM_MAX_BAD_WORDS_TOTAL_TOKENS" in inspect.getsource(bad_words)


async def test_every_request_is_judged_as_it_is_handed_on(focus: DualFocus) -> None:
    """By both ways through the engine: ours, and what `AsyncLLM.generate` is asked by vLLM's own servings."""
    asked = SamplingParams(logprobs=1, logprob_token_ids=[5], max_tokens=1)
    with pytest.raises(VLLMValidationError, match="logprob_token_ids is not taken here"):
        async for _ in focus.engine.llm.generate({"type": "token", "prompt_token_ids": [5]}, asked, "a"):
            pass
    question = replace(
        Question.about(Image.new("RGB", (64, 64)), "What?"), sampling=SamplingParams(n=2, seed=2**63 - 1)
    )
    with pytest.raises(BadQuestion, match="seed"):
        await focus.answer(question)


async def test_a_stat_logger_is_told_of_every_step(focus: DualFocus) -> None:
    assert {"record", "log_engine_initialized"} <= set(dir(StatLoggerBase))
    begun = time.monotonic()
    await focus.ask(Image.new("RGB", (64, 64)), "What?")
    assert focus.engine.last_step(0) >= begun
