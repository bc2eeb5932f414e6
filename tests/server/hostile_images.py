"""Images that clients send by mistake or on purpose, each with what the server may answer.

All are made in memory, the same each time. `READ` are pictures after all and must be answered; `REFUSED` must not be;
`EITHER` is for what dice made.
"""

import base64
import io
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from dualfocus_engine.pictures.formats import FORMATS
from hostile_memory import avif_claiming, avif_of_parts, jpeg_of_scans, tiff_of_a_tile, tiff_of_strips
from PIL import Image

READ, REFUSED, EITHER = frozenset({200}), frozenset({400}), frozenset({200, 400})
TOO_LARGE = frozenset({413})
_SEED = 20261
_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class HostileImage:
    """One image: `make` returns its bytes, or the whole URL where the URL is what is odd about it."""

    name: str
    accepted: frozenset[int]
    make: Callable[[], bytes | str]
    mime: str = "image/png"

    def url(self) -> str:
        """The image_url as it is sent."""
        made = self.make()
        return made if isinstance(made, str) else data_url(made, self.mime)


def data_url(data: bytes, mime: str = "image/png") -> str:
    """A data: URL in base64."""
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"


def noise(size: tuple[int, int], mode: str = "RGB") -> Image.Image:
    """A picture of seeded noise, which no encoder shrinks much."""
    bands = len(Image.new(mode, (1, 1)).getbands())
    return Image.frombytes(mode, size, random.Random(_SEED).randbytes(size[0] * size[1] * bands))


def encoded(kind: str, size: tuple[int, int] = (48, 32), mode: str = "RGB", **options: Any) -> bytes:
    """A valid file of seeded noise."""
    return saved(noise(size, mode), kind, **options)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    """The file of an image."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def chunk(kind: bytes, data: bytes, crc: int | None = None) -> bytes:
    """A chunk of a PNG, with its checksum or a given one."""
    return (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data) if crc is None else crc)
    )


def png(
    width: int, height: int, extra: bytes = b"", depth: int = 8, colour: int = 0, rows: bytes | None = None
) -> bytes:
    """A PNG that claims a size; its rows are black unless given, `extra` are chunks before them."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = bytes((width + 1) * height) if rows is None else rows
    return _PNG + chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(body, 9)) + chunk(b"IEND", b"")


def _with_chunk(kind: bytes, data: bytes, crc: int | None = None) -> bytes:
    return png(8, 8, chunk(kind, data, crc))


def _zeros(size: int) -> bytes:
    """Many zero bytes, deflated piece by piece."""
    packer, piece = zlib.compressobj(9), bytes(1 << 20)
    return b"".join(packer.compress(piece) for _ in range(size >> 20)) + packer.flush()


def tiff(tags: list[tuple[int, int, int, int]], tail: bytes = b"", following: int = 0) -> bytes:
    """A little-endian TIFF of one directory: tags of (number, type, count, value), then `tail` behind it."""
    entries = b"".join(struct.pack("<HHII", *tag) for tag in sorted(tags))
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", following) + tail


def _grey_tiff(*others: tuple[int, int, int, int], side: int = 8, following: int = 0) -> bytes:
    usual = {256: (256, 4, 1, side), 257: (257, 4, 1, side), 258: (258, 3, 1, 8), 259: (259, 3, 1, 1)}
    usual |= {262: (262, 3, 1, 1), 277: (277, 3, 1, 1), 278: (278, 4, 1, side), 279: (279, 4, 1, 64)}
    tags = usual | {273: (273, 4, 1, 0)} | {tag[0]: tag for tag in others}
    if tags[273][3] == 0:
        tags[273] = (273, 4, 1, 8 + 2 + 12 * len(tags) + 4)
    return tiff(list(tags.values()), bytes(range(64)), following)


def _tiled() -> bytes:
    tags = [(256, 4, 1, 40), (257, 4, 1, 20), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (277, 3, 1, 1)]
    start = 8 + 2 + 12 * 10 + 4 + 48
    offsets = b"".join(struct.pack("<I", start + 256 * index) for index in range(6))
    tags += [(322, 4, 1, 16), (323, 4, 1, 16), (324, 4, 6, start - 48), (325, 4, 6, start - 24)]
    return tiff(tags, offsets + struct.pack("<6I", *[256] * 6) + bytes(range(256)) * 6)


