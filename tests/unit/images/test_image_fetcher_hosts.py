"""Fetching from a real server: redirects, limits, time, and what is kept from one fetch to the next."""

import asyncio
import gzip
import threading
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from dualfocus_engine import BadPicture
from dualfocus_server.images.hosts import HostRules
from dualfocus_server.images.image_fetcher import MAX_REDIRECTS, ImageFetcher

from ..fake_engine import WAIT
from ..local_web import Page, Web, redirect, respond, self_signed, serving

LIMIT = 100_000
RELEASED = threading.Event()


def _endless(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.end_headers()
    try:
        while True:
            request.wfile.write(b"x" * 4096)
    except OSError:
        request.close_connection = True


def _dripping(request: BaseHTTPRequestHandler) -> None:
    """Never silent for long, so that no read times out."""
    request.send_response(200)
    request.send_header("Content-Length", "1000000")
    request.end_headers()
    try:
        while not RELEASED.wait(0.02):
            request.wfile.write(b"x")
    except OSError:
        pass
    request.close_connection = True


def _silent(request: BaseHTTPRequestHandler) -> None:
    RELEASED.wait()
    request.close_connection = True


def _cut(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.send_header("Content-Length", "1000")
    request.end_headers()
    request.wfile.write(b"half")
    request.close_connection = True


# Half a megabyte that unpacks to five hundred.
BOMB = gzip.compress(bytes(500 << 20), 1)

PAGES: dict[str, Page] = {
    "/image": respond(body=b"image"),
    "/empty": respond(body=b""),
    "/full": respond(body=b"x" * LIMIT),
    "/too-large": respond(body=b"x" * (LIMIT + 1)),
    "/endless": _endless,
    "/dripping": _dripping,
    "/silent": _silent,
    "/cut": _cut,
    "/bomb": respond(body=BOMB, Content_Encoding="gzip"),
    "/not-gzip": respond(body=b"plain", Content_Encoding="gzip"),
    "/identity": respond(body=b"image", Content_Encoding="identity"),
    "/unnamed": respond(body=b"image", Content_Encoding=""),
    "/cookie": respond(body=b"image", Set_Cookie="who=someone; Path=/"),
    "/error": respond(500, b"broken"),
    "/forbidden": respond(403, b"no"),
    "/no-content": respond(204),
    "/relative": redirect("image"),
    "/loop": redirect("/loop"),
    "/to-file": redirect("file:///etc/passwd"),
    "/to-data": redirect("data:,x"),
    "/to-ftp": redirect("ftp://127.0.0.1/a"),
    "/to-nowhere": redirect("http://[::1"),
    "/to-bad-name": redirect(f"http://{'a' * 64}.com/"),
    "/1": redirect("/image"),
    **{f"/{hops}": redirect(f"/{hops - 1}") for hops in range(2, 6)},
    **{f"/status-{status}": redirect("/image", status) for status in (301, 302, 303, 307, 308)},
}


@pytest.fixture
def web() -> Iterator[Web]:
    RELEASED.clear()
    with serving(PAGES) as running:
        try:
            yield running
        finally:
            RELEASED.set()


@pytest.fixture
async def source() -> AsyncIterator[ImageFetcher]:
    made = ImageFetcher(HostRules(["127.0.0.1"], public=lambda address: True), max_bytes=LIMIT, timeout=WAIT)
    yield made
    await made.close()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something to come true, with a limit that no machine reaches."""
    async with asyncio.timeout(WAIT):
        while not condition():  # noqa: ASYNC110 (another thread's doing)
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("path", "size"), [("/image", 5), ("/empty", 0), ("/full", LIMIT), ("/identity", 5), ("/unnamed", 5)]
)
async def test_image_is_fetched(web: Web, source: ImageFetcher, path: str, size: int) -> None:
    assert len(await source.read(web.address + path)) == size


async def test_many_images_are_fetched_at_once(web: Web, source: ImageFetcher) -> None:
    assert await asyncio.gather(*(source.read(f"{web.address}/image") for _ in range(30))) == [b"image"] * 30


@pytest.mark.parametrize(
    ("path", "complaint"),
    [
        ("/absent", "404"),
        ("/error", "500"),
        ("/forbidden", "403"),
        ("/no-content", "204"),
        ("/too-large", "larger than"),
        ("/endless", "larger than"),
        ("/cut", "could not be fetched"),
        ("/not-gzip", "packed .gzip."),
        ("/to-file", "file:"),
        ("/to-data", "image"),
        ("/to-ftp", "ftp:"),
        ("/to-nowhere", "could not be fetched"),
        ("/to-bad-name", "image"),
    ],
)
async def test_what_is_no_image_is_a_bad_picture(web: Web, source: ImageFetcher, path: str, complaint: str) -> None:
    with pytest.raises(BadPicture, match=complaint):
        await source.read(web.address + path)


@pytest.mark.parametrize("path", ["/dripping", "/silent"])
async def test_one_limit_of_time_holds_for_the_whole_fetch(web: Web, path: str) -> None:
    source = ImageFetcher(HostRules(["*"], public=lambda address: True), timeout=0.3)
    with pytest.raises(BadPicture, match=r"did not arrive within 0\.3 s .--image-timeout"):
        await source.read(web.address + path)  # neither page ends by itself
    await source.close()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_of_every_kind_are_followed(web: Web, source: ImageFetcher, status: int) -> None:
    assert await source.read(f"{web.address}/status-{status}") == b"image"


async def test_redirect_may_be_relative(web: Web, source: ImageFetcher) -> None:
    assert await source.read(f"{web.address}/relative") == b"image"


@pytest.mark.parametrize(("hops", "followed"), [(1, True), (MAX_REDIRECTS, True), (MAX_REDIRECTS + 1, False)])
async def test_three_redirects_are_followed_and_no_more(
    web: Web, source: ImageFetcher, hops: int, followed: bool
) -> None:
    assert MAX_REDIRECTS == 3
    if followed:
        assert await source.read(f"{web.address}/{hops}") == b"image"
    else:
        with pytest.raises(BadPicture, match="more than 3 times"):
            await source.read(f"{web.address}/{hops}")
        assert "/image" not in web.requests


async def test_redirect_loop_ends(web: Web, source: ImageFetcher) -> None:
    with pytest.raises(BadPicture, match="more than 3 times"):
        await source.read(f"{web.address}/loop")
    assert len(web.requests) == 4


async def test_redirect_to_a_host_that_is_not_named_is_refused(web: Web, source: ImageFetcher) -> None:
    elsewhere = {"/": redirect(f"http://localhost:{web.port}/image")}
    with serving(elsewhere) as first, pytest.raises(BadPicture, match="not fetched from 'localhost'"):
        await source.read(f"{first.address}/")
    assert web.connections == 0


async def test_redirect_to_an_address_that_is_not_allowed_is_refused(web: Web) -> None:
    """The address of each hop is checked: here localhost passes the first time only."""
    verdicts = iter([True, False])
    with serving({"/": redirect(f"{web.address}/image")}) as first:
        source = ImageFetcher(HostRules(["*"], public=lambda address: next(verdicts)), timeout=WAIT)
        with pytest.raises(BadPicture, match="not on the public internet"):
            await source.read(f"{first.address}/")
        await source.close()
    assert first.connections == 1
    assert web.connections == 0


async def test_closed_port_is_a_bad_picture(source: ImageFetcher) -> None:
    with serving({}) as gone:
        address = gone.address
    with pytest.raises(BadPicture, match="could not be fetched"):
        await source.read(f"{address}/a")


async def test_packed_answer_takes_no_memory_beyond_the_limit(web: Web, source: ImageFetcher) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(BadPicture):
            await source.read(f"{web.address}/bomb")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20, f"{peak >> 20} MiB were unpacked for a limit of {LIMIT >> 10} KiB"


async def test_one_clients_cookies_are_not_sent_for_another(web: Web, source: ImageFetcher) -> None:
    await source.read(f"{web.address}/cookie")
    await source.read(f"{web.address}/image")
    assert "cookie" not in web.headers


async def test_unpacked_images_are_asked_for(web: Web, source: ImageFetcher) -> None:
    await source.read(f"{web.address}/image")
    assert web.headers["accept-encoding"] == "identity"


async def test_no_connection_stays_open_after_its_fetch(web: Web, source: ImageFetcher) -> None:
    for _ in range(3):
        await source.read(f"{web.address}/image")
    assert web.connections == 3


async def test_slow_hosts_keep_no_other_image_waiting(web: Web) -> None:
    source = ImageFetcher(HostRules(["*"], public=lambda address: True), timeout=None)
    slow = [asyncio.create_task(source.read(f"{web.address}/silent")) for _ in range(16)]
    try:
        await until(lambda: web.requests.count("/silent") == len(slow))
        assert await source.read(f"{web.address}/image") == b"image"
        assert not any(task.done() for task in slow)
    finally:
        RELEASED.set()
        await asyncio.gather(*slow, return_exceptions=True)
        await source.close()


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"])
async def test_environments_proxy_is_not_used(web: Web, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "http://127.0.0.1:9")
    source = ImageFetcher(HostRules(["*"], public=lambda address: True), timeout=WAIT)
    assert await source.read(f"{web.address}/image") == b"image"
    await source.close()


async def test_netrc_lends_no_password(web: Web, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login operator password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    monkeypatch.setenv("HOME", str(tmp_path))
    source = ImageFetcher(HostRules(["*"], public=lambda address: True), timeout=WAIT)
    await source.read(f"{web.address}/image")
    assert "authorization" not in web.headers
    await source.close()


@pytest.mark.parametrize("trusted", [True, False])
async def test_https_is_fetched_from_whom_an_authority_vouches_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, trusted: bool
) -> None:
    """By the host's name, though the connection goes to the address that was checked; no proxy is asked either."""
    certificate, key = self_signed("localhost", tmp_path)
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    source = ImageFetcher(HostRules(["localhost", "127.0.0.1"], public=lambda address: True), timeout=WAIT)
    with serving(PAGES, (certificate, key)) as web:
        if trusted:
            assert await source.read(f"https://localhost:{web.port}/image") == b"image"
        for host in ("127.0.0.1",) if trusted else ("127.0.0.1", "localhost"):
            with pytest.raises(BadPicture, match=r"could not be fetched.*certificate"):
                await source.read(f"https://{host}:{web.port}/image")
    await source.close()


async def test_failed_fetches_leave_no_connection_taken(web: Web, source: ImageFetcher) -> None:
    """More failures than the pool has connections; then one that must still get through."""
    for _ in range(3):
        paths = ["/too-large", "/endless", "/cut", "/error", "/loop"] * 2
        await asyncio.gather(*(source.read(web.address + path) for path in paths), return_exceptions=True)
    assert await source.read(f"{web.address}/image") == b"image"
