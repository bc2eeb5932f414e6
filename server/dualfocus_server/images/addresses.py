"""Where images may be fetched from: a host's addresses, looked up once and judged."""

import asyncio
import ipaddress
import socket
from concurrent.futures import Future
from threading import Thread
from typing import Any

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
# All that is given out for the public internet; Python's `is_global` knows only what is reserved.
_PUBLIC_V6 = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
# What `is_global` lets pass, in some of Python's versions or in all.
_NOT_PUBLIC = tuple(
    map(
        ipaddress.ip_network,
        (
            "100.64.0.0/10",  # behind carriers' NAT
            "168.63.129.16/32",  # Azure's WireServer
            "192.0.0.0/24",  # IETF protocols; Oracle's metadata service is 192.0.0.192
            "192.88.99.0/24",  # 6to4 relays
            "2001::/23",  # IETF protocols: Teredo, ORCHID
            "3fff::/20",  # documentation
        ),
    )
)
# Metadata and the like, which clouds answer at addresses that are neither loopback nor link-local.
_METADATA = tuple(
    map(
        ipaddress.ip_network,
        (
            "100.100.100.200/32",  # Alibaba Cloud
            "168.63.129.16/32",  # Azure's WireServer
            "192.0.0.192/32",  # Oracle
            "fd00:ec2::/32",  # Amazon, for instances and for pods
            "fd20:ce::254/128",  # Google
        ),
    )
)
# A look-up can't be called off: so many may wait for name servers, and of them for those of one domain.
_MOST_LOOKUPS, _MOST_OF_A_DOMAIN = 512, 32
_lookups: dict[tuple[str, int], "Future[Any]"] = {}


def is_public(address: Address) -> bool:
    """Whether an address lies on the public internet (an IPv4 address inside an IPv6 one is judged as itself)."""
    reached = _reached(address)
    if isinstance(reached, ipaddress.IPv6Address) and reached not in _PUBLIC_V6:
        return False
    return reached.is_global and not reached.is_multicast and not any(reached in network for network in _NOT_PUBLIC)


def is_of_machines(address: Address) -> bool:
    """Whether an address is the machine's own or its cloud's, or none that a single host answers at."""
    reached = _reached(address)
    beyond = (reached.is_loopback, reached.is_link_local, reached.is_unspecified, reached.is_multicast)
    return any(beyond) or any(reached in network for network in _METADATA)


def _reached(address: Address) -> Address:
    """Return the IPv4 address that a gateway would pass an IPv6 one on to, or the address itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


async def addresses_of(host: str, port: int, timeout: float) -> list[Address]:
    """Look a host up. Raises OSError or UnicodeError where it has no address, TimeoutError after `timeout` seconds."""
    async with asyncio.timeout(timeout):
        found = await asyncio.wrap_future(_lookup(host, port))
    return [ipaddress.ip_address(entry[4][0]) for entry in found]


def _lookup(host: str, port: int) -> "Future[Any]":
    """Return a host's look-up, the one that is under way where there is one.

    Raises TimeoutError where many wait for an answer already, or several of the host's own domain.
    """
    if (pending := _lookups.get((host, port))) is not None:
        return pending
    domain = _domain(host)
    if len(_lookups) >= _MOST_LOOKUPS or sum(_domain(other) == domain for other, _ in _lookups) >= _MOST_OF_A_DOMAIN:
        raise TimeoutError
    found: Future[Any] = Future()
    found.set_running_or_notify_cancel()  # who no longer waits for it ends it for nobody else
    _lookups[host, port] = found
    # Not the loop's own look-up: on uvloop it shares four threads with all else. The process's end waits for none.
    Thread(target=_look_up, args=(host, port, found), name="resolver", daemon=True).start()
    return found


def _look_up(host: str, port: int, found: "Future[Any]") -> None:
    try:
        entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except Exception as error:
        del _lookups[host, port]
        found.set_exception(error)
    else:
        del _lookups[host, port]
        found.set_result(entries)


def _domain(host: str) -> str:
    return ".".join(host.rsplit(".", 2)[-2:])
