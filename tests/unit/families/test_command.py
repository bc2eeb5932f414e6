"""`dualfocus profiles`: what ships, one of them, and which one is taken."""

import json
from pathlib import Path

import pytest
from dualfocus_engine.families.command import main
from dualfocus_engine.families.profiles import load_profile, profile_names, shipped_profile


def test_profiles_are_listed_with_their_models_and_how_far_they_were_tried(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    told = capsys.readouterr().out
    for name in profile_names():
        assert f"{name} (" in told
        assert all(architecture in told for architecture in load_profile(name).architectures)
    assert load_profile("qwen3-vl").verified in told


def test_one_is_printed_as_a_file_to_begin_with(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["qwen3-vl"]) == 0
    printed = capsys.readouterr().out
    assert printed.strip() == shipped_profile("qwen3-vl").strip()
    (tmp_path / "mine.yaml").write_text(printed)
    assert load_profile(str(tmp_path / "mine.yaml")) == load_profile("qwen3-vl")


def test_a_models_profile_is_named_with_the_reason(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["Qwen3VLForConditionalGeneration"]}))
    assert main(["--for", str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith(
        "qwen3-vl (the model's architecture is Qwen3VLForConditionalGeneration)\n  Verified: "
    )
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["Another"]}))
    assert main(["--for", str(tmp_path)]) == 0
    assert "for which there is no profile" in capsys.readouterr().out


@pytest.mark.parametrize("argv", [["vicuna"], ["--for", "/no/such/model"]])
def test_what_there_is_not_is_said(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 1
    assert capsys.readouterr().err.startswith("error: ")
