"""The engine's package without vLLM: what importing it costs, its errors, its platform."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from dualfocus_engine.errors import BadPicture, BadQuestion, ContextFull, DualFocusError, EngineDead, ErrorKind
from dualfocus_engine.machine import platform


def test_importing_the_engine_imports_no_vllm_and_no_torch() -> None:
    # vLLM reads its environment when it is imported: prepare_environment() has to come first.
    code = "import dualfocus_engine, sys, json; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"vllm", "torch", "transformers", "fastapi", "httpx"} & set(json.loads(done.stdout))


@pytest.mark.parametrize(
    ("error", "kind", "name"),
    [
        (BadPicture("x"), ErrorKind.BAD_PICTURE, "invalid_image"),
        (BadQuestion("x"), ErrorKind.BAD_QUESTION, "invalid_value"),
        (ContextFull(2, 1), ErrorKind.CONTEXT_FULL, "context_length_exceeded"),
        (EngineDead(), ErrorKind.ENGINE_DEAD, "engine_dead"),
    ],
)
def test_errors_have_stable_names(error: DualFocusError, kind: ErrorKind, name: str) -> None:
    assert isinstance(error, DualFocusError)
    assert error.kind is kind
    assert error.kind.value == name


def test_full_context_says_how_full_and_what_to_do() -> None:
    message = str(ContextFull(5000, 4096))
    for part in ("5000", "4096", "--max-model-len"):
        assert part in message


def test_users_environment_goes_before_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "DEBUG")
    monkeypatch.delenv("VLLM_NO_USAGE_STATS", raising=False)
    before = dict(os.environ)
    try:
        platform.prepare_environment()
        assert os.environ["VLLM_LOGGING_LEVEL"] == "DEBUG"
        assert os.environ["VLLM_NO_USAGE_STATS"] == "1"
    finally:
        os.environ.clear()
        os.environ.update(before)


def test_missing_vllm_is_said_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"\.\[gpu\]"):
        platform.prepare_environment()


@pytest.mark.parametrize("on_cpu", [True, False])
def test_prefixes_are_cached_on_every_machine(monkeypatch: pytest.MonkeyPatch, on_cpu: bool) -> None:
    monkeypatch.setattr(platform, "is_cpu_build", lambda: on_cpu)
    defaults = platform.engine_defaults()
    assert defaults["enable_prefix_caching"] is True
    assert ("enforce_eager" in defaults) is on_cpu


def test_defaults_of_one_caller_are_not_anothers() -> None:
    platform.engine_defaults()["enable_prefix_caching"] = False
    assert platform.engine_defaults()["enable_prefix_caching"] is True


@pytest.mark.parametrize(
    ("programs", "named", "compiles"),
    [
        (["cuda/bin/nvcc", "bin/c++", "bin/ninja"], None, True),
        (["bin/nvcc", "bin/c++", "bin/ninja"], None, True),
        (["bin/nvcc", "bin/c++", "bin/ninja"], "mine", False),
        (["mine/bin/nvcc", "bin/c++", "bin/ninja"], "mine", True),
        (["cuda/bin/nvcc", "bin/ninja"], None, False),
        (["cuda/bin/nvcc", "bin/c++"], None, False),
        (["bin/c++", "bin/ninja"], None, False),
    ],
)
def test_on_a_gpu_vllms_own_kernels_are_taken_where_flashinfer_and_deepgemm_could_not_compile_theirs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, programs: list[str], named: str | None, compiles: bool
) -> None:
    """Such a machine has a driver and no CUDA toolkit: PyTorch brings the rest."""
    for name in programs:
        program = tmp_path / name
        program.parent.mkdir(parents=True, exist_ok=True)
        program.touch(mode=0o755)
    environment = {"PATH": str(tmp_path / "bin")} | ({"CUDA_HOME": str(tmp_path / named)} if named else {})
    monkeypatch.setattr(os, "environ", environment)
    monkeypatch.setattr(platform, "_CUDA", str(tmp_path / "cuda"))
    monkeypatch.setattr(platform, "is_cpu_build", lambda: False)
    platform.prepare_environment()
    for name in ("VLLM_USE_FLASHINFER_SAMPLER", "VLLM_USE_DEEP_GEMM"):
        assert environment.get(name) == (None if compiles else "0")
