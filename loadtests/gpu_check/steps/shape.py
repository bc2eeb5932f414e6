"""LLaVA-1.5-7B's shape, served without weights of its own and asked by the load generator; tiny, on request."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dualfocus_training.models.untrained import ensure_untrained

from loadtests.asking.model import SEVEN_BILLION, ensure_model, model_folder
from loadtests.bench import run_experiments, servers_of
from loadtests.gpu_check.settings import Settings
from loadtests.gpu_check.steps.memory import watched_memory
from loadtests.plan import Experiment, Subject, llava_model, seven_billion

# Beside it lies what vLLM does not count: the encoder's outputs, of which four times as many are kept as by default.
_MEMORY_SHARE = 0.9
# As many questions are worked on as are ever asked at once; by default it would be half of them.
_FLAGS = ("--max-num-batched-tokens", "8192", "--max-model-len", "4096", "--max-questions", "128")


def shape(settings: Settings) -> Subject:
    """Return the model that is measured, written first where it is absent."""
    dummy = ("--load-format", "dummy", *(("--enforce-eager",) if settings.eager else ()))
    if settings.tiny:
        tiny = replace(llava_model(ensure_untrained()), title="a tiny LLaVA, random weights", threads=1)
        flags = ("--kv-cache-memory-bytes", str(256 << 20), "--max-num-batched-tokens", "4096", *dummy)
        return replace(tiny, flags={"all": flags})
    subject = seven_billion(ensure_model(model_folder(Path("runs") / "bench", "llava-7b"), SEVEN_BILLION))
    return replace(subject, flags={"all": ("--gpu-memory-utilization", str(_MEMORY_SHARE), *_FLAGS, *dummy)})


def run_plan(settings: Settings, step: str, plan: Sequence[Experiment]) -> None:
    """Start the shape's server, write down how long that took, and run experiments on it in order."""
    subject, folder = shape(settings), settings.folder / step
    folder.mkdir(exist_ok=True)
    servers, began = servers_of(subject, folder), time.monotonic()
    try:
        with watched_memory(settings.journal, step, _MEMORY_SHARE):
            servers.need(plan[0].kinds)
            settings.journal.write(step, start_s=round(time.monotonic() - began, 1))
            run_experiments(servers, subject, plan, [one.key for one in plan], folder)
    finally:
        servers.stop_all()