def jpeg_with(segment: bytes, marker: int = 0xE1) -> bytes:
    """A JPEG with one more segment behind its start."""
    plain = encoded("JPEG")
    return plain[:2] + struct.pack(">BBH", 0xFF, marker, len(segment) + 2) + segment + plain[2:]


def _exif(*tags: tuple[int, int, int, int], following: int = 0) -> bytes:
    return jpeg_with(b"Exif\0\0" + tiff(list(tags), following=following))


def _odd_orientation(orientation: int) -> bytes:
    """An orientation beside tags whose types, counts and offsets are wrong."""
    odd = [(0x010F, 2, 0xFFFFFFFF, 0xFFFFFFF0), (0x011A, 5, 1, 0xFFFF), (0x0131, 99, 3, 1), (0x8769, 4, 1, 8)]
    return _exif((0x0112, 3, 1, orientation), *odd)


def gif(screen: tuple[int, int], frame: tuple[int, int] = (2, 2), at: tuple[int, int] = (0, 0)) -> bytes:
    """A GIF of one frame of 2x2 pixels, with whatever its headers claim."""
    start = b"GIF89a" + struct.pack("<HHBBB", *screen, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    return start + b"," + struct.pack("<HHHHB", *at, *frame, 0) + b"\x02\x03\x44\x34\x05\0;"


def bmp(width: int, height: int, compression: int = 0, data: bytes = bytes(192), bits: int = 24) -> bytes:
    """A BMP with a header of its own."""
    palette = bytes(1024) if bits == 8 else b""
    start = 54 + len(palette)
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(data), 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start) + header + palette + data


def _animation(kind: str) -> bytes:
    frames = [Image.new("RGB", (24, 24), colour) for colour in ("red", "green", "blue")]
    return saved(frames[0], kind, save_all=True, append_images=frames[1:], duration=10, loop=0)


def _many_frames() -> bytes:
    start = gif((64, 64))[:19]
    return start + (b"\x21\xf9\x04\0\0\0\0\0" + gif((2, 2))[19:-1]) * 20_000 + b";"


def _webp_claiming(width: int, height: int) -> bytes:
    extended = struct.pack("<I", 0) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    still = encoded("WEBP")[12:]
    body = b"WEBPVP8X" + struct.pack("<I", 10) + extended + still
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _apng_lying() -> bytes:
    return png(8, 8, chunk(b"acTL", struct.pack(">II", 0xFFFFFFFF, 0)))


def _interlaced() -> bytes:
    """A 1x1 picture in Adam7: all passes but the first are empty."""
    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 1)
    return _PNG + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0\x80")) + chunk(b"IEND", b"")


def _palette(extra: bytes) -> bytes:
    return png(8, 8, chunk(b"PLTE", bytes(range(6))) + extra, colour=3)


def _adobe(transform: int) -> bytes:
    plain = encoded("JPEG", mode="CMYK")
    at = plain.index(b"Adobe") + 11
    return plain[:at] + bytes([transform]) + plain[at + 1 :]


def _polyglot(prefix: bytes, suffix: bytes = b"") -> bytes:
    """A JPEG whose first comment is something else's beginning."""
    return jpeg_with(prefix, 0xFE) + suffix


def _zip() -> bytes:
    import zipfile

    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("index.html", "<script>alert(1)</script>")
    return file.getvalue()


def _claiming(data: bytes, size: tuple[int, int]) -> bytes:
    """A JPEG whose frame header claims another size."""
    at = next(at for marker in (b"\xff\xc0", b"\xff\xc2") if (at := data.find(marker)) > 0)
    return data[: at + 5] + struct.pack(">HH", size[1], size[0]) + data[at + 9 :]


