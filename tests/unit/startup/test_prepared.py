"""What `dualfocus serve` makes of its flags."""

from pathlib import Path
from typing import Any

import pytest
from dualfocus_engine import ConfigError, load_profile
from dualfocus_engine.machine import platform
from dualfocus_server.settings import settings_of
from dualfocus_server.startup import prepared
from dualfocus_server.startup.arguments import parse_arguments
from starlette.datastructures import Headers
from vllm.tool_parsers import ToolParserManager


def test_flags_about_the_chat_template_go_before_the_profile(tmp_path: Path) -> None:
    template = tmp_path / "template.jinja"
    template.write_text("{{ messages }}")
    profile = load_profile("llava-dualfocus").model_copy(update={"chat_template_kwargs": {"a": 1, "b": 1}})
    flags = ["--chat-template", str(template), "--chat-template-content-format", "openai"]
    args = parse_arguments([*flags, "--default-chat-template-kwargs", '{"b": 2}'])
    given = prepared._with_flags(profile, args)
    assert (given.chat_template, given.chat_template_content_format) == ("{{ messages }}", "openai")
    assert given.chat_template_kwargs == {"a": 1, "b": 2}
    assert prepared._with_flags(profile, parse_arguments([])) == profile


def test_chat_template_that_is_not_there_is_said() -> None:
    with pytest.raises(ConfigError, match="--chat-template"):
        prepared._with_flags(load_profile("paper"), parse_arguments(["--chat-template", "/nothing/template.jinja"]))


