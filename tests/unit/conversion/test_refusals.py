"""What can't be converted is refused in words that help, and leaves nothing behind."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from dualfocus_engine.conversion import command, writing
from dualfocus_engine.conversion.convert import plan
from dualfocus_engine.errors import ConfigError

from .original import (
    config,
    inside,
    language_weights,
    projector_weights,
    tower_weights,
    write_beside,
    write_checkpoint,
    write_tower,
)


@pytest.fixture
def tower(tmp_path: Path) -> Path:
    return write_tower(tmp_path / "clip", tower_weights())


@pytest.fixture
def llava(tmp_path: Path, tower: Path) -> Path:
    return write_checkpoint(tmp_path / "llava", config(str(tower)), language_weights() | projector_weights())


def refusal(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], *flags: str) -> str:
    """What the command says; nothing of the target is there."""
    before = sorted(tmp_path.iterdir())
    assert command.main([str(source), str(tmp_path / "out"), *flags]) == 1
    assert sorted(tmp_path.iterdir()) == before
    return capsys.readouterr().err.splitlines()[-1]


def test_another_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text(json.dumps({"architectures": ["Qwen2ForCausalLM"]}))
    told = refusal(other, tmp_path, capsys)
    assert "not in LLaVA's original format (Qwen2ForCausalLM): it is no LLaVA" in told


def test_one_that_is_converted_already(tmp_path: Path, llava: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([str(llava), str(tmp_path / "converted")]) == 0
    assert "it can be served as it is" in refusal(tmp_path / "converted", tmp_path, capsys)


def test_a_folder_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "it is no folder, and the hub can't give it" in refusal(tmp_path / "none", tmp_path, capsys)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("mm_projector_type", "linear"),
        ("mm_use_im_start_end", True),
        ("mm_patch_merge_type", "spatial"),
        ("image_aspect_ratio", "square"),
        ("architectures", ["LlavaMistralForCausalLM"]),
        ("vocab_size", 421),
        ("torch_dtype", "int8"),
    ],
)
def test_what_is_not_built(field: str, value: Any, tmp_path: Path, tower: Path) -> None:
    weights = language_weights() | projector_weights()
    source = write_checkpoint(tmp_path / "llava", config(str(tower), **{field: value}), weights)
    with pytest.raises(ConfigError, match=str(value).strip("[]'")):
        plan(str(source))


def test_a_tower_that_can_not_be_had(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = language_weights() | projector_weights()
    source = write_checkpoint(tmp_path / "llava", config("/mnt/cluster/clip"), weights)
    told = refusal(source, tmp_path, capsys)
    assert "/mnt/cluster/clip" in told
    assert "name its folder with --vision-tower" in told


@pytest.mark.parametrize("bins", [False, True], ids=["safetensors", "bin"])
@pytest.mark.parametrize("keep", [0, 3, 100, -1000])
def test_a_shard_that_is_cut_off(
    bins: bool, keep: int, tmp_path: Path, tower: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = language_weights() | projector_weights()
    source = write_checkpoint(tmp_path / "llava", config(str(tower)), weights, bins=bins)
    (shard,) = source.glob("*-00002-of-00002.*")
    shard.write_bytes(shard.read_bytes()[:keep])
    told = refusal(source, tmp_path, capsys)
    assert f"{shard}: it can't be read as weights" in told
    assert "Download it again." in told


def test_a_shard_that_is_missing(tmp_path: Path, llava: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (llava / "model-00001-of-00002.safetensors").unlink()
    assert "model-00001-of-00002.safetensors is missing" in refusal(llava, tmp_path, capsys)


def test_code_in_a_pickle_is_not_run(tmp_path: Path, tower: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = language_weights() | projector_weights()
    source = write_checkpoint(tmp_path / "llava", config(str(tower)), weights, bins=True)
    torch.save({"lm_head.weight": _Runs(tmp_path / "ran")}, source / "pytorch_model-00001-of-00002.bin")
    assert "it holds more than tensors, which is never run" in refusal(source, tmp_path, capsys)


def test_weights_that_do_not_fit_the_configuration(
    tmp_path: Path, tower: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = language_weights() | projector_weights()
    del weights["model.norm.weight"]
    source = write_checkpoint(tmp_path / "llava", config(str(tower)), weights)
    assert "language_model.model.norm.weight should be (64,), it is none" in refusal(source, tmp_path, capsys)


def test_a_weight_that_is_unknown(tmp_path: Path, tower: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = language_weights() | projector_weights() | {"model.vq.weight": torch.ones(1)}
    source = write_checkpoint(tmp_path / "llava", config(str(tower)), weights)
    assert "'model.vq.weight' is no weight of LLaVA's" in refusal(source, tmp_path, capsys)


def test_a_tower_inside_that_lacks_a_weight(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = inside(tower_weights())
    del own["model.vision_tower.vision_tower.vision_model.embeddings.patch_embedding.weight"]
    weights = language_weights() | projector_weights() | own
    source = write_checkpoint(tmp_path / "llava", config("/none", unfreeze_mm_vision_tower=True), weights)
    assert "patch_embedding" in refusal(source, tmp_path, capsys)


def test_no_tokenizer(tmp_path: Path, llava: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (llava / "tokenizer.model").unlink()
    assert "there is no tokenizer.model" in refusal(llava, tmp_path, capsys)


def test_a_target_that_exists_is_left_alone(tmp_path: Path, llava: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("kept")
    assert "it exists already" in refusal(llava, tmp_path, capsys)
    assert (tmp_path / "out" / "mine").read_text() == "kept"


def test_a_disk_with_too_little_room(
    tmp_path: Path, llava: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(writing.shutil, "disk_usage", lambda path: usage)
    assert "the disk has 0.0 GB free, the converted model needs" in refusal(llava, tmp_path, capsys)


def test_a_disk_that_fills_up(
    tmp_path: Path, llava: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(writing, "save_file", full)
    assert "the disk is full" in refusal(llava, tmp_path, capsys)


def test_a_run_that_is_killed_leaves_no_folder_that_looks_whole(tmp_path: Path, llava: Path) -> None:
    kill = (
        "import os, signal, sys\n"
        "from dualfocus_engine.conversion import convert as conversion\n"
        "conversion._check_whole = lambda *shapes: os.kill(os.getpid(), signal.SIGKILL)\n"
        "from dualfocus_engine.conversion.command import main\n"
        "main(sys.argv[1:])\n"
    )
    done = subprocess.run([sys.executable, "-c", kill, str(llava), str(tmp_path / "out")], capture_output=True)
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.part" / "config.json").exists()
    assert command.main([str(llava), str(tmp_path / "out")]) == 0
    assert not (tmp_path / "out.part").exists()


def test_an_adapter_needs_its_base(tmp_path: Path, tower: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "projector"
    folder.mkdir()
    write_beside(folder, config(str(tower)))
    torch.save(projector_weights(), folder / "mm_projector.bin")
    assert "name the model it was trained on, --base" in refusal(folder, tmp_path, capsys)


class _Runs:
    """Would make a file if it were unpickled."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._file,)
