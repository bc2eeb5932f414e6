"""What `dualfocus serve` makes of its flags and of the server's end."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from dualfocus_engine import ConfigError, load_profile
from dualfocus_engine.machine import platform
from dualfocus_server.startup import runtime
from dualfocus_server.startup.arguments import parse_arguments
from starlette.applications import Starlette


def test_flags_about_the_chat_template_go_before_the_profile(tmp_path: Path) -> None:
    template = tmp_path / "template.jinja"
    template.write_text("{{ messages }}")
    profile = load_profile("llava-dualfocus").model_copy(update={"chat_template_kwargs": {"a": 1, "b": 1}})
    flags = ["--chat-template", str(template), "--chat-template-content-format", "openai"]
    args = parse_arguments([*flags, "--default-chat-template-kwargs", '{"b": 2}'])
    given = runtime._with_flags(profile, args)
    assert (given.chat_template, given.chat_template_content_format) == ("{{ messages }}", "openai")
    assert given.chat_template_kwargs == {"a": 1, "b": 2}
    assert runtime._with_flags(profile, parse_arguments([])) == profile


def test_chat_template_that_is_not_there_is_said() -> None:
    with pytest.raises(ConfigError, match="--chat-template"):
        runtime._with_flags(load_profile("paper"), parse_arguments(["--chat-template", "/nothing/template.jinja"]))


def test_prefix_is_the_applications_alone() -> None:
    """Uvicorn would put it before paths that have it already."""
    config = runtime._uvicorn_config(Starlette(), parse_arguments(["--root-path", "/llm"]))
    assert config.root_path == ""


async def test_error_that_ends_the_server_is_not_lost() -> None:
    async def serve(sockets: Any) -> None:
        raise OSError("the listener is gone")

    failing = asyncio.create_task(asyncio.Event().wait())
    nothing: Any = None
    with pytest.raises(OSError, match="the listener is gone"):
        await runtime._serve_until(failing, SimpleNamespace(serve=serve), nothing, nothing, nothing)  # type: ignore[arg-type]
    assert failing.cancelling()


THREE_IMAGES = "A prompt holds 3 images, the crop among them: a conversation of as many gets no second look."
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
    ],
)
def test_default_that_is_not_vllms_is_said_where_no_flag_was_given(
    monkeypatch: pytest.MonkeyPatch, is_cpu: bool, flags: list[str], size: float, said: list[str]
) -> None:
    monkeypatch.setattr(platform, "is_cpu_build", lambda: is_cpu)
    args = parse_arguments(flags)
    assert args.mm_processor_cache_gb == size
    profile = load_profile("paper").model_copy(update={"notice": ""})
    assert list(runtime._notes(profile, args)) == said
    noted = profile.model_copy(update={"notice": "It is mine."})
    assert list(runtime._notes(noted, args)) == ["It is mine.", *said]


def test_image_tokens_are_set_by_flags_where_the_profile_has_views() -> None:
    flags = ["--whole-tokens", "1024", "--crop-tokens", "128"]
    views = runtime._with_flags(load_profile("qwen3-vl"), parse_arguments(flags)).views
    assert views is not None
    assert (views.whole.most, views.crop.least, views.crop.most) == (1024, 128, 128)
    kept = runtime._with_flags(load_profile("qwen3-vl"), parse_arguments(flags[:2])).views
    assert kept is not None
    assert (kept.whole.most, kept.crop.least, kept.crop.most) == (1024, 256, 1024)
    with pytest.raises(ConfigError, match=r"--whole-tokens and --crop-tokens can't be used with the profile 'paper'"):
        runtime._with_flags(load_profile("paper"), parse_arguments(flags))


def test_how_far_a_profile_was_verified_is_said() -> None:
    assert load_profile("qwen3-vl").verified in list(runtime._notes(load_profile("qwen3-vl"), parse_arguments([])))