@pytest.mark.parametrize("keys", [[], ["--admin-api-key", "admins"]])
def test_where_administrators_have_no_key_start_up_says_what_is_not_offered(
    keys: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_SERVER_DEV_MODE", "1")
    monkeypatch.delenv("DUALFOCUS_ADMIN_API_KEY", raising=False)
    made = prepared.prepare(parse_arguments([*keys, "--host", "127.0.0.1"]))
    told = "VLLM_SERVER_DEV_MODE is set, but its routes are not offered: they need --admin-api-key"
    assert list(prepared._notes_on_parts(made)) == ([] if keys else [told])
    assert made.admins.keys.is_needed is bool(keys)


@pytest.mark.parametrize(
    ("flags", "is_told"),
    [([], True), (["--host", "0.0.0.0"], False), (["--api-key", "a"], False), (["--uds", "/run/socket"], False)],
)
def test_who_listens_on_every_address_unasked_and_without_keys_is_told_so(
    flags: list[str], is_told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DUALFOCUS_API_KEY", "VLLM_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    made = prepared.prepare(parse_arguments(flags))
    assert any("without a key" in note for note in prepared._notes_on_parts(made)) is is_told


def test_administrators_keys_come_from_the_environment_and_from_a_file_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "keys").write_text("filed\n")
    monkeypatch.setenv("DUALFOCUS_ADMIN_API_KEY", "one,other")
    args = parse_arguments(["--admin-api-key-file", str(tmp_path / "keys")])
    keys = prepared._make_admin(settings_of(args), args).keys
    bearers = [Headers({"Authorization": f"Bearer {key}"}) for key in ("one", "other", "filed", "none")]
    assert [keys.authenticate(headers) is not None for headers in bearers] == [True, True, True, False]
    args = parse_arguments(["--admin-api-key-file", "/nowhere"])
    with pytest.raises(SystemExit, match="--admin-api-key-file /nowhere"):
        prepared._make_admin(settings_of(args), args)


_PARSER = """
from vllm.tool_parsers import ToolParser, ToolParserManager
@ToolParserManager.register_module("of_our_own")
class OurParser(ToolParser):
    pass
"""


def test_an_operators_parsers_are_known_once_they_are_imported(tmp_path: Path) -> None:
    (tmp_path / "of_our_own.py").write_text(_PARSER)
    prepared._import_plugins(parse_arguments(["--tool-parser-plugin", str(tmp_path / "of_our_own.py")]))
    assert ToolParserManager.get_tool_parser("of_our_own").__name__ == "OurParser"
    for flag in ("--tool-parser-plugin", "--reasoning-parser-plugin"):
        with pytest.raises(ConfigError, match=f"{flag} /nowhere.py can't be imported"):
            prepared._import_plugins(parse_arguments([flag, "/nowhere.py"]))


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--tool-call-parser", "hermse"], "--tool-call-parser hermse: there is none of that name, but .*hermes"),
        (["--reasoning-parser", "qwen33"], "--reasoning-parser qwen33: there is none of that name, but .*qwen3"),
        (["--enable-auto-tool-choice"], "--enable-auto-tool-choice needs --tool-call-parser"),
    ],
)
def test_parsers_are_judged_before_the_model_is_loaded(flags: list[str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        prepared.prepare(parse_arguments(flags))


def test_parsers_that_there_are_are_taken() -> None:
    flags = ["--enable-auto-tool-choice", "--tool-call-parser", "hermes", "--reasoning-parser", "qwen3"]
    prepared._check_parsers(parse_arguments(flags))


THREE_IMAGES = "A prompt holds 3 images, the crop among them: a conversation of as many gets no second look."
NOT_SHARED = "Without prefix caching turns share nothing: each computes its whole prompt (--enable-prefix-caching)."
NOT_COUNTED = "With --ec-transfer-config encoder runs are not counted, and turns at once may compute a picture twice."


@pytest.mark.parametrize(
    ("is_cpu", "flags", "size", "said"),
    [
        (True, [], 0.25, ["Up to 0.25 GiB of processed pictures are kept; --mm-processor-cache-gb sets another size."]),
        (True, ["--mm-processor-cache-gb", "2"], 2.0, []),
        (True, ["--mm-processor-cache-gb", "0"], 0.0, []),
        (False, [], 4, []),
        (False, ["--limit-mm-per-prompt", '{"image": 3}'], 4, [THREE_IMAGES]),
        (False, ["--limit-mm-per-prompt", '{"image": {"count": 3, "width": 9}}'], 4, [THREE_IMAGES]),
        (False, ["--limit-mm-per-prompt", '{"video": 1}'], 4, []),
        (False, ["--ec-transfer-config", "{}"], 4, [NOT_COUNTED]),
        (False, ["--no-enable-prefix-caching"], 4, [NOT_SHARED]),
    ],
)
def test_default_that_is_not_vllms_is_said_where_no_flag_was_given(
    monkeypatch: pytest.MonkeyPatch, is_cpu: bool, flags: list[str], size: float, said: list[str]
) -> None:
    monkeypatch.setattr(platform, "is_cpu_build", lambda: is_cpu)
    args = parse_arguments(flags)
    assert args.mm_processor_cache_gb == size
    profile = load_profile("paper").model_copy(update={"notice": ""})
    assert list(prepared._notes(profile, args)) == said
    noted = profile.model_copy(update={"notice": "It is mine."})
    assert list(prepared._notes(noted, args)) == ["It is mine.", *said]


def test_image_tokens_are_set_by_flags_where_the_profile_has_views() -> None:
    flags = ["--whole-tokens", "1024", "--crop-tokens", "128"]
    views = prepared._with_flags(load_profile("qwen3-vl"), parse_arguments(flags)).views
    assert views is not None
    assert (views.whole.most, views.crop.least, views.crop.most) == (1024, 128, 128)
    kept = prepared._with_flags(load_profile("qwen3-vl"), parse_arguments(flags[:2])).views
    assert kept is not None
    assert (kept.whole.most, kept.crop.least, kept.crop.most) == (1024, 256, 1024)


@pytest.mark.parametrize("name", ["paper", "gemma3", "gemma4"])
@pytest.mark.parametrize("flag", ["--whole-tokens", "--crop-tokens"])
def test_image_tokens_are_refused_where_the_processor_alone_sets_them(name: str, flag: str) -> None:
    with pytest.raises(ConfigError, match=f"--whole-tokens and --crop-tokens can't be used with the profile '{name}'"):
        prepared._with_flags(load_profile(name), parse_arguments([flag, "128"]))


@pytest.mark.parametrize("flag", ["--max-regions", "--max-looks"])
def test_how_many_crops_and_looks_there_are_is_the_profiles_unless_a_flag_says_it(flag: str) -> None:
    for flags, most in (([], 4), ([flag, "2"], 2)):
        profile = prepared._with_flags(load_profile("qwen3-vl"), parse_arguments(flags))
        assert getattr(profile, flag[2:].replace("-", "_")) == most


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"grounds": False},
            "can't say where something is: questions without `dualfocus.box` are answered by one look",
        ),
        ({"crop_alone": True}, "one picture a prompt: the crop is asked about in a conversation of its own"),
    ],
)
def test_what_a_model_can_not_do_is_said(changes: dict[str, Any], told: str) -> None:
    args = parse_arguments(["--limit-mm-per-prompt", '{"image": 1}'])
    profile = load_profile("paper")
    more = set(prepared._notes(profile.model_copy(update=changes), args)) - set(prepared._notes(profile, args))
    assert [told in note for note in more] == [True]


def test_a_model_of_one_picture_a_prompt_has_its_second_look() -> None:
    args = parse_arguments(["--limit-mm-per-prompt", '{"image": 1}'])
    notes = list(prepared._notes(load_profile("one-picture"), args))
    assert not any("the crop among them" in note for note in notes)


def test_how_far_a_profile_was_verified_is_said() -> None:
    assert load_profile("qwen3-vl").verified in list(prepared._notes(load_profile("qwen3-vl"), parse_arguments([])))
