"""What `dualfocus serve` makes of its flags and of the server's end."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from dualfocus_engine import ConfigError, load_profile
from dualfocus_engine.machine import platform
from dualfocus_server.guards.admission import Admission
from dualfocus_server.settings import Settings, settings_of
from dualfocus_server.startup import runtime
from dualfocus_server.startup.arguments import parse_arguments
from dualfocus_server.startup.draining import Server
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from vllm.tool_parsers import ToolParserManager

from ..fake_engine import WAIT
from ..local_web import self_signed


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


@pytest.mark.parametrize("keys", [[], ["--admin-api-key", "admins"]])
def test_where_administrators_have_no_key_start_up_says_what_is_not_offered(
    keys: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VLLM_SERVER_DEV_MODE", "1")
    monkeypatch.delenv("DUALFOCUS_ADMIN_API_KEY", raising=False)
    args = parse_arguments(keys)
    admins = runtime._make_admin(settings_of(args), args)
    told = "note: VLLM_SERVER_DEV_MODE is set, but its routes are not offered: they need --admin-api-key\n"
    assert capsys.readouterr().err == ("" if keys else told)
    assert admins.keys.is_needed is bool(keys)


def test_administrators_keys_come_from_the_environment_and_from_a_file_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "keys").write_text("filed\n")
    monkeypatch.setenv("DUALFOCUS_ADMIN_API_KEY", "one,other")
    args = parse_arguments(["--admin-api-key-file", str(tmp_path / "keys")])
    keys = runtime._make_admin(settings_of(args), args).keys
    bearers = [Headers({"Authorization": f"Bearer {key}"}) for key in ("one", "other", "filed", "none")]
    assert [keys.authenticate(headers) is not None for headers in bearers] == [True, True, True, False]
    args = parse_arguments(["--admin-api-key-file", "/nowhere"])
    with pytest.raises(SystemExit, match="--admin-api-key-file /nowhere"):
        runtime._make_admin(settings_of(args), args)


_PARSER = """
from vllm.tool_parsers import ToolParser, ToolParserManager
@ToolParserManager.register_module("of_our_own")
class OurParser(ToolParser):
    pass
"""


def test_an_operators_parsers_are_known_once_they_are_imported(tmp_path: Path) -> None:
    (tmp_path / "of_our_own.py").write_text(_PARSER)
    runtime._import_plugins(parse_arguments(["--tool-parser-plugin", str(tmp_path / "of_our_own.py")]))
    assert ToolParserManager.get_tool_parser("of_our_own").__name__ == "OurParser"
    for flag in ("--tool-parser-plugin", "--reasoning-parser-plugin"):
        with pytest.raises(ConfigError, match=f"{flag} /nowhere.py can't be imported"):
            runtime._import_plugins(parse_arguments([flag, "/nowhere.py"]))


def test_limits_on_headers_and_ciphers_reach_uvicorn() -> None:
    asked = ["--h11-max-incomplete-event-size", "9000", "--ssl-ciphers", "ECDHE-RSA-AES256-GCM-SHA384"]
    config = runtime._uvicorn_config(Starlette(), parse_arguments(asked), Settings())
    assert (config.h11_max_incomplete_event_size, config.ssl_ciphers) == (9000, asked[-1])
    config = runtime._uvicorn_config(Starlette(), parse_arguments([]), Settings())
    assert config.h11_max_incomplete_event_size == 64 << 10


async def test_certificates_are_read_again_when_their_files_change(tmp_path: Path) -> None:
    certificate, key = self_signed("first.example", tmp_path)
    files = ["--ssl-certfile", str(certificate), "--ssl-keyfile", str(key)]
    args = parse_arguments([*files, "--enable-ssl-refresh"])
    config = runtime._uvicorn_config(Starlette(), args, Settings())
    with runtime._renewing_certificates(config, args):
        server = await asyncio.start_server(lambda *given: None, "127.0.0.1", 0, ssl=config.ssl)
        address = server.sockets[0].getsockname()
        assert await asyncio.to_thread(ssl.get_server_certificate, address) == certificate.read_text()
        await asyncio.sleep(0.5)  # the files are watched from now on
        self_signed("second.example", tmp_path)
        async with asyncio.timeout(WAIT):
            while await asyncio.to_thread(ssl.get_server_certificate, address) != certificate.read_text():  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        server.close()


def test_prefix_is_the_applications_alone() -> None:
    """Uvicorn would put it before paths that have it already."""
    config = runtime._uvicorn_config(Starlette(), parse_arguments(["--root-path", "/llm"]), Settings())
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


@pytest.mark.parametrize("flag", ["--max-regions", "--max-looks"])
def test_how_many_crops_and_looks_there_are_is_the_profiles_unless_a_flag_says_it(flag: str) -> None:
    for flags, most in (([], 4), ([flag, "2"], 2)):
        profile = runtime._with_flags(load_profile("qwen3-vl"), parse_arguments(flags))
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
    more = set(runtime._notes(profile.model_copy(update=changes), args)) - set(runtime._notes(profile, args))
    assert [told in note for note in more] == [True]


def test_a_model_of_one_picture_a_prompt_has_its_second_look() -> None:
    args = parse_arguments(["--limit-mm-per-prompt", '{"image": 1}'])
    notes = list(runtime._notes(load_profile("one-picture"), args))
    assert not any("the crop among them" in note for note in notes)


def test_how_far_a_profile_was_verified_is_said() -> None:
    assert load_profile("qwen3-vl").verified in list(runtime._notes(load_profile("qwen3-vl"), parse_arguments([])))


@pytest.fixture
def socket_file() -> Iterator[Path]:
    """A path that is short enough for a socket."""
    with TemporaryDirectory() as folder:
        yield Path(folder) / "socket"


@asynccontextmanager
async def serving(file: Path) -> AsyncIterator[None]:
    """A server of the path `/` on a Unix socket."""
    args, ready = parse_arguments(["--uds", str(file)]), asyncio.Event()
    app = Starlette(routes=[Route("/", PlainTextResponse("there"))])
    server = Server(runtime._uvicorn_config(app, args, Settings()), Admission(1, 0), 0, ready.set)
    listener = runtime._bind(args)
    assert listener.getsockname() == str(file)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    await asyncio.wait_for(ready.wait(), WAIT)
    yield
    server.should_exit = True
    await asyncio.wait_for(task, WAIT)


async def test_a_unix_socket_is_served_and_taken_again_after_its_servers_end(socket_file: Path) -> None:
    for _ in range(2):
        async with (
            serving(socket_file),
            httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=str(socket_file))) as http,
        ):
            assert (await http.get("http://localhost/")).text == "there"
        assert socket_file.is_socket()


async def test_a_unix_socket_of_a_running_server_is_left_to_it(socket_file: Path) -> None:
    async with serving(socket_file):
        with pytest.raises(SystemExit, match=f"error: --uds {socket_file}: Address already in use"):
            runtime._bind(parse_arguments(["--uds", str(socket_file)]))


def test_a_file_that_is_no_socket_is_left_alone(socket_file: Path) -> None:
    socket_file.write_text("mine")
    with pytest.raises(SystemExit, match="Address already in use"):
        runtime._bind(parse_arguments(["--uds", str(socket_file)]))
    assert socket_file.read_text() == "mine"


def test_idle_connections_are_kept_as_long_as_the_settings_say() -> None:
    nothing: Any = None
    config = runtime._uvicorn_config(nothing, parse_arguments([]), Settings(idle_timeout=7))
    assert config.timeout_keep_alive == 7
