"""Images as clients send them: data URLs, and http(s) URLs from the hosts that are allowed."""

import asyncio
import contextlib
from urllib.parse import unquote_to_bytes

import httpx
import pybase64
from dualfocus_engine import BadPicture
from dualfocus_engine.machine.pool import run_in_image_pool

from dualfocus_server.images.hosts import HostRules
from dualfocus_server.images.ssrf_safe_http import FETCH_ERRORS, ssrf_safe_client

MAX_REDIRECTS = 3
_LONGEST_HOST = 253  # of any name in the DNS
_HIGHEST_PORT = 65_535
# Characters, with the colon: the rest may be megabytes.
_SCHEME_ENDS = len("https:")
# Base64 of as many characters is decoded about as soon as a thread is woken; percent signs take longer.
_SHORT = 1 << 18
# S3-compatible stores name the encoding of an upload, though they send the bytes as they are.
_NOT_PACKED = ("", "identity", "aws-chunked")
# What browsers drop at either end of a URL, and inside base64.
_AROUND_URLS = "".join(map(chr, range(33)))
_SPACES = b"\t\n\f\r "
_FROM_URL_SAFE = bytes.maketrans(b"-_", b"+/")


class FetchBudget:
    """Bytes that the images of one request may still be fetched with."""

    def __init__(self, size: int) -> None:
        self._size = self._left = size

    def take(self, size: int) -> None:
        """Count bytes that arrived. Raises BadPicture where they are too many."""
        self._left -= size
        if self._left < 0:
            raise BadPicture(
                f"The images behind the request's URLs are larger than {self._size} bytes together, "
                "as many as a request itself may have (--max-body-bytes)."
            )


class ImageFetcher:
    """Gets the bytes of an image from the URL in a request.

    `rules` say which hosts may be fetched from; none may by default. `max_bytes` counts while reading, `timeout` is
    seconds for the whole fetch. Nothing is kept from one fetch to the next.
    """

    def __init__(self, rules: HostRules | None = None, max_bytes: int = 32 << 20, timeout: float | None = 10.0) -> None:
        self._rules = rules or HostRules()
        self._max_bytes = max_bytes
        self._timeout = timeout
        self._client = ssrf_safe_client(self._rules)

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def read(self, url: str, budget: FetchBudget | None = None) -> bytes:
        """Return the bytes of the image behind a data: or http(s): URL; what is fetched is taken of the budget.

        Raises BadPicture.
        """
        url = url.strip(_AROUND_URLS)
        scheme = url[:_SCHEME_ENDS].partition(":")[0].lower()
        if scheme == "data":
            is_short = len(url) <= _SHORT and "%" not in url
            data = decode_data_url(url) if is_short else await run_in_image_pool(decode_data_url, url)
            self._check_size(len(data))
            return data
        if scheme in ("http", "https"):
            return await self._fetch(url, budget or FetchBudget(self._max_bytes))
        raise BadPicture("An image_url must be a data: URL with the image in it, or an http(s): URL.")

    async def _fetch(self, url: str, budget: FetchBudget) -> bytes:
        try:
            async with asyncio.timeout(self._timeout):
                return await self._follow(httpx.URL(url), budget)
        except TimeoutError as error:
            raise BadPicture(f"The image did not arrive within {self._timeout} s (--image-timeout).") from error
        except FETCH_ERRORS as error:
            raise BadPicture(f"The image could not be fetched: {str(error) or type(error).__name__}.") from error

    async def _follow(self, url: httpx.URL, budget: FetchBudget) -> bytes:
        for _ in range(MAX_REDIRECTS + 1):
            self._check_host(url)
            async with self._client.stream("GET", url) as response:
                if response.next_request is None:
                    return await self._read_body(response, budget)
                url = response.next_request.url
        raise BadPicture(f"The image's URL redirects more than {MAX_REDIRECTS} times.")

    def _check_host(self, url: httpx.URL) -> None:
        if url.scheme not in ("http", "https"):
            raise BadPicture(f"An image is not fetched by {url.scheme}:, only by http: or https:.")
        if (url.port or 0) > _HIGHEST_PORT:
            raise httpx.InvalidURL(f"port {url.port} is above {_HIGHEST_PORT}")
        host = url.raw_host.decode("ascii")
        if len(host) > _LONGEST_HOST:
            raise BadPicture(f"The image's host has a name of {len(host)} characters; {_LONGEST_HOST} is the longest.")
        if not self._rules.names(host):
            raise BadPicture(
                f"Images are not fetched from {host!r}: send the image as a data: URL, "
                "or let the server's operator allow the host with --allowed-media-domains."
            )

    async def _read_body(self, response: httpx.Response, budget: FetchBudget) -> bytes:
        if response.status_code != httpx.codes.OK:
            raise BadPicture(f"The image's host answered {response.status_code}.")
        packing = response.headers.get("Content-Encoding", "")
        if packing.lower().strip(", ") not in _NOT_PACKED:
            # Unpacked, few bytes could be gigabytes before they are counted.
            raise BadPicture(f"The image's host sent it packed ({packing}), without being asked to.")
        body = bytearray()
        async for chunk in response.aiter_raw():
            body += chunk
            self._check_size(len(body))
            budget.take(len(chunk))
        return bytes(body)

    def _check_size(self, size: int) -> None:
        if size > self._max_bytes:
            raise BadPicture(f"The image is larger than {self._max_bytes} bytes (--max-image-bytes).")


def decode_data_url(url: str) -> bytes:
    """Return the bytes in a data: URL, base64 or percent-encoded (RFC 2397). Raises BadPicture."""
    header, comma, data = url.partition(",")
    if not comma:
        raise BadPicture("The data: URL has no comma, so no image in it.")
    if not _names_base64(header):
        return unquote_to_bytes(data)
    try:
        return _decode_base64(unquote_to_bytes(data) if "%" in data else data.encode("ascii"))
    except ValueError as error:
        raise BadPicture(f"The data: URL is not valid base64: {error}.") from error


def _names_base64(header: str) -> bool:
    _, semicolon, last = header.rpartition(";")
    return bool(semicolon) and last.strip(" ").lower() == "base64"


def _decode_base64(data: bytes) -> bytes:
    """Decode as browsers do: spaces and line breaks are nothing, padding may be missing; url-safe letters besides.

    That is WHATWG's "forgiving-base64 decode". Raises ValueError.
    """
    # Python's own decoder holds the interpreter, and with it the event loop, a hundred times as long.
    with contextlib.suppress(ValueError):
        return pybase64.b64decode(data, validate=True)
    packed = data.translate(_FROM_URL_SAFE, _SPACES)
    if len(packed) % 4 == 0:
        packed = packed.removesuffix(b"=").removesuffix(b"=")
    return pybase64.b64decode(packed + b"=" * (-len(packed) % 4), validate=True)
