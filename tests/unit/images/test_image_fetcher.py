"""Data URLs, and which hosts and addresses are fetched from at all."""

import asyncio
import ipaddress
import socket
import subprocess
import sys
import threading
from typing import Any

import pytest
from dualfocus_engine import BadPicture, ConfigError, open_picture
from dualfocus_engine.method.stages import Stages
from dualfocus_engine.pictures.pictures import ImageLimits
from dualfocus_server.images import addresses, image_fetcher, ssrf_safe_http
from dualfocus_server.images.addresses import addresses_of, is_public
from dualfocus_server.images.hosts import HostRules
from dualfocus_server.images.image_fetcher import ImageFetcher
from dualfocus_server.images.request_images import RequestImages, SentImage
from PIL import Image

from ..builders import data_url, encoded
from ..fake_engine import WAIT
from ..local_web import respond, serving

METADATA = "169.254.169.254"
WIRESERVER, ORACLE = "168.63.129.16", "192.0.0.192"
# What Python's `is_global` lets pass, in some versions or in all.
BEYOND_PYTHON = (
    *(WIRESERVER, ORACLE, "192.0.0.1", "192.0.0.9", "192.0.0.10", "192.0.0.170", "192.88.99.1", "100.100.100.200"),
    *("3fff::1", "3fff:fff::1", "2001::1", "2001:10::1", "2001:20::1"),
)
# An IPv4 address inside an IPv6 one: mapped, by 6to4, by NAT64.
EMBEDDINGS = ("::ffff:{high:x}:{low:x}", "2002:{high:x}:{low:x}::", "64:ff9b::{high:x}:{low:x}")


def embedded(address: str) -> list[str]:
    """The forms of an IPv4 address inside an IPv6 one."""
    high, low = divmod(int(ipaddress.IPv4Address(address)), 1 << 16)
    return [form.format(high=high, low=low) for form in EMBEDDINGS]


def found(*addresses: str) -> list[tuple[Any, ...]]:
    """What `getaddrinfo` gives for these addresses."""
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in addresses]


@pytest.mark.parametrize(
    ("url", "data"),
    [
        ("data:image/png;base64,aGVsbG8=", b"hello"),
        ("data:;base64,aGVsbG8=", b"hello"),
        ("DATA:image/png;BASE64,aGVsbG8=", b"hello"),
        ("data:image/png;name=a.png;base64,aGVsbG8=", b"hello"),
        ("data:image/png;base64,aGVsbG8%3D", b"hello"),
        ("data:image/png;base64,", b""),
        ("data:image/png;base64,aGVsbG8", b"hello"),
        ("data:image/png;base64,aGVs\nbG8=\n", b"hello"),
        ("data:image/png;base64,aGVs\r\n\tbG8= ", b"hello"),
        ("data:image/png;base64, aG Vs bG8", b"hello"),
        ("data:image/png;base64,aGVs%0AbG8=", b"hello"),
        ("data:image/png; base64 ,aGVsbG8=", b"hello"),
        ("data:;base64,-_-_", b"\xfb\xff\xbf"),
        ("data:;base64,+/+/-_", b"\xfb\xff\xbf\xfb"),
        (" data:;base64,aGVsbG8=", b"hello"),
        ("\n\tdata:;base64,aGVsbG8=\n", b"hello"),
        ("data:image/svg+xml,%3Csvg%2F%3E", b"<svg/>"),
        ("data:,a,b", b"a,b"),
        ("data:,%00%ff", b"\x00\xff"),
    ],
)
async def test_data_url_holds_its_image(url: str, data: bytes) -> None:
    assert await ImageFetcher().read(url) == data


@pytest.mark.parametrize(
    ("content", "in_a_thread"), [("AAAA" * 1000, False), ("AAAA" * 300_000, True), ("%41AAA" * 1000, True)]
)
async def test_what_takes_the_event_loop_longer_than_a_thread_is_decoded_in_one(
    monkeypatch: pytest.MonkeyPatch, content: str, in_a_thread: bool
) -> None:
    decoded_in: list[str] = []

    def decode(url: str) -> bytes:
        decoded_in.append(threading.current_thread().name)
        return b""

    monkeypatch.setattr(image_fetcher, "decode_data_url", decode)
    await ImageFetcher().read(f"data:image/png;base64,{content}")
    assert [name.startswith("picture") for name in decoded_in] == [in_a_thread]


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("data:image/png;base64", "no comma"),
        ("data:", "no comma"),
        ("data:;base64,a", "not valid base64"),
        ("data:;base64,aGVsbG8==", "not valid base64"),
        ("data:;base64,aGVs=bG8", "not valid base64"),
        ("data:;base64,aGVsbG8=====", "not valid base64"),
        ("data:;base64,####", "not valid base64"),
        ("data:;base64,aGVs\u00a0bG8=", "not valid base64"),
        ("data:;base64,äöü", "not valid base64"),
    ],
)
async def test_broken_data_url_is_a_bad_picture(url: str, complaint: str) -> None:
    with pytest.raises(BadPicture, match=complaint):
        await ImageFetcher().read(url)


