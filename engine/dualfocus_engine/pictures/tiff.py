"""TIFF files beyond what Pillow judges: how large their tiles and strips are, and how many there are."""

import struct
from collections.abc import Iterator

from PIL import Image, TiffImagePlugin

from dualfocus_engine.errors import BadPicture

_WIDTH, _LENGTH, _BITS, _SAMPLES = 256, 257, 258, 277
_STRIP_ROWS, _TILE_WIDTH, _TILE_LENGTH = 278, 322, 323
_STRIP_OFFSETS, _TILE_OFFSETS = 273, 324
_SHORT, _LONG = 3, 4
# Pillow makes a list of them as it opens a file: so many take 60 MB. 4096 x 4096 pixels have as many tiles of 8 x 8.
MAX_BLOCKS = 1 << 18
# Two pictures of as many pixels as there may be: what whole tiles reach over the edges takes time too.
MAX_TILED_PIXELS = 2 * 178_956_970
# These hold a tile in another way too (coefficients of a JPEG, a dictionary): measured at three times its pixels.
_DEEP_COMPRESSIONS = {"jpeg", "tiff_jpeg", "webp", "zstd", "lzma"}
_DEEP_TIMES = 4


def check_directory(data: bytes) -> None:
    """Raise BadPicture where a file is a TIFF whose first directory takes long to open, or can be read in two ways.

    Pillow passes over a tag that it doesn't know the type of, libtiff doesn't.
    """
    seen: set[int] = set()
    for tag, kind, count in _entries(data):
        if tag in (_STRIP_OFFSETS, _TILE_OFFSETS) and count > MAX_BLOCKS:
            raise BadPicture(f"The image is a TIFF of {count:,} strips or tiles: at most {MAX_BLOCKS:,} are accepted.")
        if tag in (_STRIP_ROWS, _TILE_WIDTH, _TILE_LENGTH):
            if tag in seen or kind not in (_SHORT, _LONG) or count != 1:
                raise BadPicture(f"The image is damaged: its TIFF tag {tag} is there twice, or is no whole number.")
            seen.add(tag)


def block_bytes(image: Image.Image) -> int:
    """Return what a tile or strip of a TIFF takes while it is decoded: libtiff holds a whole one.

    Raises BadPicture where its tiles hold many more pixels than the picture has.
    """
    if not isinstance(image, TiffImagePlugin.TiffImageFile) or not image.use_load_libtiff:
        return 0
    tags = image.tag_v2
    width, height = tags[_WIDTH], tags[_LENGTH]
    if _TILE_WIDTH in tags or _TILE_LENGTH in tags:
        across, down = max(tags.get(_TILE_WIDTH, 1), 1), max(tags.get(_TILE_LENGTH, 1), 1)
        _check_tiles(-(-width // across) * across, -(-height // down) * down)
    else:
        across, down = width, min(tags.get(_STRIP_ROWS, height), height)
    times = _DEEP_TIMES if image.info.get("compression") in _DEEP_COMPRESSIONS else 1
    return int(across * down * _bits(tags) * times // 8)


def _check_tiles(width: int, height: int) -> None:
    if width * height > MAX_TILED_PIXELS:
        raise BadPicture(
            f"The image is a TIFF whose tiles are {width}x{height} together: more than {MAX_TILED_PIXELS:,} pixels."
        )


def _bits(tags: TiffImagePlugin.ImageFileDirectory_v2) -> int:
    """Return the bits of a pixel; where there is one number for all samples it stands for each."""
    bits = tags.get(_BITS, (1,))
    return int(max(sum(bits), bits[0] * tags.get(_SAMPLES, 1)))


def _entries(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield tag, type and number of values from a TIFF's first directory, where Pillow finds it; of others nothing."""
    if not data.startswith(tuple(TiffImagePlugin.PREFIXES)) or len(data) < 16:
        return
    order = "<" if data.startswith(b"II") else ">"
    is_big = data[2] == 43
    (start,) = struct.unpack_from(order + ("Q" if is_big else "L"), data, 8 if is_big else 4)
    if start + 8 > len(data):
        return
    (number,) = struct.unpack_from(order + ("Q" if is_big else "H"), data, start)
    entry = struct.Struct(order + ("HHQ8x" if is_big else "HHL4x"))
    start += 8 if is_big else 2
    for at in range(start, min(start + number * entry.size, len(data) - entry.size + 1), entry.size):
        yield entry.unpack_from(data, at)
