"""URLs that lead where the server must not go, or nowhere; every one of them is refused.

`{port}` and `{canary}` stand for the port of the test's own web server, which must never be reached. Names are ones
of this machine or end in .invalid: nothing that is sent for them leaves the machine.
"""

import json
import re
import socket
from dataclasses import dataclass
from typing import Any

# Why a URL is refused, as its error says.
NOT_PUBLIC = re.compile("is not on the public internet")
NO_ADDRESS = re.compile("has no address")
SCHEME = re.compile("must be a data: URL")
# Whichever of these a resolver makes of it; but a connection was not tried.
UNREACHABLE = re.compile(
    f"{NOT_PUBLIC.pattern}|could not be fetched: (?!All connection attempts failed)|253 is the longest"
    "|unpaired surrogate"
)
UNREADABLE = re.compile("in no format that can be read|is an SVG drawing|is no bytes|not valid base64|no comma")


@dataclass(frozen=True)
class HostileUrl:
    """One URL, and what its error must say."""

    url: str
    why: re.Pattern[str]

    @property
    def name(self) -> str:
        """A short name for reports, of printable ASCII."""
        return ascii(self.url)[1:61]

    def at(self, port: int) -> str:
        """The URL as it is sent."""
        return self.url.replace("{canary}", f"http://127.0.0.1:{port}/c.png").replace("{port}", str(port))


def _hosts(why: re.Pattern[str], *hosts: str) -> tuple[HostileUrl, ...]:
    return tuple(HostileUrl(f"http://{host}:{{port}}/a.png", why) for host in hosts)


def _urls(why: re.Pattern[str], *urls: str) -> tuple[HostileUrl, ...]:
    return tuple(HostileUrl(url, why) for url in urls)