@pytest.mark.parametrize(("size", "taken"), [(0, True), (100, True), (101, False)])
async def test_limit_of_bytes_holds_for_data_urls_too(size: int, taken: bool) -> None:
    source, url = ImageFetcher(max_bytes=100), data_url(b"x" * size)
    if taken:
        assert len(await source.read(url)) == size
    else:
        with pytest.raises(BadPicture, match=r"larger than 100 bytes \(--max-image-bytes\)"):
            await source.read(url)


async def test_image_comes_opened_and_within_the_limit_of_pixels(chelsea: Image.Image) -> None:
    url = data_url(encoded(chelsea))
    (opened,) = await RequestImages(ImageFetcher()).opened([SentImage(url)], Stages(), open_picture)
    assert opened.size == chelsea.size
    with pytest.raises(BadPicture, match="pixels"):
        await RequestImages(ImageFetcher(), limits=ImageLimits(1000)).opened([SentImage(url)], Stages(), open_picture)
    with pytest.raises(BadPicture):
        await RequestImages(ImageFetcher()).opened([SentImage("data:,nothing")], Stages(), open_picture)


async def test_image_is_opened_in_a_thread_for_pictures_while_the_event_loop_goes_on() -> None:
    threads, begun, may_end = [], asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def held(*given: Any) -> str:
        threads.append(threading.current_thread().name)
        loop.call_soon_threadsafe(begun.set)
        assert may_end.wait(WAIT)
        return "opened"

    opening = asyncio.create_task(RequestImages(ImageFetcher()).opened([SentImage("data:,image")], Stages(), held))
    await begun.wait()
    assert not opening.done()
    assert threads[0].startswith("picture")
    may_end.set()
    assert await opening == ["opened"]


def test_pillows_own_limit_of_pixels_is_off() -> None:
    """Its error would come at 179 million, whatever limit the operator set."""
    assert Image.MAX_IMAGE_PIXELS is None


@pytest.mark.parametrize(
    "url",
    ["", "photo.jpg", "/etc/passwd", "file:///etc/passwd", "ftp://h/a", "gopher://h", "//host/a", "javascript:1"],
)
async def test_other_schemes_are_refused(url: str) -> None:
    with pytest.raises(BadPicture, match=r"data: URL .* http\(s\)"):
        await ImageFetcher(HostRules(["*"], public=lambda address: True)).read(url)


async def test_nothing_is_fetched_by_default() -> None:
    with serving({"/a": respond(body=b"image")}) as web:
        with pytest.raises(BadPicture, match="--allowed-media-domains"):
            await ImageFetcher(HostRules(public=lambda address: True)).read(f"{web.address}/a")
        assert web.connections == 0


@pytest.mark.parametrize(
    ("domains", "host", "fetched"),
    [
        (["localhost"], "localhost", True),
        (["localhost"], "LOCALHOST", True),
        (["LocalHost"], "localhost", True),
        (["*"], "localhost", True),
        (["example.com", "localhost"], "localhost", True),
        (["example.com"], "localhost", False),
        (["host"], "localhost", False),
        (["*.localhost"], "localhost", False),
        (["localhost"], "127.0.0.1", False),
        (["localhost"], "localhost:secret@127.0.0.1", False),
    ],
)
async def test_only_named_hosts_are_fetched_from(domains: list[str], host: str, fetched: bool) -> None:
    with serving({"/a": respond(body=b"image")}) as web:
        source = ImageFetcher(HostRules(domains, public=lambda address: True), timeout=WAIT)
        url = f"http://{host}:{web.port}/a"
        if fetched:
            assert await source.read(url) == b"image"
        else:
            with pytest.raises(BadPicture, match="not fetched from"):
                await source.read(url)
        assert bool(web.connections) is fetched
        await source.close()


@pytest.mark.parametrize("host", ["bücher.invalid", "xn--bcher-kva.invalid", "BÜCHER.invalid", "XN--bcher-kva.INVALID"])
@pytest.mark.parametrize("domain", ["bücher.invalid", "Bücher.Invalid", "xn--bcher-kva.invalid"])
async def test_name_is_the_same_in_either_spelling(monkeypatch: pytest.MonkeyPatch, domain: str, host: str) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *given, **more: [])
    with pytest.raises(BadPicture, match="not on the public internet"):  # got past the list, that is
        await ImageFetcher(HostRules([domain])).read(f"http://{host}/a")


