"""A PNG that has fewer rows than it claims is damaged, though Pillow reads it."""

import struct
import zlib

import numpy as np
import pytest
from dualfocus_engine.errors import BadPicture
from dualfocus_engine.pictures.pictures import open_picture
from PIL import Image, ImageFile

from ..builders import encoded


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(depth: int, colour: int, interlaced: bool, rows: int, piece: int = 1000) -> bytes:
    """An 8x8 PNG with so many bytes of rows, packed in chunks of `piece` bytes."""
    packed = zlib.compress(bytes(rows))
    palette = _chunk(b"PLTE", bytes(48)) if colour == 3 else b""
    data = b"".join(_chunk(b"IDAT", packed[at : at + piece]) for at in range(0, len(packed), piece))
    header = struct.pack(">IIBBBBB", 8, 8, depth, colour, 0, 0, interlaced)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + palette + data + _chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("depth", "colour", "interlaced", "rows"),
    [
        (8, 0, False, [9] * 8),
        (1, 0, False, [2] * 8),
        (4, 3, False, [5] * 8),
        (8, 2, False, [25] * 8),
        (16, 4, False, [33] * 8),
        (16, 6, False, [65] * 8),
        # Adam7's passes over 8x8: 1x1, 1x1, 2x1, 2x2, 4x2, 4x4, 8x4.
        (8, 0, True, [2, 2, 3, 3, 3, 5, 5, 5, 5, 5, 5, 9, 9, 9, 9]),
        (1, 0, True, [2] * 15),
    ],
)
def test_black_picture_with_all_its_rows_is_read_and_with_one_less_is_not(
    depth: int, colour: int, interlaced: bool, rows: list[int]
) -> None:
    for piece in (5, 1000):
        assert open_picture(_png(depth, colour, interlaced, sum(rows), piece)).size == (8, 8)
    with pytest.raises(BadPicture, match="fewer rows than it claims"):
        open_picture(_png(depth, colour, interlaced, sum(rows[:-1])))


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGB", "RGBA", "I;16"])
def test_files_of_every_mode_have_all_their_rows(mode: str) -> None:
    """Also where the last row is black, so that they are counted."""
    assert open_picture(encoded(Image.new(mode, (37, 23)))).size == (37, 23)


def test_rows_missing_under_a_photo_are_noticed(chelsea: Image.Image) -> None:
    whole = encoded(chelsea)
    header = whole[:33]
    rows = np.pad(np.asarray(chelsea).reshape(chelsea.height, -1), ((0, 0), (1, 0)))
    cut = header + _chunk(b"IDAT", zlib.compress(rows[:200].tobytes())) + _chunk(b"IEND", b"")
    with pytest.raises(BadPicture, match="fewer rows than it claims"):
        open_picture(cut)


def test_pillow_is_not_told_to_read_what_is_cut_short() -> None:
    assert not ImageFile.LOAD_TRUNCATED_IMAGES
