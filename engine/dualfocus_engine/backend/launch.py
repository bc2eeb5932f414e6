"""How vLLM is started: its arguments, and what its own server sets beside them.

Leans on these parts of vLLM 0.32 (tests/engine/test_vllm_contract.py): `AsyncEngineArgs.create_engine_config` with a
`UsageContext`, from which follow the tokens of a step and the requests at once that are the default;
`AsyncLLM.from_vllm_config`; `scheduler_config.encoder_cache_size` and `InputProcessor.mm_encoder_cache_size`, in
tokens, and `MultiModalBudget`; `MultiModalConfig.enable_mm_embeds` and `.allow_missing_mm_embeddings`; what a
`VllmConfig` makes of the flags in `_obstacles`. For several processes that ask one engine: `bind_engine_zmq_listeners`,
`launch_core_engines`, `AsyncEngineArgs._api_process_count` and `_api_process_rank`, the client's addresses, as vLLM's
`run_multi_api_server`.
"""

from collections.abc import Callable, Iterator
from ctypes import Array, c_double
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from typing import Any

from vllm.config import VllmConfig
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.encoder_budget import MultiModalBudget
from vllm.usage.usage_lib import UsageContext
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.utils import CoreEngineLaunch, EngineZmqListeners, bind_engine_zmq_listeners, launch_core_engines
from vllm.v1.executor import Executor

from dualfocus_engine.backend.engine_core.drafts import SPECULATIVE_CONFIG
from dualfocus_engine.backend.engine_core.ec_connector import CONNECTOR, ec_transfer_config
from dualfocus_engine.backend.engine_core.ending import tell_to_end
from dualfocus_engine.backend.heartbeat import Heartbeat, shared_times
from dualfocus_engine.backend.model_form import WITHOUT_TEXT, has_mistrals_tokenizer, in_transformers_form
from dualfocus_engine.backend.sampling_limits import limit_sampling
from dualfocus_engine.errors import ConfigError
from dualfocus_engine.families.profiles import Profile
from dualfocus_engine.machine.platform import engine_defaults
from dualfocus_engine.models import LLAVA_HIGH_RES

# How many times vLLM's own number of encoder outputs are kept: a question's other turn may come a step or two later.
_ENCODER_OUTPUTS = 4
_CONTEXT = UsageContext.OPENAI_API_SERVER


@dataclass(frozen=True, slots=True)
class EngineClient:
    """How one of `count` processes reaches the engine that they share; to be handed to it as it is started.

    `args` are the engine's own: what is drawn at random in them is to be the same in every process. `last_steps` is
    when each rank last made one, whichever of them saw it.
    """

    args: AsyncEngineArgs
    index: int
    count: int
    addresses: dict[str, Any]
    last_steps: Array[c_double]


def engine_args(model: str, *, draft_boxes: bool = False, **flags: Any) -> AsyncEngineArgs:
    """Return vLLM's engine arguments for `model`: the platform's defaults (docs/vllm.md) under the given flags.

    Raises ConfigError where boxes are to be drafted and a flag stands in the way.
    """
    ours: dict[str, Any] = {"ec_transfer_config": ec_transfer_config(draft_boxes=draft_boxes)}
    if draft_boxes:
        ours["speculative_config"] = SPECULATIVE_CONFIG
    given = {name: value for name, value in flags.items() if name not in ours or value is not None}
    for name in ours.keys() & given.keys() if draft_boxes else ():
        raise ConfigError(f"Boxes can't be drafted beside --{name.replace('_', '-')}: drafting needs it.")
    if draft_boxes and (given.get("pipeline_parallel_size") or 1) > 1:
        # The connector's word on them reaches the workers of the first stage, and those of the last one draft.
        raise ConfigError("Boxes can't be drafted beside --pipeline-parallel-size. Leave --draft-boxes out.")
    return AsyncEngineArgs(model=model, **(engine_defaults() | ours | given))


def launch(
    args: AsyncEngineArgs, heartbeat: Heartbeat, profile: Profile, client: EngineClient | None = None
) -> AsyncLLM:
    """Start vLLM with the defaults that its own server has, or reach an engine that is shared.

    Raises ConfigError where a flag, or the profile, makes two looks impossible, before the model is loaded.
    """
    config = _checked_config(args, profile)
    options: dict[str, Any] = {
        "enable_log_requests": args.enable_log_requests,
        "disable_log_stats": args.disable_log_stats,
        "aggregate_engine_logging": args.aggregate_engine_logging,
    }
    if client is not None:
        options |= {"client_addresses": dict(client.addresses), "client_count": client.count}
        options["client_index"] = client.index
    llm = AsyncLLM.from_vllm_config(config, stat_loggers=[heartbeat.logger], usage_context=_CONTEXT, **options)
    llm.input_processor.mm_encoder_cache_size = _largest_encodable(config)
    limit_sampling(llm)
    return llm


def _largest_encodable(config: VllmConfig) -> int:
    """Return the tokens of the largest item that the scheduler will ever give to the encoder.

    vLLM refuses what is larger than its cache of encoder outputs, which is as large as that where it is its own size.
    In one of `_ENCODER_OUTPUTS` times the size an item may fit that no step can encode: it would wait for ever.
    """
    most: int = MultiModalBudget(config, MULTIMODAL_REGISTRY, enable_cache=False).get_encoder_budget()
    return most