async def test_address_can_be_named_too() -> None:
    with serving({"/a": respond(body=b"image")}) as web:
        source = ImageFetcher(HostRules(["127.0.0.1", "::1"], public=lambda address: True), timeout=WAIT)
        assert await source.read(f"{web.address}/a") == b"image"
        with pytest.raises(BadPicture, match="could not be fetched"):
            await source.read("http://[::1]:1/a")


@pytest.mark.parametrize("domain", ["example.com:80", "https://example.com", f"{'ä' * 64}.com"])
def test_domain_that_no_host_could_have_is_said_not_passed_over(domain: str) -> None:
    with pytest.raises(ConfigError, match="not a valid host name"):
        ImageFetcher(HostRules([domain]))


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("93.184.216.34", True),
        ("2606:4700:4700::1111", True),
        ("::ffff:8.8.8.8", True),
        pytest.param("2002:808:808::", True, id="6to4 of 8.8.8.8"),
        ("127.0.0.1", False),
        ("127.255.255.254", False),
        ("::1", False),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("172.16.0.1", False),
        ("172.31.255.255", False),
        ("192.168.1.1", False),
        ("100.64.0.1", False),
        ("169.254.0.1", False),
        (METADATA, False),
        ("192.0.2.1", False),
        ("198.18.0.1", False),
        ("224.0.0.1", False),
        ("239.255.255.250", False),
        ("240.0.0.1", False),
        ("255.255.255.255", False),
        ("fe80::1", False),
        ("fe80::1%2", False),
        ("fc00::1", False),
        ("fd00:ec2::254", False),
        ("ff02::1", False),
        ("ff0e::1", False),
        ("2001:db8::1", False),
        ("::ffff:127.0.0.1", False),
        (f"::ffff:{METADATA}", False),
        ("::ffff:224.0.0.1", False),
        pytest.param("2002:7f00:1::", False, id="6to4 of 127.0.0.1"),
        pytest.param("2002:a9fe:a9fe::", False, id="6to4 of the metadata service"),
        pytest.param("2002:a00:1::", False, id="6to4 of 10.0.0.1"),
        pytest.param("2001:0:7f00:1::", False, id="Teredo"),
        pytest.param("64:ff9b::808:808", True, id="NAT64 of 8.8.8.8"),
        pytest.param("64:ff9b::7f00:1", False, id="NAT64 of 127.0.0.1"),
        pytest.param("64:ff9b::a9fe:a9fe", False, id="NAT64 of the metadata service"),
        pytest.param("64:ff9b::a00:1", False, id="NAT64 of 10.0.0.1"),
        pytest.param("64:ff9b:1::7f00:1", False, id="local NAT64"),
        pytest.param("::127.0.0.1", False, id="IPv4-compatible"),
        *((address, False) for address in BEYOND_PYTHON),
        *(
            (address, True)
            for address in ("192.0.1.1", "168.63.129.15", "168.63.129.17", "100.128.0.1", "2001:4860::1")
        ),
        *((form, False) for address in (WIRESERVER, ORACLE, METADATA) for form in embedded(address)),
        pytest.param("fec0::1", False, id="site-local"),
    ],
)
def test_only_addresses_of_the_public_internet_are_public(address: str, public: bool) -> None:
    assert is_public(ipaddress.ip_address(address)) is public


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.1",
        "127.0.1",
        "2130706433",
        "0x7f000001",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "017700000001",
        "0",
        "0.0.0.0",
        "localhost",
        "LOCALHOST",
        "localhost.",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[0:0:0:0:0:0:0:1]",
        "user:password@127.0.0.1",
        "8.8.8.8@127.0.0.1",
    ],
)
async def test_no_spelling_of_loopback_reaches_a_local_server(host: str) -> None:
    with serving({"/a": respond(body=b"secret")}) as web:
        with pytest.raises(BadPicture):
            await ImageFetcher(HostRules(["*"])).read(f"http://{host}:{web.port}/a")
        assert web.connections == 0


