"""The engine's package without vLLM: what importing it costs, its errors, its platform, its starter."""

import filecmp
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from dualfocus_engine import platform, starter
from dualfocus_engine.errors import BadPicture, BadQuestion, ContextFull, DualFocusError, EngineDead, ErrorKind
from dualfocus_engine.profiles import profile_of, shipped_profile


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
    with pytest.raises(ModuleNotFoundError, match=r"dualfocus\[gpu\] or dualfocus\[cpu\]"):
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
    ("name", "published"),
    [
        (
            "model.vision_tower.vision_model.encoder.layers.0.mlp.fc1.weight",
            "vision_tower.vision_model.encoder.layers.0.mlp.fc1.weight",
        ),
        ("model.vision_tower.post_layernorm.bias", "vision_tower.vision_model.post_layernorm.bias"),
        ("model.language_model.layers.0.mlp.up_proj.weight", "language_model.model.layers.0.mlp.up_proj.weight"),
        ("model.multi_modal_projector.linear_1.weight", "multi_modal_projector.linear_1.weight"),
        ("lm_head.weight", "language_model.lm_head.weight"),
    ],
)
def test_weights_are_saved_under_their_published_names(name: str, published: str) -> None:
    assert starter._published_name(name) == published


def test_finished_starter_is_not_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "share" / "model"
    monkeypatch.setattr(starter, "starter_path", lambda: place)
    written: list[Path] = []

    def write(folder: Path) -> None:
        folder.mkdir()
        written.append(folder)
        if len(written) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(starter, "write_starter", write)
    with pytest.raises(KeyboardInterrupt):
        starter.ensure_starter()
    assert list(place.parent.iterdir()) == [], "what was begun is left behind"
    assert starter.ensure_starter() == place
    assert starter.ensure_starter() == place
    assert len(written) == 2


def test_starter_that_another_process_made_first_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "model"
    monkeypatch.setattr(starter, "starter_path", lambda: place)

    def write(folder: Path) -> None:
        folder.mkdir()
        place.mkdir()
        (place / "theirs").touch()

    monkeypatch.setattr(starter, "write_starter", write)
    assert (starter.ensure_starter() / "theirs").exists()


def test_starter_of_another_version_has_another_place(monkeypatch: pytest.MonkeyPatch) -> None:
    before = starter.starter_path()
    assert starter.starter_path() == before
    monkeypatch.setattr(starter, "shipped_profile", lambda name: "another")
    assert starter.starter_path() != before


def test_the_starter_is_the_same_bytes_every_time(tmp_path: Path) -> None:
    for name in ("one", "other"):
        starter.write_starter(tmp_path / name)
    files = [path.name for path in (tmp_path / "one").iterdir()]
    assert "model.safetensors" in files
    same, *others = filecmp.cmpfiles(tmp_path / "one", tmp_path / "other", files, shallow=False)
    assert (sorted(same), others) == (sorted(files), [[], []])


def test_starters_profile_is_the_one_that_ships(tmp_path: Path) -> None:
    (tmp_path / "dualfocus.yaml").write_text(shipped_profile(starter.STARTER_PROFILE))
    profile = profile_of(str(tmp_path))
    assert profile.name == "starter"
    assert profile.side == starter.IMAGE_SIZE
    assert starter.IMAGE_SIZE % starter.PATCH_SIZE == 0