_IPV4 = (
    *_hosts(NOT_PUBLIC, "127.0.0.1", "127.0.0.2", "127.1.2.3", "127.255.255.255", "0.0.0.0", "0.0.0.1"),
    *_hosts(NOT_PUBLIC, "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.0.1", "192.168.255.255"),
    *_hosts(NOT_PUBLIC, "169.254.169.254", "169.254.0.1", "169.254.170.2", "100.64.0.1", "100.100.100.200"),
    *_hosts(NOT_PUBLIC, "168.63.129.16", "192.0.0.192", "192.0.0.9", "192.88.99.1"),
    *_hosts(NOT_PUBLIC, "192.0.0.1", "192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1"),
    *_hosts(NOT_PUBLIC, "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255"),
    # As resolvers read them: decimal, octal, hexadecimal, fewer than four parts.
    *_hosts(UNREACHABLE, "2130706433", "017700000001", "0x7f000001", "0x7F000001", "127.1", "127.0.1", "0", "0x0"),
    *_hosts(UNREACHABLE, "0177.0.0.1", "0x7f.0.0.1", "0x7f.1", "0177.0x0.0.1", "127.0.0.0x1", "127.0x000000001"),
    *_hosts(UNREACHABLE, "127.000.000.001", "0000127.0.0.1", "127.0.0.01", "00000000177.0.0.1", "2852039166"),
    *_hosts(UNREACHABLE, "0xa9fea9fe", "0251.0376.0251.0376", "169.254.43518", "0xA9.0xFE.43518", "0x7f000001."),
    *_hosts(UNREACHABLE, "127.0.0.1.", "127.0.0.1..", "127..0.1", ".127.0.0.1", "256.256.256.256", "4294967296"),
    *_hosts(UNREACHABLE, "4294967297", "127.0.0.257", "127.0.0.1.1", "0x100000000", "-1", "+127.0.0.1"),
)
_IPV6 = (
    *_hosts(NOT_PUBLIC, "[::1]", "[::]", "[0:0:0:0:0:0:0:1]", "[0000:0000:0000:0000:0000:0000:0000:0001]", "[::0001]"),
    *_hosts(NOT_PUBLIC, "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::FFFF:7F00:0001]", "[0:0:0:0:0:ffff:127.0.0.1]"),
    *_hosts(NOT_PUBLIC, "[::127.0.0.1]", "[::7f00:1]", "[::ffff:0:127.0.0.1]", "[::ffff:169.254.169.254]"),
    *_hosts(NOT_PUBLIC, "[::ffff:10.0.0.1]", "[::ffff:0.0.0.0]", "[64:ff9b::127.0.0.1]", "[64:ff9b::a9fe:a9fe]"),
    *_hosts(NOT_PUBLIC, "[64:ff9b:1::7f00:1]", "[2002:7f00:1::]", "[2002:a9fe:a9fe::1]", "[2002:c0a8:1::1]"),
    *_hosts(NOT_PUBLIC, "[64:ff9b::a83f:8110]", "[2002:a83f:8110::1]", "[::ffff:168.63.129.16]", "[3fff::1]"),
    *_hosts(NOT_PUBLIC, "[64:ff9b::c000:c0]", "[2002:c000:c0::1]", "[::ffff:192.0.0.192]", "[2001:20::1]"),
    *_hosts(NOT_PUBLIC, "[2001:0:7f00:1::]", "[fc00::1]", "[fd00::1]", "[fd00:ec2::254]", "[fe80::1]", "[fec0::1]"),
    *_hosts(NOT_PUBLIC, "[ff02::1]", "[ff0e::1]", "[100::1]", "[2001:db8::1]", "[2001:10::1]", "[4000::1]"),
    *_hosts(UNREACHABLE, "[fe80::1%25lo]", "[fe80::1%lo]", "[::1%25]", "[::1%lo]", "[::1%251]", "[::ffff:127.1]"),
    *_hosts(
        UNREACHABLE, "[::ffff:0177.0.0.1]", "[127.0.0.1]", "[localhost]", "[]", "[:::1]", "[v1.::1]", "[::1", "::1"
    ),
    *_hosts(UNREACHABLE, "[::1]x", "x[::1]", "[[::1]]", "[::1].localhost"),
)
_OWN_NAMES = (
    *_hosts(NOT_PUBLIC, "localhost", "LOCALHOST", "LocalHost"),
    *_hosts(UNREACHABLE, "localhost.", "localhost..", "localhost.localdomain", "ip6-localhost", "ip6-loopback"),
    *_hosts(UNREACHABLE, "a.localhost", "localhost.invalid", "localhost%00.invalid", "localhost%2e", "localhost%20"),
    *_hosts(UNREACHABLE, "%6cocalhost", "\uff4c\uff4fcalhost", "loc\u00adalhost"),
    *_hosts(UNREACHABLE, socket.gethostname(), f"{socket.gethostname()}."),
)
_OTHER_LETTERS = (
    *_hosts(
        UNREACHABLE, "\uff11\uff12\uff17.\uff10.\uff10.\uff11", "127\uff0e0\uff0e0\uff0e1", "127\u30020\u30020\u30021"
    ),
    *_hosts(
        UNREACHABLE,
        "127\uff610\uff610\uff611",
        "\u2460\u2461\u2466.\u24ea.\u24ea.\u2460",
        "\u0661\u0662\u0667.\u0660.\u0660.\u0661",
    ),
    *_hosts(UNREACHABLE, "\u24c1ocalhost", "lo\u017fcalhost", "loca\u200dlhost", "loca\u200blhost", "\u202elocalhost"),
    *_hosts(UNREACHABLE, "127.0.0.\u00b9", "\U0001d7cf\U0001d7d0\U0001d7d5.0.0.1", "xn--localhost-", "xn--", "xn--a"),
    *_hosts(
        UNREACHABLE,
        "127.0.0.1\u3000",
        "\u00a0127.0.0.1",
        "127.0.0.1\u2024",
        "\ud800",
        "127.0.0.1\ufeff",
        "a\u0300.invalid",
    ),
)
_PARTS = (
    *_hosts(NOT_PUBLIC, "example.invalid@127.0.0.1", "a:b@127.0.0.1", "@127.0.0.1", "a@b@127.0.0.1", "%40@[::1]"),
    *_urls(NOT_PUBLIC, "http://127.0.0.1:{port}?a.png", "http://127.0.0.1:{port}#@example.invalid/"),
    *_urls(NOT_PUBLIC, "http://127.0.0.1:{port}/?http://example.invalid/", "http://127.0.0.1:{port}/../..//a.png"),
    *_urls(
        NOT_PUBLIC, "http://127.0.0.1/", "http://127.0.0.1:/", "https://127.0.0.1:{port}/", "HTTP://127.0.0.1:{port}/"
    ),
    *_urls(NOT_PUBLIC, "hTTps://LOCALHOST:{port}/", "http://127.0.0.1:00000{port}/", "http://127.0.0.1:22/"),
    *_urls(NOT_PUBLIC, "http://127.0.0.1:{port}/a.png?" + "a" * 60_000, "http://127.0.0.1:{port}/%0d%0aHost:%20x"),
    *_urls(
        UNREACHABLE, "http://127.0.0.1:0/", "http://127.0.0.1:65535/", "http://127.0.0.1:65536/", "http://127.0.0.1:-1/"
    ),
    *_urls(UNREACHABLE, "http://127.0.0.1:1e3/", "http://127.0.0.1:{port}:{port}/", "http://127.0.0.1:\u0661/"),
    *_urls(UNREACHABLE, "http://127.0.0.1:99999999999999999999/", "http://127.0.0.1:+80/", "http://127.0.0.1: 80/"),
    *_urls(UNREACHABLE, "http://127.0.0.1\\@example.invalid/", "http://example.invalid\\@127.0.0.1:{port}/"),
    *_urls(
        UNREACHABLE, "http:\\\\127.0.0.1:{port}\\a.png", "http:/\\127.0.0.1:{port}/", "http://127.0.0.1:{port}\\a.png"
    ),
    *_urls(UNREACHABLE, "http://example.invalid#@127.0.0.1:{port}/", "http://example.invalid?@127.0.0.1:{port}/"),
    *_urls(UNREACHABLE, "http://example.invalid:80@127.0.0.1:{port}/a.png", "http://example.invalid;127.0.0.1:{port}/"),
    *_urls(
        UNREACHABLE, "http:127.0.0.1:{port}/", "http:/127.0.0.1:{port}/", "http:///127.0.0.1:{port}/", "http:", "http:/"
    ),
    *_urls(
        UNREACHABLE,
        "http://",
        "http:///",
        "http://?",
        "http://#",
        "http://@/",
        "http://:80/",
        "http://:@:80/",
        "http://./",
    ),
    *_urls(UNREACHABLE, "http://127.0.0.1\t:{port}/", "http://127.0.0.1\n:{port}/", "http://127.0.\r\n0.1:{port}/"),
    *_urls(
        UNREACHABLE, "http://127.0.0.1\0:{port}/", "http://127.0.0.1%00:{port}/", "http://example.invalid\0@127.0.0.1/"
    ),
    *_urls(
        UNREACHABLE, "http://127.0.0.1 :{port}/", "http://127.0.0.1{{}}/", "http://*/", "http://127.0.0.0/8:{port}/"
    ),
    *_urls(
        UNREACHABLE, "http://" + "a" * 300 + ".invalid/", "http://" + "a." * 30_000 + "invalid/", "http://a..invalid/"
    ),
    *_urls(UNREACHABLE, "http://127.0.0.1:{port}/" + "a" * 1_000_000, "http://" + "a@" * 500_000 + "127.0.0.1/"),
    *_urls(NO_ADDRESS, "http://nothing.invalid/", "https://nothing.invalid:{port}/", "http://metadata.google.invalid/"),
    *_urls(NOT_PUBLIC, " {canary}", "\t{canary}", "\n{canary}", "\0{canary}"),
    *_urls(
        SCHEME,
        "ht\ntp://127.0.0.1:{port}/",
        "//127.0.0.1:{port}/",
    ),
    *_urls(
        SCHEME, "127.0.0.1:{port}/a.png", "/etc/passwd", "etc/passwd", "C:\\windows\\win.ini", "\\\\127.0.0.1\\share"
    ),
)
_SCHEMES = (
    *_urls(SCHEME, "file:///etc/passwd", "file://localhost/etc/passwd", "FILE:///etc/passwd", "file:/etc/passwd"),
    *_urls(
        SCHEME,
        "ftp://127.0.0.1:{port}/",
        "gopher://127.0.0.1:{port}/_GET",
        "dict://127.0.0.1:{port}/",
        "ldap://127.0.0.1/",
    ),
    *_urls(
        SCHEME,
        "javascript:fetch('{canary}')",
        "blob:{canary}",
        "jar:{canary}!/",
        "unix:///tmp/a.sock",
        "view-source:{canary}",
    ),
    *_urls(
        SCHEME,
        "ws://127.0.0.1:{port}/",
        "s3://bucket/key",
        "gs://bucket/key",
        "tftp://127.0.0.1/",
        "ssh://127.0.0.1:{port}/",
    ),
    *_urls(
        SCHEME,
        "http+unix://%2ftmp%2fa/",
        "httpx://127.0.0.1:{port}/",
        "url:{canary}",
        "about:blank",
        "\uff48ttp://127.0.0.1/",
    ),
    *_urls(
        UNREADABLE, "data:{canary}", "data:text/plain,{canary}", "data:text/uri-list;base64,aHR0cDovLzEyNy4wLjAuMQ=="
    ),
    *_urls(
        UNREADABLE, "data:image/svg+xml,<svg><image href='{canary}'/></svg>", "data:,", "data://127.0.0.1:{port}/a.png"
    ),
)
HOSTILE_URLS = (*_IPV4, *_IPV6, *_OWN_NAMES, *_OTHER_LETTERS, *_PARTS, *_SCHEMES)