async def test_every_address_of_a_host_must_be_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name with a public and a local address is refused, whichever comes first."""
    for both in (("8.8.8.8", "127.0.0.1"), ("127.0.0.1", "8.8.8.8")):
        monkeypatch.setattr(socket, "getaddrinfo", lambda *given, of=both, **more: found(*of))
        with pytest.raises(BadPicture, match="not on the public internet"):
            await ImageFetcher(HostRules(["*"])).read("http://two-faced.example/a")


async def test_address_that_was_checked_is_the_one_that_is_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that answers differently the second time (DNS rebinding) is not asked a second time."""
    lookups: list[str] = []

    def look_up(host: str, *given: object, **more: object) -> list[tuple[Any, ...]]:
        lookups.append(host)
        return found("127.0.0.1")

    with serving({"/a": respond(body=b"image")}) as web:
        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        source = ImageFetcher(HostRules(["rebind.example"], public=lambda address: True), timeout=WAIT)
        assert await source.read(f"http://rebind.example:{web.port}/a") == b"image"
        assert web.headers["host"] == f"rebind.example:{web.port}"
        await source.close()
    assert lookups == ["rebind.example"]


async def test_names_that_nobody_answers_for_keep_no_other_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """More of them than any event loop's own look-ups have threads."""
    real, released = socket.getaddrinfo, threading.Event()

    def look_up(host: str, *given: Any, **more: Any) -> Any:
        if host == "silent.example":
            released.wait(WAIT)
        return real("127.0.0.1", *given, **more)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(ssrf_safe_http, "_LOOK_UP_TIMEOUT_S", WAIT)
    source = ImageFetcher(HostRules(["*"], public=lambda address: True), timeout=None)
    with serving({"/a": respond(body=b"image")}) as web:
        url = f"http://{{}}.example:{web.port}/a"
        silent = [asyncio.create_task(source.read(url.format("silent"))) for _ in range(32)]
        try:
            assert await source.read(url.format("prompt")) == b"image"
            assert not any(task.done() for task in silent)
        finally:
            released.set()
            await asyncio.gather(*silent)
            await source.close()


async def test_a_domain_that_nobody_answers_for_keeps_no_other_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of its names so many are looked up, and one name once."""
    released, looked_up = threading.Event(), list[str]()

    def look_up(host: str, *given: Any, **more: Any) -> Any:
        looked_up.append(host)
        if host.endswith("silent.example"):
            released.wait(WAIT)
        return found("127.0.0.1")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    names = [f"{number}.silent.example" for number in range(addresses._MOST_OF_A_DOMAIN)]
    silent = [asyncio.create_task(addresses_of(name, 80, WAIT)) for name in names * 2]
    await asyncio.sleep(0)
    try:
        with pytest.raises(TimeoutError):
            await addresses_of("one.more.silent.example", 80, WAIT)
        assert await addresses_of("prompt.example.org", 80, WAIT)
    finally:
        released.set()
    assert len(await asyncio.gather(*silent)) == 2 * len(names)
    assert sorted(looked_up) == sorted([*names, "prompt.example.org"])
    assert await addresses_of("one.more.silent.example", 80, WAIT)


def test_a_look_up_that_hangs_keeps_no_process_from_its_end() -> None:
    code = (
        "import asyncio, socket, time\n"
        "from dualfocus_server.images.addresses import addresses_of\n"
        "socket.getaddrinfo = lambda *given, **more: time.sleep(600)\n"
        "asyncio.run(addresses_of('silent.example', 80, 0.01))\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=WAIT, check=False)
    assert ended.stderr.rstrip().endswith("TimeoutError")


async def test_name_that_nobody_answers_for_has_a_limit_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *given, **more: released.wait(WAIT))
    monkeypatch.setattr(ssrf_safe_http, "_LOOK_UP_TIMEOUT_S", 0.01)
    try:
        with pytest.raises(BadPicture, match=r"silent\.example was not found within 0\.01 s"):
            await ImageFetcher(HostRules(["*"]), timeout=None).read("http://silent.example/a")
    finally:
        released.set()


@pytest.mark.parametrize(
    "url",
    [
        "http:",
        "http://",
        "http:///a",
        "http:a",
        "http://[::1",
        "http://h:99999/",
        "http://8.8.8.8:65616/",
        "http://8.8.8.8:99999999999999999999/",
        "http://h:port/",
        "http://exa mple.com/",
        "http://nul\0.com/",
        "http://-.com/",
        "http://%31%32%37.0.0.1/",
        "http://①②⑦.⓪.⓪.①/",
        "http://no-such-host.invalid/",
        pytest.param(f"http://{'a' * 64}.com/", id="label too long"),
        pytest.param(f"http://{'a.' * 200}com/", id="name too long"),
        "http://a..b/",
        "http://./",
        "http://xn--a.com/",
        pytest.param(f"http://127.0.0.1:1/{'a' * 70_000}", id="path too long"),
    ],
)
async def test_url_that_leads_nowhere_is_a_bad_picture(url: str) -> None:
    with pytest.raises(BadPicture):
        await ImageFetcher(HostRules(["*"])).read(url)
