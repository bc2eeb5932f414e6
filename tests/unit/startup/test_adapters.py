"""Profiles of adapters: which are taken, and what is said of those that are not."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from dualfocus_engine import ConfigError, DualFocus, Profile, load_profile
from dualfocus_server.startup.adapters import adapter_profiles, warm_adapters
from dualfocus_server.startup.arguments import parse_arguments

from ..fake_engine import FakeEngine, focus_on

BASE = load_profile("paper")
MODULES = ["--lora-modules", "one=/adapters/one", '{"name": "other", "path": "/adapters/other"}']


def read(*flags: str) -> dict[str, Profile]:
    return adapter_profiles(parse_arguments(list(flags)), BASE, lambda profile: profile)


def test_each_adapter_may_have_a_profile_by_name_or_file(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(yaml.safe_dump(BASE.model_dump(mode="json") | {"name": "own"}))
    profiles = read(*MODULES, "--lora-profiles", f"one={file}", "other=qwen3-vl")
    assert {name: profile.name for name, profile in profiles.items()} == {"one": "own", "other": "qwen3-vl"}
    assert read(*MODULES) == {}


def test_flags_go_before_an_adapters_profile_as_before_the_models() -> None:
    args = parse_arguments([*MODULES, "--lora-profiles", "one=paper"])
    profiles = adapter_profiles(args, BASE, lambda profile: profile.model_copy(update={"temperature": 0.5}))
    assert profiles["one"].temperature == 0.5


def test_one_file_of_options_may_name_several(tmp_path: Path) -> None:
    config = tmp_path / "serve.yaml"
    config.write_text(yaml.safe_dump({"lora-profiles": ["one=paper", "other=qwen3-vl"]}))
    assert parse_arguments(["--config", str(config)]).lora_profiles == [("one", "paper"), ("other", "qwen3-vl")]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["none=paper"], "--lora-profiles none=paper: there is no such adapter. Those of --lora-modules: one, other."),
        (["one=nonesuch"], "--lora-profiles one=nonesuch: No profile 'nonesuch': give one of "),
        (["one=paper", "one=paper"], "--lora-profiles one=paper: it is named twice."),
        (
            ["one=llava-dualfocus"],
            "--lora-profiles one=llava-dualfocus: The profile .* another pad_color, image_size or crop_in_picture",
        ),
    ],
)
def test_what_is_wrong_with_one_names_the_flag(given: list[str], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLLM_ALLOW_RUNTIME_LORA_UPDATING", raising=False)
    with pytest.raises(ConfigError, match=said):
        read(*MODULES, "--lora-profiles", *given)


def test_a_profile_that_can_not_be_read_names_the_flag(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("name: [")
    with pytest.raises(ConfigError, match=r"--lora-profiles one=.*bad.yaml: The profile .* can't be used"):
        read(*MODULES, "--lora-profiles", f"one={tmp_path / 'bad.yaml'}")


@pytest.mark.parametrize("given", ["one", "=paper", "one="])
def test_what_is_no_pair_is_refused(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_arguments(["--lora-profiles", given])
    assert f"argument --lora-profiles: '{given}' is not NAME=PROFILE" in capsys.readouterr().err


def test_where_adapters_may_be_loaded_later_any_name_may_have_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_ALLOW_RUNTIME_LORA_UPDATING", "1")
    assert set(read("--lora-profiles", "later=paper")) == {"later"}


async def test_each_is_tried_before_the_server_is_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    focus, tried = focus_on(FakeEngine()), []

    def with_profile(self: DualFocus, profile: Profile) -> DualFocus:
        return focus_on(FakeEngine(micro=RuntimeError("no room")) if profile is BASE else FakeEngine())

    async def warm_up(self: DualFocus, doing: Any = DualFocus.warm_up) -> None:
        tried.append(self)
        await doing(self)

    monkeypatch.setattr(DualFocus, "with_profile", with_profile)
    monkeypatch.setattr(DualFocus, "warm_up", warm_up)
    adapters = await warm_adapters(focus, {"one": load_profile("qwen3-vl"), "other": load_profile("internvl")})
    assert tried == [adapters["one"], adapters["other"]]
    with pytest.raises(ConfigError, match=r"--lora-profiles bad=.*The micro turn can't be run"):
        await warm_adapters(focus, {"bad": BASE})