def _cut(kind: str, mode: str = "RGB", **options: Any) -> Iterator[HostileImage]:
    whole = encoded(kind, (64, 64), mode, **options)
    label = f"progressive {kind}" if "progressive" in options else kind
    for tenths in (1, 3, 5, 9):
        cut = whole[: len(whole) * tenths // 10]
        # Of a small JPEG the last row of blocks is a large share of it.
        accepted = EITHER if (label, tenths) == ("JPEG", 9) else REFUSED
        yield HostileImage(f"{label} cut at {tenths}0 %", accepted, lambda cut=cut: cut)


def _damaged(kind: str) -> Iterator[HostileImage]:
    """Files with some bytes changed: whatever comes of them, it is no failure."""
    whole, dice = encoded(kind), random.Random(_SEED + len(kind))
    for turn in range(4):
        changed = bytearray(whole)
        for _ in range(8):
            changed[dice.randrange(len(changed))] = dice.randrange(256)
        yield HostileImage(f"{kind} with wrong bytes, {turn}", EITHER, lambda changed=changed: bytes(changed))


def _text(start: str, data: bytes) -> Callable[[], str]:
    return lambda: start + base64.b64encode(data).decode()


_TINY = png(4, 4)
_SMALL = base64.b64encode(_TINY).decode()
_HEIC = struct.pack(">I", 24) + b"ftypheic" + bytes(4) + b"mif1heic" + bytes(64)
_AVIF = struct.pack(">I", 24) + b"ftypavif" + bytes(4) + b"mif1avif" + bytes(64)
_SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><image href="file:///etc/passwd"/></svg>'
_SCRIPT = b"<html><script>alert(1)</script>"

_SIZES = (
    HostileImage("1x1", READ, lambda: png(1, 1)),
    HostileImage("1x50000", READ, lambda: png(1, 50_000)),
    HostileImage("50000x1", READ, lambda: png(50_000, 1)),
    HostileImage("3x20000 JPEG", READ, lambda: encoded("JPEG", (3, 20_000))),
    HostileImage("16383x1 WebP", READ, lambda: encoded("WEBP", (16_383, 1), lossless=True)),
    HostileImage("49.9 million pixels", READ, lambda: png(7_064, 7_064)),
    HostileImage("as tall as the limit", READ, lambda: png(1, 50_000_000 // 32)),
    HostileImage("50.1 million pixels", REFUSED, lambda: png(7_080, 7_080)),
    HostileImage("PNG 0x0", REFUSED, lambda: png(0, 0)),
    HostileImage("PNG 0x8", REFUSED, lambda: png(0, 8)),
    HostileImage("PNG 8x0", REFUSED, lambda: png(8, 0)),
    HostileImage("PNG of 100000x100000", REFUSED, lambda: png(100_000, 100_000, rows=bytes(1000))),
    HostileImage("PNG of 2^31x2^31", REFUSED, lambda: png(1 << 31, 1 << 31, rows=b"")),
    HostileImage("PNG of (2^32-1)x1", REFUSED, lambda: png(0xFFFFFFFF, 1, rows=b"\0\0")),
    HostileImage("PNG with fewer rows than it claims", REFUSED, lambda: png(64, 64, rows=bytes(65 * 3))),
    HostileImage("PNG with more rows than it claims", READ, lambda: png(4, 4, rows=bytes(1 << 20))),
    HostileImage("JPEG of 65535x65535", REFUSED, lambda: _claiming(encoded("JPEG"), (65_535, 65_535))),
    HostileImage("JPEG of 0x0", REFUSED, lambda: _claiming(encoded("JPEG"), (0, 0))),
    HostileImage("JPEG taller than its data", READ, lambda: _claiming(encoded("JPEG"), (48, 6_000))),
    HostileImage(
        "progressive JPEG of 7000x7000", READ, lambda: _claiming(encoded("JPEG", progressive=True), (7000, 7000))
    ),
    HostileImage("WebP canvas of 16384x16384", REFUSED, lambda: _webp_claiming(16_384, 16_384)),
    HostileImage("GIF screen of 65535x65535", REFUSED, lambda: gif((65_535, 65_535))),
    HostileImage("GIF screen of 0x0", READ, lambda: gif((0, 0))),
    HostileImage("GIF frame beyond its screen", REFUSED, lambda: gif((2, 2), (65_535, 65_535), (60_000, 60_000))),
    HostileImage("BMP of 2^31-1 squared", REFUSED, lambda: bmp((1 << 31) - 1, (1 << 31) - 1)),
    HostileImage("BMP of negative height", READ, lambda: bmp(8, -8)),
    HostileImage("BMP of the most negative height", REFUSED, lambda: bmp(8, -(1 << 31))),
    HostileImage("BMP of negative width", REFUSED, lambda: bmp(-8, 8)),
    HostileImage("TIFF of 2^32-1 squared", REFUSED, lambda: _grey_tiff(side=0xFFFFFFFF)),
)
_BOMBS = (
    HostileImage("zTXt bomb", READ, lambda: _with_chunk(b"zTXt", b"a\0\0" + _zeros(256 << 20))),
    HostileImage("iTXt bomb", READ, lambda: _with_chunk(b"iTXt", b"a\0\1\0\0\0" + _zeros(256 << 20))),
    HostileImage("iCCP bomb", REFUSED, lambda: _with_chunk(b"iCCP", b"a\0\0" + _zeros(256 << 20))),
    HostileImage("200 zTXt chunks", REFUSED, lambda: png(8, 8, chunk(b"zTXt", b"a\0\0" + _zeros(1 << 20)) * 200)),
    HostileImage("IDAT bomb", READ, lambda: _PNG + png(8, 8)[8:33] + chunk(b"IDAT", _zeros(512 << 20))),
    HostileImage("BMP run-length bomb", REFUSED, lambda: bmp(60_000, 60_000, 1, b"\xff\x01" * 4000, 8)),
    HostileImage("BMP run-length, short", REFUSED, lambda: bmp(7_000, 7_000, 1, b"\xff\x01" * 40 + b"\0\1", 8)),
    HostileImage("BMP run-length with jumps", READ, lambda: bmp(64, 64, 1, b"\0\2\xff\xff" * 4000, 8)),
    HostileImage("GIF of 20000 frames", READ, _many_frames, "image/gif"),
    HostileImage(
        "TIFF of 2^32-1 strips", REFUSED, lambda: _grey_tiff((273, 4, 0xFFFFFFFF, 8), (279, 4, 0xFFFFFFFF, 8))
    ),
    HostileImage("TIFF strip of 4 GB", READ, lambda: _grey_tiff((279, 4, 1, 0xFFFFFFFF))),
    HostileImage("TIFF of 65535 samples", REFUSED, lambda: _grey_tiff((277, 3, 1, 65_535))),
    HostileImage("TIFF tile of 4096x4096", READ, lambda: tiff_of_a_tile(4096, 4096)),
    HostileImage("TIFF tiles far over its edge", REFUSED, lambda: tiff_of_a_tile(8192, 16, height=1_000_000)),
    HostileImage("TIFF of 300000 strips", REFUSED, lambda: tiff_of_strips(300_000)),
    HostileImage("JPEG of 300 scans", REFUSED, lambda: jpeg_of_scans(300)),
    HostileImage("AVIF frame larger than its picture", READ, lambda: avif_claiming(2048, 16)),
    HostileImage("AVIF of 100 items in 65535 parts each", REFUSED, lambda: avif_of_parts(100)),
)
_ANIMATIONS = (
    HostileImage("animated GIF", READ, lambda: _animation("GIF"), "image/gif"),
    HostileImage("animated WebP", READ, lambda: _animation("WEBP"), "image/webp"),
    HostileImage("animated PNG", READ, lambda: _animation("PNG")),
    HostileImage("TIFF of three pages", READ, lambda: _animation("TIFF"), "image/tiff"),
    HostileImage("animated PNG of 2^32-1 frames", READ, _apng_lying),
    HostileImage("TIFF directory after itself", READ, lambda: _grey_tiff(following=8)),
)
_DAMAGE = (
    *_cut("JPEG"),
    *_cut("JPEG", progressive=True),
    *_cut("PNG"),
    *_cut("WEBP", lossless=True),
    *_cut("TIFF"),
    *_cut("GIF", "L"),
    *_cut("BMP"),
    *_cut("AVIF"),
    *_cut("JPEG2000"),
    *_cut("PPM"),
    *(image for kind in FORMATS if kind != "HEIF" for image in _damaged(kind)),
    HostileImage(
        "wrong CRC of the header", REFUSED, lambda: _PNG + chunk(b"IHDR", png(4, 4)[16:29], 1) + png(4, 4)[33:]
    ),
    HostileImage("wrong CRC of a text", REFUSED, lambda: _with_chunk(b"tEXt", b"a\0b", 1)),
    HostileImage("chunk of 4 GB", REFUSED, lambda: png(4, 4)[:33] + b"\xff\xff\xff\xffIDAT" + bytes(99)),
    HostileImage("no bytes", REFUSED, lambda: b""),
    HostileImage("one byte", REFUSED, lambda: b"\x89"),
    HostileImage("zero bytes", REFUSED, lambda: bytes(4096)),
    HostileImage("random bytes", REFUSED, lambda: random.Random(_SEED).randbytes(65_536)),
    HostileImage("only a PNG's signature", REFUSED, lambda: _PNG),
    HostileImage("only a JPEG's start", REFUSED, lambda: b"\xff\xd8\xff"),
    HostileImage("trailing garbage", READ, lambda: png(8, 8) + random.Random(_SEED).randbytes(100_000)),
    HostileImage("JPEG with trailing garbage", READ, lambda: encoded("JPEG") + random.Random(_SEED).randbytes(100_000)),
    HostileImage("PNG without a palette", REFUSED, lambda: png(8, 8, colour=3)),
)
_METADATA = (
    HostileImage("ICC profile of garbage", READ, lambda: jpeg_with(b"ICC_PROFILE\0\1\1" + bytes(range(256)), 0xE2)),
    HostileImage("ICC profile, part 9 of 3", READ, lambda: jpeg_with(b"ICC_PROFILE\0\x09\3" + bytes(128), 0xE2)),
    HostileImage("EXIF of garbage", READ, lambda: jpeg_with(b"Exif\0\0" + random.Random(_SEED).randbytes(2000))),
    HostileImage("EXIF directory after itself", READ, lambda: _exif((0x0112, 3, 1, 6), following=8)),
    HostileImage("EXIF directory inside itself", READ, lambda: _exif((0x8769, 4, 1, 8), (0x8825, 4, 1, 8))),
    *(
        HostileImage(f"orientation {number} among odd tags", READ, lambda number=number: _odd_orientation(number))
        for number in (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 65_535)
    ),
    HostileImage("orientation as text", READ, lambda: _exif((0x0112, 2, 4, 0x00363636))),
    HostileImage("eXIf of garbage", READ, lambda: _with_chunk(b"eXIf", b"II*\0\xff\xff\xff\xff" * 9)),
    HostileImage("palette with too many tRNS", REFUSED, lambda: _palette(chunk(b"tRNS", bytes(300)))),
    HostileImage("palette with no tRNS bytes", READ, lambda: _palette(chunk(b"tRNS", b""))),
    HostileImage("grey with one tRNS byte", REFUSED, lambda: _with_chunk(b"tRNS", b"\0")),
    HostileImage("pHYs of zero length", REFUSED, lambda: _with_chunk(b"pHYs", b"")),
    HostileImage("gAMA and cHRM of garbage", REFUSED, lambda: png(8, 8, chunk(b"gAMA", b"\1") + chunk(b"cHRM", b"\2"))),
)
_KINDS = (
    HostileImage("16-bit grey", READ, lambda: saved(Image.new("I;16", (9, 9), 40_000), "PNG")),
    HostileImage("16-bit RGBA", READ, lambda: png(4, 4, depth=16, colour=6, rows=bytes(33 * 4))),
    HostileImage("1-bit", READ, lambda: saved(Image.new("1", (9, 9), 1), "PNG")),
    HostileImage("32-bit float TIFF", READ, lambda: saved(Image.new("F", (9, 9), float("nan")), "TIFF")),
    HostileImage("32-bit TIFF", READ, lambda: saved(Image.new("I", (9, 9), -5), "TIFF")),
    HostileImage("tiled TIFF", READ, _tiled),
    HostileImage("interlaced PNG", READ, _interlaced),
    HostileImage("grey and alpha", READ, lambda: encoded("PNG", mode="LA")),
    HostileImage("CMYK JPEG", READ, lambda: encoded("JPEG", mode="CMYK")),
    HostileImage("Adobe JPEG said to be YCCK", READ, lambda: _adobe(2)),
    HostileImage("Adobe JPEG of an unknown transform", READ, lambda: _adobe(77)),
    HostileImage("Lab TIFF", READ, lambda: encoded("TIFF", mode="LAB")),
    HostileImage("JPEG said to be a PNG", READ, lambda: encoded("JPEG"), "image/png"),
    HostileImage("PNG said to be text", READ, lambda: png(4, 4), "text/html"),
    HostileImage("SVG", REFUSED, lambda: _SVG, "image/svg+xml"),
    HostileImage("EPS", REFUSED, lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nquit\n"),
    HostileImage("PDF", REFUSED, lambda: saved(noise((9, 9)), "PDF"), "application/pdf"),
    HostileImage("HEIC", REFUSED, lambda: _HEIC, "image/heic"),
    HostileImage("AVIF", REFUSED, lambda: _AVIF, "image/avif"),
    HostileImage("ICO", REFUSED, lambda: encoded("ICO"), "image/x-icon"),
    HostileImage("PPM", READ, lambda: encoded("PPM")),
    HostileImage("PPM as text", REFUSED, lambda: b"P3 7000 7000 255 " + b"1 2 3 " * 1_000_000),
    HostileImage("PPM of odd depth", REFUSED, lambda: b"P6 7000 7000 99 " + bytes(1 << 20)),
    HostileImage("HTML", REFUSED, lambda: _SCRIPT, "text/html"),
    HostileImage("ZIP", REFUSED, _zip, "application/zip"),
    HostileImage("JPEG and HTML", READ, lambda: _polyglot(_SCRIPT)),
    HostileImage("JPEG and script", READ, lambda: _polyglot(b"*/=alert(1);/*")),
    HostileImage("JPEG and ZIP", READ, lambda: _polyglot(b"zip", _zip())),
    HostileImage("GIF and script", READ, lambda: gif((2, 2)) + b"=1;alert(1)//", "image/gif"),
    HostileImage("JPEG and PDF", READ, lambda: _polyglot(saved(noise((9, 9)), "PDF")[:4000])),
    HostileImage("PDF before a PNG", REFUSED, lambda: b"%PDF-1.7\n" + png(4, 4)),
)
_URLS = (
    HostileImage("base64 with line breaks", READ, lambda: data_url(_TINY)[:40] + "\r\n" + data_url(_TINY)[40:]),
    HostileImage("base64 with spaces", READ, lambda: f"data:image/png;base64, {_SMALL} "),
    HostileImage("base64 for URLs", READ, lambda: data_url(encoded("PNG")).replace("+", "-").replace("/", "_")),
    HostileImage("base64 without padding", READ, lambda: f"data:image/png;base64,{_SMALL.rstrip('=')}"),
    HostileImage("base64 with too much padding", REFUSED, lambda: f"data:image/png;base64,{_SMALL}===="),
    HostileImage("base64 with padding inside", REFUSED, lambda: f"data:image/png;base64,{_SMALL[:40]}={_SMALL[40:]}"),
    HostileImage("base64 of other letters", REFUSED, lambda: "data:image/png;base64,ÄÖÜ\U0001f600"),
    HostileImage("base64 with a NUL at its end", READ, lambda: f"data:image/png;base64,{_SMALL}\0"),
    HostileImage("base64 with half a character", REFUSED, lambda: f"data:image/png;base64,{_SMALL[:8]}\ud800"),
    HostileImage("percent-encoded with half a character", REFUSED, lambda: "data:image/png,\ud800"),
    HostileImage("no type", READ, _text("data:;base64,", _TINY)),
    HostileImage("a charset", READ, _text("data:image/png;charset=utf-8;base64,", _TINY)),
    HostileImage("upper case", READ, _text("DATA:IMAGE/PNG;BASE64,", _TINY)),
    HostileImage("percent-encoded", READ, lambda: "data:image/png," + "".join(f"%{byte:02x}" for byte in _TINY)),
    HostileImage("percent-encoded wrongly", REFUSED, lambda: "data:image/png,%zz%8%"),
    HostileImage("percent-encoded base64", READ, lambda: data_url(_TINY).replace("=", "%3D").replace("A", "%41")),
    HostileImage("data: twice", REFUSED, _text("data:data:image/png;base64,data:image/png;base64,", _TINY)),
    HostileImage("no comma", REFUSED, lambda: "data:image/png;base64"),
    HostileImage("only a scheme", REFUSED, lambda: "data:"),
    HostileImage("no image at all", REFUSED, lambda: ""),
    HostileImage("bare base64", REFUSED, lambda: _SMALL),
    HostileImage("a fragment behind it", REFUSED, lambda: data_url(_TINY) + "#x"),
    HostileImage("a type of 100 KB", READ, lambda: f"data:{'a' * 100_000};base64,{_SMALL}"),
    HostileImage("30 MB of noise", READ, lambda: encoded("PNG", (3_200, 3_200), compress_level=0)),
    HostileImage("more bytes than an image may have", REFUSED, lambda: data_url(_TINY + bytes(33 << 20))),
    HostileImage("just under the body's limit", REFUSED, lambda: "data:," + "A" * ((64 << 20) - 2000)),
    HostileImage("just over the body's limit", TOO_LARGE, lambda: "data:," + "A" * (64 << 20)),
)
HOSTILE_IMAGES = (*_SIZES, *_BOMBS, *_ANIMATIONS, *_DAMAGE, *_METADATA, *_KINDS, *_URLS)
