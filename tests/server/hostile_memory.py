"""Small image files that take more time or memory than their size in pixels says."""

import io
import struct
import zlib
from typing import Any

from PIL import Image

_GREY = {256: 16, 257: 16, 258: 8, 259: 1, 262: 1, 277: 1}
_COMPRESSION, _DEFLATE = 259, 8
_ROWS_PER_STRIP, _STRIP_OFFSETS, _STRIP_SIZES = 278, 273, 279
_TILE_WIDTH, _TILE_LENGTH, _TILE_OFFSETS, _TILE_SIZES = 322, 323, 324, 325


def jpeg_of_scans(scans: int, side: int = 64) -> bytes:
    """A progressive JPEG whose last scan is there again and again."""
    whole = _saved(side, "JPEG", progressive=True)
    last = whole[whole.rindex(b"\xff\xda") : -2]
    return whole[:-2] + last * (scans - whole.count(b"\xff\xda")) + whole[-2:]


def tiff_of_a_tile(across: int, down: int, **others: int) -> bytes:
    """A TIFF of 16x16 pixels, or another `width` and `height`, with one deflated tile of zeros."""
    tags = _GREY | {256: others.get("width", 16), 257: others.get("height", 16), _COMPRESSION: _DEFLATE}
    return _tiff(tags | {_TILE_WIDTH: across, _TILE_LENGTH: down}, (_TILE_OFFSETS, _TILE_SIZES), _zeros(across * down))


def tiff_of_strips(number: int) -> bytes:
    """A TIFF of 16x16 pixels that lists as many strips as are given, of a row each."""
    whole = _tiff(_GREY | {_ROWS_PER_STRIP: 1}, (_STRIP_OFFSETS, _STRIP_SIZES), bytes(4 * number))
    at = whole.index(struct.pack("<HHI", _STRIP_OFFSETS, 4, 1))
    return whole[: at + 4] + struct.pack("<I", number) + whole[at + 8 :]


def avif_claiming(coded: int, claimed: int, mode: str = "RGB") -> bytes:
    """An AVIF that claims to have another side than its frame has."""
    whole = _saved(coded, "AVIF", mode, subsampling="4:4:4", speed=10)
    return whole.replace(struct.pack(">II", coded, coded), struct.pack(">II", claimed, claimed))


def avif_of_parts(items: int, parts: int = 0xFFFF) -> bytes:
    """An AVIF of many items, each in as many parts, which have neither place nor length: eight bytes an item."""
    whole = _saved(16, "AVIF")
    listed = b"".join(struct.pack(">HHHH", item, 0, 0, parts) for item in range(1, items + 1))
    places = bytes([1, 0, 0, 0, 0, 0]) + struct.pack(">H", items) + listed
    meta, list_at = whole.index(b"meta") - 4, whole.index(b"iloc") - 4
    meta_size, list_size = (struct.unpack_from(">I", whole, at)[0] for at in (meta, list_at))
    head = struct.pack(">I", meta_size - list_size + len(places) + 8) + whole[meta + 4 : list_at]
    return whole[:meta] + head + struct.pack(">I4s", len(places) + 8, b"iloc") + places + whole[list_at + list_size :]


def _saved(side: int, kind: str, mode: str = "RGB", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.new(mode, (side, side)).save(file, kind, **options)
    return file.getvalue()


def _tiff(tags: dict[int, int], places: tuple[int, int], data: bytes) -> bytes:
    """A little-endian TIFF: tags of one number each, and two that say where the data lies and how long it is."""
    start = 8 + 2 + 12 * (len(tags) + 2) + 4
    tags = tags | {places[0]: start, places[1]: len(data)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, number) for tag, number in sorted(tags.items()))
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + data


def _zeros(size: int) -> bytes:
    packer, piece = zlib.compressobj(9), bytes(1 << 16)
    return b"".join(packer.compress(piece[: size - at]) for at in range(0, size, len(piece))) + packer.flush()