class SharedEngine:
    """An engine whose processes are this one's to watch and to stop, and others' to ask."""

    def __init__(self, launched: CoreEngineLaunch, listeners: EngineZmqListeners) -> None:
        self._manager, self._coordinator = launched.engine_manager, launched.coordinator
        self._listeners = listeners  # their paths go with them

    @property
    def processes(self) -> list[BaseProcess]:
        """The engine's processes on this machine; where one ends, so has the engine."""
        coordinator = [self._coordinator.proc] if self._coordinator else []
        return [*(self._manager.processes if self._manager else ()), *coordinator]

    def stop(self, timeout: float) -> None:
        """Stop them; `timeout` is what they get to end by themselves, in seconds."""
        tell_to_end(self._manager.processes if self._manager else ())
        for part in filter(None, (self._manager, self._coordinator)):
            part.shutdown(timeout=timeout)
        self._listeners.cleanup()


def launch_shared(
    args: AsyncEngineArgs, profile: Profile, count: int, start: Callable[[EngineClient], BaseProcess]
) -> SharedEngine:
    """Start vLLM's engine for `count` processes that `start` starts; blocks until the model is loaded.

    Raises ConfigError as `launch` does, RuntimeError where the engine or one of the processes ends meanwhile; nothing
    of the engine is left running then.
    """
    config = _checked_config(replace(args, _api_process_count=count, _api_process_rank=-1), profile)
    listeners = bind_engine_zmq_listeners(config, count)
    engine: SharedEngine | None = None
    last_steps = shared_times(args.data_parallel_size)
    try:
        with launch_core_engines(config, Executor.get_class(config), True, listeners.addresses) as launched:
            engine = SharedEngine(launched, listeners)
            launched.watched_frontend_processes = [
                start(_client(args, index, count, _addresses(pair, launched), last_steps))
                for index, pair in enumerate(zip(listeners.inputs, listeners.outputs, strict=True))
            ]
            for listener in (*listeners.inputs, *listeners.outputs):
                listener.close()  # they are the other processes' now
    except BaseException:
        if engine is not None:
            engine.stop(0)
        raise
    return engine


def _client(
    args: AsyncEngineArgs, index: int, count: int, addresses: dict[str, Any], last_steps: Array[c_double]
) -> EngineClient:
    own = replace(args, _api_process_count=count, _api_process_rank=index)
    return EngineClient(own, index, count, addresses, last_steps)


def _addresses(listeners: tuple[Any, Any], launched: CoreEngineLaunch) -> dict[str, Any]:
    incoming, outgoing = listeners
    return {
        "input_address": incoming.address,
        "output_address": outgoing.address,
        "input_listener": incoming.socket,
        "output_listener": outgoing.socket,
        "stats_update_address": launched.addresses.frontend_stats_publish_address,
        "tensor_queue": launched.tensor_queue,
    }


def _checked_config(args: AsyncEngineArgs, profile: Profile) -> VllmConfig:
    """Return vLLM's settings. Raises ConfigError where a flag makes two looks impossible."""
    config = in_transformers_form(args).create_engine_config(_CONTEXT)
    if (obstacle := next(_obstacles(config, profile), None)) is not None:
        raise ConfigError(f"Two looks are impossible: {obstacle}")
    config.scheduler_config.encoder_cache_size *= _ENCODER_OUTPUTS
    _take_embeddings_where_asked(config, args)
    return config


def _take_embeddings_where_asked(config: VllmConfig, args: AsyncEngineArgs) -> None:
    """Undo what vLLM allows whoever is sent encoder outputs by a connector: ours brings none."""
    pictures, kv = config.model_config.multimodal_config, config.kv_transfer_config
    is_ours = config.ec_transfer_config is not None and config.ec_transfer_config.ec_connector == CONNECTOR
    if pictures is not None and is_ours and not (kv is not None and kv.is_kv_consumer):
        pictures.enable_mm_embeds, pictures.allow_missing_mm_embeddings = args.enable_mm_embeds, False


def _obstacles(config: VllmConfig, profile: Profile) -> Iterator[str]:
    """Say what keeps every question from its second look, and what to do."""
    model, images = config.model_config, profile.micro_images
    pictures = model.multimodal_config
    if pictures is None:
        yield f"{model.model} takes no pictures. Serve a vision-language model, or this one with `vllm serve`."
    elif pictures.language_model_only:
        yield "with --language-model-only the model takes no pictures. Leave it out."
    elif (limit := pictures.get_limit_per_prompt("image")) < images:
        yield (
            f"--limit-mm-per-prompt allows {limit} images in a prompt, and the second look's holds {images}. "
            f"Give '{{\"image\": {images}}}' or more, or leave it out."
        )
    if profile.crop_in_picture and model.architecture != LLAVA_HIGH_RES:
        yield (
            f"the profile {profile.name!r} shows the crop as a patch of its picture, and {model.architecture} takes "
            f"none ({LLAVA_HIGH_RES} does). Give another --profile."
        )
    if has_mistrals_tokenizer(model):
        yield (
            "Mistral's own tokenizer writes conversations in which no turn continues another. Give --config-format hf "
            "--tokenizer-mode hf --load-format hf, for a model that has config.json and tokenizer.json."
        )
    if model.tokenizer_mode in WITHOUT_TEXT:
        yield (
            f"by --tokenizer-mode {model.tokenizer_mode} (vLLM's own for some models) a conversation has no text that "
            "a turn could be continued by. Serve the model with `vllm serve`."
        )
    if model.runner_type != "generate":
        yield "by --runner pooling or --convert the model writes no answers. Leave both out."
    if config.is_mm_encoder_only:
        yield "by --mm-encoder-only, or an --ec-transfer-config of the role ec_producer, the model writes no answers."
    if model.skip_tokenizer_init:
        yield "--skip-tokenizer-init leaves out the tokenizer that questions are put to the model with. Leave it out."
    if model.logprobs_mode != "raw_logprobs":
        yield "perplexities need --logprobs-mode raw_logprobs (vLLM's default)."
    if config.cache_config.kv_sharing_fast_prefill:
        yield "--kv-sharing-fast-prefill ends the engine where an answer is scored (structured output). Leave it out."
