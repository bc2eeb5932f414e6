"""An HTTP client that connects to addresses it has judged, and to nothing else."""

import contextlib
from collections.abc import AsyncIterator, Iterable
from http.cookiejar import CookieJar, DefaultCookiePolicy
from importlib.metadata import version
from typing import Any

import httpcore
import httpx
from dualfocus_engine import BadPicture

from dualfocus_server.images.addresses import addresses_of
from dualfocus_server.images.hosts import HostRules

_LOOK_UP_TIMEOUT_S = 5.0
# Where the host has another address to try.
_CONNECT_TIMEOUT_S = 2.0
# What a fetch may end with, beside BadPicture.
FETCH_ERRORS = (
    *(httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, httpcore.UnsupportedProtocol),
    *(httpx.HTTPError, httpx.InvalidURL),
    UnicodeError,  # a name that is no IDNA
)


class _CheckedBackend(httpcore.AsyncNetworkBackend):
    """Connects to the very address that was checked: a second DNS answer can't slip in between."""

    def __init__(self, rules: HostRules) -> None:
        self._rules = rules
        self._backend = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        *others, last = await self._checked_addresses(host, port)
        for address in others:
            with contextlib.suppress(httpcore.ConnectError, httpcore.ConnectTimeout):
                return await self._backend.connect_tcp(address, port, _CONNECT_TIMEOUT_S, local_address, socket_options)
        return await self._backend.connect_tcp(last, port, timeout, local_address, socket_options)

    async def _checked_addresses(self, host: str, port: int) -> list[str]:
        try:
            addresses = await addresses_of(host, port, _LOOK_UP_TIMEOUT_S)
        except TimeoutError as error:
            raise httpcore.ConnectError(f"{host} was not found within {_LOOK_UP_TIMEOUT_S:g} s") from error
        except (OSError, UnicodeError) as error:  # UnicodeError: a label that is empty or too long
            raise httpcore.ConnectError(f"{host} has no address") from error
        if not addresses or not all(self._rules.reaches(host, address) for address in addresses):
            raise BadPicture(
                f"The image's host {host!r} is not on the public internet; it is not fetched, unless the server's "
                "operator names the host itself and its network (--allowed-media-domains, --allowed-media-networks)."
            )
        return list(map(str, addresses))


class _CheckedTransport(httpx.AsyncBaseTransport):
    """Sends httpx's requests through a connection pool of its own.

    httpx's transport takes no network backend; put into its pool from outside, the check would be gone without a word
    once httpx names the pool differently. Here there is no other way out.
    """

    def __init__(self, rules: HostRules) -> None:
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=httpcore.default_ssl_context(),  # heeds SSL_CERT_FILE; made once, it reads many files
            # Admission bounds the fetches; in a bounded pool slow hosts would keep all others waiting.
            max_connections=None,
            max_keepalive_connections=0,
            network_backend=_CheckedBackend(rules),
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = httpcore.URL(
            scheme=request.url.raw_scheme,
            host=request.url.raw_host,
            port=request.url.port,
            target=request.url.raw_path,
        )
        sent = httpcore.Request(request.method, url, headers=request.headers.raw)
        answer = await self._pool.handle_async_request(sent)
        return httpx.Response(answer.status, headers=answer.headers, stream=_Body(answer))

    async def aclose(self) -> None:
        await self._pool.aclose()


class _Body(httpx.AsyncByteStream):
    """An answer's body, which httpx reads and closes."""

    def __init__(self, answer: httpcore.Response) -> None:
        self._answer = answer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._answer.aiter_stream():
            yield chunk

    async def aclose(self) -> None:
        await self._answer.aclose()


def ssrf_safe_client(rules: HostRules) -> httpx.AsyncClient:
    """Return a client that reaches addresses within the rules only, and keeps nothing.

    Clients of the server must not meet in its cookies or connections. Raises FETCH_ERRORS, and BadPicture where an
    address is not allowed.
    """
    return httpx.AsyncClient(
        transport=_CheckedTransport(rules),
        trust_env=False,  # no proxies, no .netrc
        timeout=None,  # the whole fetch has one
        headers={
            "User-Agent": f"DualFocus/{version('dualfocus')}",
            "Accept": "image/*",
            "Accept-Encoding": "identity",
        },
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
    )
