"""How vLLM is started: its arguments, and what its own server sets beside them.

Leans on these parts of vLLM 0.32 (tests/engine/test_vllm_contract.py): `AsyncEngineArgs.create_engine_config` with a
`UsageContext`, from which follow the tokens of a step and the requests at once that are the default;
`AsyncLLM.from_vllm_config`; `scheduler_config.encoder_cache_size`, in tokens; what a `VllmConfig` makes of the flags in
`_obstacles`.
"""

from collections.abc import Iterator
from typing import Any

from vllm.config import VllmConfig
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.usage.usage_lib import UsageContext
from vllm.v1.engine.async_llm import AsyncLLM

from dualfocus_engine.backend.drafts import SPECULATIVE_CONFIG
from dualfocus_engine.backend.ec_connector import ec_transfer_config
from dualfocus_engine.backend.heartbeat import Heartbeat
from dualfocus_engine.errors import ConfigError
from dualfocus_engine.families.profiles import Profile
from dualfocus_engine.machine.platform import engine_defaults
from dualfocus_engine.models import LLAVA_HIGH_RES

# How many times vLLM's own number of encoder outputs are kept: a question's other turn may come a step or two later.
_ENCODER_OUTPUTS = 4


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
    return AsyncEngineArgs(model=model, **(engine_defaults() | ours | given))


def launch(args: AsyncEngineArgs, heartbeat: Heartbeat, profile: Profile) -> AsyncLLM:
    """Start vLLM with the defaults that its own server has.

    Raises ConfigError where a flag, or the profile, makes two looks impossible, before the model is loaded.
    """
    context = UsageContext.OPENAI_API_SERVER
    config = args.create_engine_config(context)
    if (obstacle := next(_obstacles(config, profile), None)) is not None:
        raise ConfigError(f"Two looks are impossible: {obstacle}")
    config.scheduler_config.encoder_cache_size *= _ENCODER_OUTPUTS
    options = {"enable_log_requests": args.enable_log_requests, "disable_log_stats": args.disable_log_stats}
    return AsyncLLM.from_vllm_config(config, stat_loggers=[heartbeat.logger], usage_context=context, **options)


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
