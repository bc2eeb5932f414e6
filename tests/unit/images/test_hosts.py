"""Which hosts images are fetched from: names, names below one, and networks of one's own."""

import ipaddress
import socket
from typing import Any

import httpcore
import pytest
from dualfocus_engine import BadPicture, ConfigError
from dualfocus_server.images.hosts import HostRules
from dualfocus_server.images.image_fetcher import ImageFetcher

from ..fake_engine import WAIT
from ..local_web import redirect, respond, serving

INSIDE = "10.1.2.3"
# What a private network may hold, and what must never be asked for a client.
OF_MACHINES = (
    *("127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1", "0.0.0.0", "::", "224.0.0.1", "ff02::1"),
    *("169.254.169.254", "fe80::1", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::"),
    *("100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254"),
)


@pytest.mark.parametrize(
    ("domain", "host", "named"),
    [
        ("*.example.org", "a.example.org", True),
        ("*.example.org", "a.b.example.org", True),
        ("*.example.org", "example.org", False),
        ("*.example.org", "badexample.org", False),
        ("*.example.org", "a.example.org.evil.com", False),
        ("*.bücher.de", "a.xn--bcher-kva.de", True),
        ("*", "anything.at.all", True),
        ("example.org", "a.example.org", False),
    ],
)
def test_name_below_a_domain_is_named_by_a_star(domain: str, host: str, named: bool) -> None:
    assert HostRules([domain]).names(host) is named


@pytest.mark.parametrize("domain", ["*example.org", "**", "*.*.org", "*."])
def test_star_stands_for_whole_labels_at_the_front(domain: str) -> None:
    with pytest.raises(ConfigError, match="can't be fetched from"):
        HostRules([domain])


@pytest.mark.parametrize("network", ["10.0.0.0/33", "10.0.0.1/8", "lan", ""])
def test_what_is_no_network_is_refused_by_name(network: str) -> None:
    with pytest.raises(ConfigError, match="--allowed-media-networks"):
        HostRules(networks=[network])


@pytest.mark.parametrize("domains", [["*"], ["*.internal"], ["other.internal"]])
def test_own_network_is_for_hosts_that_are_named_exactly(domains: list[str]) -> None:
    address = ipaddress.ip_address(INSIDE)
    assert not HostRules(domains, ["10.0.0.0/8"]).reaches("store.internal", address)
    assert HostRules([*domains, "store.internal"], ["10.0.0.0/8"]).reaches("store.internal", address)
    assert not HostRules([*domains, "store.internal"], ["10.2.0.0/16"]).reaches("store.internal", address)
    assert not HostRules([*domains, "store.internal"]).reaches("store.internal", address)


@pytest.mark.parametrize("address", OF_MACHINES)
def test_no_network_opens_the_machine_itself_or_its_clouds_metadata(address: str) -> None:
    assert not HostRules(["h"], ["0.0.0.0/0", "::/0"]).reaches("h", ipaddress.ip_address(address))


async def test_host_inside_is_reached_and_its_redirects_are_judged_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """The address below is loopback's, which no flag opens: what is judged is what the name server says."""
    told = {"store.internal": INSIDE, "other.internal": INSIDE}

    def look_up(host: str, *given: Any, **more: Any) -> list[tuple[Any, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (told[host], 0))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr("httpcore.AnyIOBackend.connect_tcp", _to_loopback)
    source = ImageFetcher(HostRules(["store.internal", "*.internal"], ["10.0.0.0/8"]), timeout=WAIT)
    pages = {"/a": respond(body=b"image"), "/away": redirect("http://other.internal/a")}
    with serving(pages) as web:
        assert await source.read(f"http://store.internal:{web.port}/a") == b"image"
        with pytest.raises(BadPicture, match=r"'other\.internal' is not on the public internet.*--allowed-media-netw"):
            await source.read(f"http://store.internal:{web.port}/away")
    await source.close()


_connect = httpcore.AnyIOBackend.connect_tcp


async def _to_loopback(backend: Any, host: str, *given: Any) -> Any:
    assert host == INSIDE
    return await _connect(backend, "127.0.0.1", *given)


async def test_next_address_is_tried_where_one_is_not_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in ("127.0.0.2", "127.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *given, **more: found)
    source = ImageFetcher(HostRules(["*"], public=lambda address: True), timeout=WAIT)
    with serving({"/a": respond(body=b"image")}) as web:  # on 127.0.0.1 alone
        assert await source.read(f"http://two.example:{web.port}/a") == b"image"
        assert web.headers["accept"] == "image/*"
        assert web.headers["user-agent"].startswith("DualFocus/")
    with pytest.raises(BadPicture, match="could not be fetched"):
        await source.read(f"http://two.example:{web.port}/a")
    await source.close()


@pytest.mark.parametrize("encoding", ["aws-chunked", "aws-chunked,", "AWS-Chunked", "identity"])
async def test_name_of_an_uploads_encoding_is_passed_over(encoding: str) -> None:
    source = ImageFetcher(HostRules(["*"], public=lambda address: True), timeout=WAIT)
    with serving({"/a": respond(body=b"image", Content_Encoding=encoding)}) as web:
        assert await source.read(f"{web.address}/a") == b"image"
    await source.close()
