"""A model that lies there in Mistral's own form too."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from dualfocus_engine.backend.launch import engine_args
from dualfocus_engine.backend.model_form import has_mistrals_tokenizer, in_transformers_form

OWN = ("consolidated.safetensors", "params.json", "tekken.json")
FORMS = ("config_format", "tokenizer_mode", "load_format")


def folder(place: Path, *files: str) -> str:
    for name in files:
        (place / name).touch()
    return str(place)


def form(model: str, **flags: Any) -> list[str]:
    args = in_transformers_form(engine_args(model, **flags))
    return [getattr(args, name) for name in FORMS]


def test_it_is_read_as_transformers_has_it(tmp_path: Path) -> None:
    assert form(folder(tmp_path, *OWN, "config.json", "tokenizer.json")) == ["hf"] * 3


@pytest.mark.parametrize("flags", [{name: "mistral"} for name in FORMS])
def test_flags_stand(tmp_path: Path, flags: dict[str, str]) -> None:
    model = folder(tmp_path, *OWN, "config.json", "tokenizer.json")
    assert form(model, **flags) == [flags.get(name, "auto") for name in FORMS]


@pytest.mark.parametrize("files", [OWN, (*OWN, "config.json"), ("config.json", "tokenizer.json", "model.safetensors")])
def test_other_models_are_left_to_vllm(tmp_path: Path, files: tuple[str, ...]) -> None:
    assert form(folder(tmp_path, *files)) == ["auto"] * 3


@pytest.mark.parametrize(
    ("mode", "files", "has"),
    [("mistral", (), True), ("hf", OWN, False), ("auto", OWN, True), ("auto", ("tokenizer.json",), False)],
)
def test_mistrals_tokenizer_is_known_before_the_model_is_loaded(
    tmp_path: Path, mode: str, files: tuple[str, ...], has: bool
) -> None:
    named = {"tokenizer": folder(tmp_path, *files), "tokenizer_revision": None, "hf_token": None}
    model: Any = SimpleNamespace(tokenizer_mode=mode, **named)
    assert has_mistrals_tokenizer(model) is has