# Where a redirect from an allowed address leads.
REDIRECTS = (
    *("http://127.0.0.1:{port}/", "//127.0.0.1:{port}/", "http://[::1]:{port}/", "http://2130706433:{port}/"),
    *(
        "http://localhost:{port}/",
        "http://0x7f.1:{port}/",
        "http://[::ffff:127.0.0.1]:{port}/",
        "https://127.1:{port}/",
    ),
    *("http://127.0.0.99@127.0.0.1:{port}/", "http://127.0.0.1:{port}\\@127.0.0.99/", "HTTP://0:{port}/"),
    *(
        "file:///etc/passwd",
        "gopher://127.0.0.1:{port}/",
        "data:image/png;base64,AAAA",
        "javascript:1",
        "http://",
        "\\",
    ),
)


@dataclass(frozen=True)
class Carrier:
    """A request that holds a URL somewhere; `fields` are its own, with `{url}` for the URL."""

    name: str
    fields: str
    accepted: frozenset[int] = frozenset({400})

    def at(self, url: str) -> dict[str, Any]:
        """The request's fields as they are sent."""
        made: dict[str, Any] = json.loads(self.fields.replace("{url}", url))
        return made


def _part(name: str, part: str, accepted: frozenset[int] = frozenset({400})) -> Carrier:
    text = '{"type": "text", "text": "What?"}'
    return Carrier(name, f'{{"messages": [{{"role": "user", "content": [{part}, {text}]}}]}}', accepted)


