"""What can't be had of several processes, each of which has a part of what the server knows."""

from argparse import Namespace
from collections.abc import Iterator

from dualfocus_engine import ConfigError
from vllm import envs

from dualfocus_server.settings import Settings


def check_several(args: Namespace, settings: Settings) -> None:
    """Raise ConfigError over the first flag, or variable, that goes with one process only."""
    if (obstacle := next(_obstacles(args, settings), None)) is not None:
        raise ConfigError(f"--api-server-count {args.api_server_count} can't be used with {obstacle}.")


def _obstacles(args: Namespace, settings: Settings) -> Iterator[str]:
    if envs.VLLM_ALLOW_RUNTIME_LORA_UPDATING:
        yield "VLLM_ALLOW_RUNTIME_LORA_UPDATING: an adapter would be served by the process that was told of it alone"
    if settings.store_responses:
        yield "VLLM_ENABLE_RESPONSES_API_STORE: a response would be known to the process that made it alone"
    if (args.grounder or "").partition(":")[0] == "grounding-dino":
        yield (
            "--grounder grounding-dino: each process would load the detector once more. Serve it by itself and give "
            "--grounder http:URL"
        )
    if args.enable_elastic_ep:
        yield "--enable-elastic-ep: vLLM scales an engine for one process only"
    if args.enable_fault_tolerance:
        yield "--enable-fault-tolerance: vLLM has it for one process only"
    if "ray" in (args.data_parallel_backend, args.distributed_executor_backend):
        yield "Ray (--data-parallel-backend, --distributed-executor-backend): nobody has tried it"
