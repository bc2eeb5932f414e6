"""PNG files beyond what Pillow does: texts it fails over are dropped, rows that are missing are seen."""

import struct
import zlib
from collections.abc import Iterator

from PIL import Image

# Samples a pixel, by the header's colour type.
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
# Adam7's passes: first column and row, then the steps.
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_INFLATE_CHUNK_BYTES = 1 << 20
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Texts, plain, packed and in Unicode: Pillow fails over large ones, such as the workflow that drew a picture; small
# ones may say which way up it is.
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_LARGE_TEXT_BYTES = 16 << 10


def without_text(data: bytes) -> bytes:
    """Return a PNG file without its large texts, and any other file as it is."""
    if not data.startswith(_SIGNATURE):
        return data
    kept, begins = [], 0
    for start, kind, end in _chunk_spans(data):
        if kind in _TEXTS and end - start > _LARGE_TEXT_BYTES:
            kept.append(data[begins:start])
            begins = end
    return b"".join([*kept, data[begins:]]) if kept else data


def rows_are_missing(data: bytes, image: Image.Image) -> bool:
    """Whether the PNG that `image` was loaded from holds fewer rows than it claims."""
    last = image.crop((0, image.height - 1, *image.size))
    if not image.info.get("interlace") and last.getbbox() is not None:
        return False  # rows that are missing are black: nothing needs to be counted
    missing, inflater = _expected_bytes(data), zlib.decompressobj()
    for packed in _chunks(data, b"IDAT"):
        while packed and missing > 0 and not inflater.eof:
            missing -= len(inflater.decompress(packed, _INFLATE_CHUNK_BYTES))
            packed = inflater.unconsumed_tail
    return missing > 0


def _expected_bytes(data: bytes) -> int:
    """Return how many bytes the rows have once inflated, each with the byte that names its filter."""
    header = next(_chunks(data, b"IHDR"))
    width, height, depth, colour, interlaced = struct.unpack(">IIBBxxB", header)
    bits = depth * _CHANNELS[colour]
    passes = _PASSES if interlaced else ((0, 0, 1, 1),)
    return sum(
        (1 + (columns * bits + 7) // 8) * rows
        for x, y, right, down in passes
        if (columns := -(-(width - x) // right)) > 0 and (rows := -(-(height - y) // down)) > 0
    )


def _chunks(data: bytes, kind: bytes) -> Iterator[bytes]:
    return (data[start + 8 : end - 4] for start, named, end in _chunk_spans(data) if named == kind)


def _chunk_spans(data: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Yield where each chunk begins, its name, and where it ends with its checksum."""
    start = len(_SIGNATURE)
    while start + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, start)
        end = start + 12 + length
        yield start, data[start + 4 : start + 8], end
        start = end
