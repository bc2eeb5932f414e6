"""Which hosts images are fetched from, and at which of their addresses: what the operator's flags say."""

import ipaddress
from collections.abc import Callable, Iterable

import httpx
from dualfocus_engine import ConfigError

from dualfocus_server.images.addresses import Address, is_of_machines, is_public

_ANY = "*"
_BELOW = "*."


class HostRules:
    """Hosts that may be fetched from, and the networks that are one's own.

    `domains` are hosts, `*.example.org` for all below one and `*` for any; `networks` are in CIDR notation
    (10.0.0.0/8), for hosts that are named exactly. `public` judges every other address. Raises ConfigError where one
    of them can't be read.
    """

    def __init__(
        self, domains: Iterable[str] = (), networks: Iterable[str] = (), public: Callable[[Address], bool] = is_public
    ) -> None:
        names = set(domains)
        self._is_any = _ANY in names
        below = {name for name in names if name.startswith(_BELOW)}
        self._exact = set(map(_wire_name, names - below - {_ANY}))
        self._above = tuple(f".{_wire_name(name.removeprefix(_BELOW))}" for name in below)
        self._networks = [_network(text) for text in networks]
        self._public = public

    def names(self, host: str) -> bool:
        """Whether a host, as requests carry it, may be asked for an image."""
        return self._is_any or host in self._exact or host.endswith(self._above)

    def reaches(self, host: str, address: Address) -> bool:
        """Whether a host may be fetched from at an address of its own."""
        return self._public(address) or (host in self._exact and self._is_own(address))

    def _is_own(self, address: Address) -> bool:
        return any(address in network for network in self._networks) and not is_of_machines(address)


def _wire_name(host: str) -> str:
    """Return a host's name as requests carry it, in which its Unicode and xn-- spellings are one."""
    try:
        if host and _ANY not in host:
            return httpx.URL(scheme="http", host=host).raw_host.decode("ascii")
        reason = "write '*.example.org' for all hosts below one, '*' for any"
    except httpx.InvalidURL as error:
        reason = str(error)
    raise ConfigError(f"Images can't be fetched from {host!r}, which is not a valid host name: {reason}")


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise ConfigError(f"--allowed-media-networks {text!r} is not a network such as 10.0.0.0/8: {error}") from error
