"""The address that is listened on, and what uvicorn is told."""

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import httpx
import pytest
import uvloop
from dualfocus_server.guards.admission import Admission
from dualfocus_server.guards.places import OwnPlaces
from dualfocus_server.settings import Settings
from dualfocus_server.startup.arguments import parse_arguments
from dualfocus_server.startup.draining import Server
from dualfocus_server.startup.listening import bind, renewing_certificates, uvicorn_config
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from ..fake_engine import WAIT
from ..local_web import self_signed


def test_limits_on_headers_and_ciphers_reach_uvicorn() -> None:
    asked = ["--h11-max-incomplete-event-size", "9000", "--ssl-ciphers", "ECDHE-RSA-AES256-GCM-SHA384"]
    config = uvicorn_config(Starlette(), parse_arguments(asked), Settings())
    assert (config.h11_max_incomplete_event_size, config.ssl_ciphers) == (9000, asked[-1])
    config = uvicorn_config(Starlette(), parse_arguments([]), Settings())
    assert config.h11_max_incomplete_event_size == 64 << 10


async def test_certificates_are_read_again_when_their_files_change(tmp_path: Path) -> None:
    certificate, key = self_signed("first.example", tmp_path)
    files = ["--ssl-certfile", str(certificate), "--ssl-keyfile", str(key)]
    args = parse_arguments([*files, "--enable-ssl-refresh"])
    config = uvicorn_config(Starlette(), args, Settings())
    with renewing_certificates(config, args):
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
    config = uvicorn_config(Starlette(), parse_arguments(["--root-path", "/llm"]), Settings())
    assert config.root_path == ""


@pytest.fixture
def socket_file() -> Iterator[Path]:
    """A path that is short enough for a socket."""
    with TemporaryDirectory() as folder:
        yield Path(folder) / "socket"


def test_a_unix_socket_of_a_server_that_still_loads_is_left_to_it(socket_file: Path) -> None:
    args = parse_arguments(["--uds", str(socket_file)])
    with bind(args), pytest.raises(SystemExit, match="Address already in use"):
        bind(args)


def test_told_twice_it_ends_at_once_without_a_traceback(
    socket_file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(logging.getLogger("uvicorn.error"), "disabled", False)  # and as before, afterwards
    uvloop.run(_told_twice(socket_file))  # what is left is cancelled at its end
    assert "Traceback" not in caplog.text


async def _told_twice(file: Path) -> None:
    args, ready, asked = parse_arguments(["--uds", str(file)]), asyncio.Event(), asyncio.Event()

    async def answer(request: Request) -> Response:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    app = Starlette(routes=[Route("/", answer)])
    server = Server(uvicorn_config(app, args, Settings()), Admission(OwnPlaces(1, 0)), 0, ready.set)
    task = asyncio.create_task(server.serve(sockets=[bind(args)]))
    await asyncio.wait_for(ready.wait(), WAIT)
    _, writer = await asyncio.open_unix_connection(str(file))
    writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await asyncio.wait_for(asked.wait(), WAIT)
    server.stop()
    server.stop()
    await asyncio.wait_for(task, WAIT)


@asynccontextmanager
async def serving(file: Path) -> AsyncIterator[None]:
    """A server of the path `/` on a Unix socket."""
    args, ready = parse_arguments(["--uds", str(file)]), asyncio.Event()
    app = Starlette(routes=[Route("/", PlainTextResponse("there"))])
    server = Server(uvicorn_config(app, args, Settings()), Admission(OwnPlaces(1, 0)), 0, ready.set)
    listener = bind(args)
    assert listener.getsockname() == str(file)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    await asyncio.wait_for(ready.wait(), WAIT)
    yield
    server.should_exit = True
    await asyncio.wait_for(task, WAIT)


async def test_who_reads_slowly_has_what_is_left_of_the_time_to_drain() -> None:
    config = uvicorn_config(Starlette(), parse_arguments([]), Settings())
    config.load()
    shortest = config.timeout_graceful_shutdown
    for drain_timeout, least in ((0, shortest), (10_000, 9_000)):
        server = Server(config, Admission(OwnPlaces(1, 0)), drain_timeout, lambda: None)
        server.stop()
        await asyncio.wait_for(cast("Any", server._draining), WAIT)
        assert config.timeout_graceful_shutdown >= least
        assert server.should_exit


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
            bind(parse_arguments(["--uds", str(socket_file)]))


def test_a_file_that_is_no_socket_is_left_alone(socket_file: Path) -> None:
    socket_file.write_text("mine")
    with pytest.raises(SystemExit, match="Address already in use"):
        bind(parse_arguments(["--uds", str(socket_file)]))
    assert socket_file.read_text() == "mine"


def test_idle_connections_are_kept_as_long_as_the_settings_say() -> None:
    nothing: Any = None
    config = uvicorn_config(nothing, parse_arguments([]), Settings(idle_timeout=7))
    assert config.timeout_keep_alive == 7


async def test_servers_that_share_a_socket_take_connections_in_turn(socket_file: Path) -> None:
    """As processes do (`--api-server-count`), each with a copy of the socket."""
    args, loads = parse_arguments(["--uds", str(socket_file)]), [2**31 - 1] * 2
    listener = bind(args)
    async with AsyncExitStack() as clients, asyncio.TaskGroup() as group:
        servers = []
        for index in range(2):
            app, ready = Starlette(routes=[Route("/", PlainTextResponse(str(index)))]), asyncio.Event()
            config = uvicorn_config(app, args, Settings())
            servers.append(Server(config, Admission(OwnPlaces(1, 0)), 0, ready.set, (loads, index)))
            group.create_task(servers[-1].serve(sockets=[listener.dup()]))
            await asyncio.wait_for(ready.wait(), WAIT)
        answers = []
        for _ in range(4):
            transport = httpx.AsyncHTTPTransport(uds=str(socket_file))
            http = await clients.enter_async_context(httpx.AsyncClient(transport=transport))
            answers.append((await http.get("http://localhost/")).text)
        assert sorted(answers) == ["0", "0", "1", "1"]
        for server in servers:
            server.should_exit = True
    listener.close()