def _role(role: str, more: str = "") -> Carrier:
    part = '{"type": "image_url", "image_url": {"url": "{url}"}}'
    question = '{"role": "user", "content": "What?"}'
    return Carrier(
        f"{role}'s message", f'{{"messages": [{{"role": "{role}"{more}, "content": [{part}]}}, {question}]}}'
    )


_EITHER = frozenset({200, 400})
CARRIERS = (
    _part("image_url as text", '{"type": "image_url", "image_url": "{url}"}'),
    _part("image_url without a type", '{"image_url": {"url": "{url}"}}'),
    _part("image_url of type null", '{"type": null, "image_url": {"url": "{url}"}}'),
    _part("image_url under another type", '{"type": "text", "text": "a", "image_url": {"url": "{url}"}}', _EITHER),
    _part("input_image", '{"type": "input_image", "image_url": "{url}"}'),
    _part("input_image with input_image", '{"type": "input_image", "input_image": {"url": "{url}"}}'),
    _part("image", '{"type": "image", "image": "{url}"}'),
    _part("image_pil", '{"type": "image_pil", "image_pil": "{url}"}'),
    _part("image_embeds", '{"type": "image_embeds", "image_embeds": "{url}"}'),
    _part("audio_embeds", '{"type": "audio_embeds", "audio_embeds": "{url}"}'),
    _part("video_url", '{"type": "video_url", "video_url": {"url": "{url}"}}'),
    _part("audio_url", '{"type": "audio_url", "audio_url": {"url": "{url}"}}'),
    _part("video_url without a type", '{"video_url": {"url": "{url}"}}'),
    _part("audio_url without a type", '{"audio_url": {"url": "{url}"}}'),
    _part("input_audio", '{"type": "input_audio", "input_audio": {"data": "{url}", "format": "wav"}}'),
    _part("file", '{"type": "file", "file": {"file_data": "{url}", "filename": "a.png"}}'),
    _part("image_url with a uuid", '{"type": "image_url", "image_url": {"url": "{url}"}, "uuid": "a"}'),
    _part(
        "two URLs in one part", '{"type": "image_url", "image_url": {"url": "{url}"}, "video_url": {"url": "{url}"}}'
    ),
    _part("image_url beside text", '{"text": "a", "image_url": {"url": "{url}"}}', _EITHER),
    _part("a part of text", '"{url}"', _EITHER),
    *(_role(role) for role in ("system", "developer", "assistant")),
    _role("tool", ', "tool_call_id": "a"'),
    Carrier("documents", '{"documents": [{"title": "a", "text": "{url}"}]}', _EITHER),
    Carrier("media_io_kwargs", '{"media_io_kwargs": {"image": {"url": "{url}"}}}', _EITHER),
    Carrier("mm_processor_kwargs", '{"mm_processor_kwargs": {"images": "{url}"}}', _EITHER),
    Carrier("chat_template_kwargs", '{"chat_template_kwargs": {"image": "{url}"}}', _EITHER),
    Carrier("model", '{"model": "{url}"}', frozenset({404})),
    Carrier("mm_payload", '{"mm_payload": {"url": "{url}"}}', _EITHER),
    Carrier("kv_transfer_params", '{"kv_transfer_params": {"remote_host": "127.0.0.1", "url": "{url}"}}', _EITHER),
    Carrier("ec_transfer_params", '{"ec_transfer_params": {"a": {"url": "{url}"}}}', _EITHER),
)
