"""The untrained model that tests are run with, and the names that weights are saved under."""

import filecmp
import json
from pathlib import Path

import pytest
from dualfocus_engine.conversion.names import from_transformers
from dualfocus_engine.families.choosing import profile_of
from dualfocus_training.models import untrained


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
    assert from_transformers(name) == published


def test_a_finished_model_is_not_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "share" / "model"
    monkeypatch.setattr(untrained, "untrained_path", lambda: place)
    written: list[Path] = []

    def write(folder: Path) -> None:
        folder.mkdir()
        written.append(folder)
        if len(written) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(untrained, "write_untrained", write)
    with pytest.raises(KeyboardInterrupt):
        untrained.ensure_untrained()
    assert list(place.parent.iterdir()) == [], "what was begun is left behind"
    assert untrained.ensure_untrained() == place
    assert untrained.ensure_untrained() == place
    assert len(written) == 2


def test_a_model_that_another_process_made_first_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "model"
    monkeypatch.setattr(untrained, "untrained_path", lambda: place)

    def write(folder: Path) -> None:
        folder.mkdir()
        place.mkdir()
        (place / "theirs").touch()

    monkeypatch.setattr(untrained, "write_untrained", write)
    assert (untrained.ensure_untrained() / "theirs").exists()


def test_the_model_of_another_version_has_another_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = untrained.untrained_path()
    assert untrained.untrained_path() == before
    another = tmp_path / "another.yaml"
    another.write_text("name: another")
    monkeypatch.setattr(untrained, "_PROFILE", another)
    assert untrained.untrained_path() != before


def test_the_model_is_the_same_bytes_every_time(tmp_path: Path) -> None:
    for name in ("one", "other"):
        untrained.write_untrained(tmp_path / name)
    files = [path.name for path in (tmp_path / "one").iterdir()]
    assert "model.safetensors" in files
    same, *others = filecmp.cmpfiles(tmp_path / "one", tmp_path / "other", files, shallow=False)
    assert (sorted(same), others) == (sorted(files), [[], []])


@pytest.mark.parametrize("side", [112, 336])
def test_its_profile_is_beside_it_with_the_size_that_its_encoder_takes(tmp_path: Path, side: int) -> None:
    untrained.write_untrained(tmp_path, side=side)
    assert profile_of(str(tmp_path)) == untrained.untrained_profile().model_copy(update={"image_size": side})
    assert json.loads((tmp_path / "config.json").read_text())["image_seq_length"] == (side // untrained.PATCH_SIZE) ** 2
