"""Data URLs, and which hosts and addresses are fetched from at all."""

import asyncio
import ipaddress

import pytest
from dualfocus_engine import BadPicture, BadQuestion
from dualfocus_server.media import ImageSource, decode_data_url, is_public
from PIL import Image

from .builders import data_url, encoded
from .local_web import respond, serving

METADATA = "169.254.169.254"


@pytest.mark.parametrize(
    ("url", "data"),
    [
        ("data:image/png;base64,aGVsbG8=", b"hello"),
        ("data:;base64,aGVsbG8=", b"hello"),
        ("DATA:image/png;BASE64,aGVsbG8=", b"hello"),
        ("data:image/png;name=a.png;base64,aGVsbG8=", b"hello"),
        ("data:image/png;base64,aGVsbG8%3D", b"hello"),
        ("data:image/png;base64,", b""),
        ("data:image/svg+xml,%3Csvg%2F%3E", b"<svg/>"),
        ("data:,a,b", b"a,b"),
        ("data:,%00%ff", b"\x00\xff"),
    ],
)
async def test_data_url_holds_its_image(url: str, data: bytes) -> None:
    assert decode_data_url(url) == data
    assert await ImageSource().read(url) == data


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("data:image/png;base64", "no comma"),
        ("data:", "no comma"),
        ("data:;base64,a", "not valid base64"),
        ("data:;base64,aGVsbG8", "not valid base64"),
        ("data:;base64,####", "not valid base64"),
        ("data:;base64,aGVs bG8=", "not valid base64"),
        ("data:;base64,äöü", "not valid base64"),
    ],
)
async def test_broken_data_url_is_a_bad_picture(url: str, complaint: str) -> None:
    with pytest.raises(BadPicture, match=complaint):
        await ImageSource().read(url)


@pytest.mark.parametrize(("size", "taken"), [(0, True), (100, True), (101, False)])
async def test_limit_of_bytes_holds_for_data_urls_too(size: int, taken: bool) -> None:
    source, url = ImageSource(max_bytes=100), data_url(b"x" * size)
    if taken:
        assert len(await source.read(url)) == size
    else:
        with pytest.raises(BadPicture, match="larger than 100 bytes"):
            await source.read(url)


async def test_image_comes_opened_and_within_the_limit_of_pixels(chelsea: Image.Image) -> None:
    url = data_url(encoded(chelsea))
    assert (await ImageSource().picture(url)).size == chelsea.size
    with pytest.raises(BadPicture, match="pixels"):
        await ImageSource(max_pixels=1000).picture(url)
    with pytest.raises(BadPicture):
        await ImageSource().picture("data:,nothing")


@pytest.mark.parametrize(
    "url",
    ["", "photo.jpg", "/etc/passwd", "file:///etc/passwd", "ftp://h/a", "gopher://h", "//host/a", "javascript:1"],
)
async def test_other_schemes_are_refused(url: str) -> None:
    with pytest.raises(BadPicture, match=r"data: URL .* http\(s\)"):
        await ImageSource(["*"], allowed=lambda address: True).read(url)


async def test_nothing_is_fetched_by_default() -> None:
    with serving({"/a": respond(body=b"image")}) as web:
        with pytest.raises(BadPicture, match="--allowed-media-domains"):
            await ImageSource(allowed=lambda address: True).read(f"{web.address}/a")
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
        source = ImageSource(domains, allowed=lambda address: True)
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
async def test_name_is_the_same_in_either_spelling(domain: str, host: str) -> None:
    with pytest.raises(BadPicture, match="has no address"):  # got past the list, that is
        await ImageSource([domain]).read(f"http://{host}/a")


async def test_address_can_be_named_too() -> None:
    with serving({"/a": respond(body=b"image")}) as web:
        source = ImageSource(["127.0.0.1", "::1"], allowed=lambda address: True)
        assert await source.read(f"{web.address}/a") == b"image"
        with pytest.raises(BadPicture, match="could not be fetched"):
            await source.read("http://[::1]:1/a")


@pytest.mark.parametrize("domain", ["example.com:80", "https://example.com", f"{'ä' * 64}.com"])
def test_domain_that_no_host_could_have_is_said_not_passed_over(domain: str) -> None:
    with pytest.raises(BadQuestion, match="no host's name"):
        ImageSource([domain])


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
            await ImageSource(["*"]).read(f"http://{host}:{web.port}/a")
        assert web.connections == 0


async def test_every_address_of_a_host_must_be_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name with a public and a local address is refused, whichever comes first."""

    async def found(self: object, host: str, port: int, **given: object) -> list[tuple[object, ...]]:
        return [(2, 1, 6, "", (address, port)) for address in ("8.8.8.8", "127.0.0.1")]

    monkeypatch.setattr(type(asyncio.get_running_loop()), "getaddrinfo", found)
    with pytest.raises(BadPicture, match="not on the public internet"):
        await ImageSource(["*"], timeout=1).read("http://two-faced.example/a")


async def test_address_that_was_checked_is_the_one_that_is_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that answers differently the second time (DNS rebinding) is not asked a second time."""
    lookups: list[str] = []

    async def found(self: object, host: str | bytes, port: int, **given: object) -> list[tuple[object, ...]]:
        lookups.append(host.decode() if isinstance(host, bytes) else host)
        return [(2, 1, 6, "", ("127.0.0.1", port))]

    with serving({"/a": respond(body=b"image")}) as web:
        monkeypatch.setattr(type(asyncio.get_running_loop()), "getaddrinfo", found)
        source = ImageSource(["rebind.example"], allowed=lambda address: True)
        assert await source.read(f"http://rebind.example:{web.port}/a") == b"image"
        assert web.headers["host"] == f"rebind.example:{web.port}"
        await source.close()
    assert lookups.count("rebind.example") == 1


@pytest.mark.parametrize(
    "url",
    [
        "http:",
        "http://",
        "http:///a",
        "http:a",
        "http://[::1",
        "http://h:99999/",
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
        await ImageSource(["*"]).read(url)
