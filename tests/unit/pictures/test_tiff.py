"""What TIFF files are held to beyond their size in pixels."""

import io
import struct

import numpy as np
import pytest
from dualfocus_engine import BadPicture
from dualfocus_engine.pictures.pictures import ImageLimits, open_picture, read_source_image
from dualfocus_engine.pictures.tiff import MAX_BLOCKS, check_directory
from hostile_memory import tiff_of_a_tile, tiff_of_strips
from PIL import Image

from ..builders import encoded

MIB = 1 << 20


def test_large_tile_counts_as_memory() -> None:
    data = tiff_of_a_tile(4096, 4096)
    assert read_source_image(data).decoding_bytes >= 16 * MIB
    assert open_picture(data).size == (16, 16)
    with pytest.raises(BadPicture, match="--max-decoding-bytes"):
        read_source_image(data, ImageLimits(decoding_bytes=16 * MIB))


@pytest.mark.parametrize("compression", ["raw", "tiff_deflate", "tiff_lzw", "jpeg"])
def test_usual_tiff_takes_what_it_took(compression: str) -> None:
    data = encoded(Image.new("RGB", (300, 200)), "TIFF", compression=compression)
    assert read_source_image(data).decoding_bytes == 11 * 300 * 200


@pytest.mark.parametrize(("compression", "times"), [("tiff_deflate", 1), ("jpeg", 4), ("lzma", 4)])
def test_picture_in_one_strip_takes_that_strip_too(compression: str, times: int) -> None:
    image = Image.new("CMYK", (300, 200))
    data = encoded(image, "TIFF", compression=compression, tiffinfo={278: 200})
    with Image.open(io.BytesIO(data)) as opened:
        strips = len(opened.tag_v2[273])
    assert strips == 1
    assert read_source_image(data).decoding_bytes == max(11, 5 + 4 * times) * 300 * 200


def test_strip_of_a_turned_picture_is_reckoned_as_it_is_stored() -> None:
    stored = Image.new("RGBA", (3000, 8))
    data = encoded(stored, "TIFF", compression="lzma", tiffinfo={278: 8, 274: 6})
    assert open_picture(data).size == (8, 3000)
    assert read_source_image(data).decoding_bytes == (5 + 16) * 3000 * 8


def test_tiles_far_larger_than_the_picture_are_refused() -> None:
    """Each would be inflated for the few pixels of it that are shown, for hours."""
    with pytest.raises(BadPicture, match=r"tiles are 8192x1000000 together: more than 357,913,940 pixels"):
        read_source_image(tiff_of_a_tile(8192, 16, height=1_000_000))


@pytest.mark.parametrize("kind", [1, 9, 11, 16])
@pytest.mark.parametrize("tag", [322, 323])
def test_size_of_tiles_that_pillow_and_libtiff_may_read_differently_is_refused(tag: int, kind: int) -> None:
    data = tiff_of_a_tile(64, 64)
    at = data.index(struct.pack("<HH", tag, 4))
    with pytest.raises(BadPicture, match=f"tag {tag} is there twice, or is no whole number"):
        read_source_image(data[: at + 2] + struct.pack("<H", kind) + data[at + 4 :])


def test_size_of_tiles_that_is_there_twice_is_refused() -> None:
    data = tiff_of_a_tile(4096, 16)
    with pytest.raises(BadPicture, match="tag 322 is there twice"):
        read_source_image(data.replace(struct.pack("<HHI", 323, 4, 1), struct.pack("<HHI", 322, 4, 1)))


def test_list_of_very_many_strips_is_refused_before_pillow_reads_it() -> None:
    check_directory(tiff_of_strips(MAX_BLOCKS))
    with pytest.raises(BadPicture, match="a TIFF of 262,145 strips or tiles: at most 262,144 are accepted"):
        read_source_image(tiff_of_strips(MAX_BLOCKS + 1))


@pytest.mark.parametrize(("order", "big"), [("<", False), (">", False), ("<", True)])
def test_both_orders_of_bytes_and_both_lengths_are_judged(order: str, big: bool) -> None:
    tags = struct.pack(order + ("HHQQ" if big else "HHLL"), 273, 4, MAX_BLOCKS + 1, 8)
    magic = b"II" if order == "<" else b"MM"
    head = struct.pack(order + ("HHHQQ" if big else "HLH"), *((43, 8, 0, 16, 1) if big else (42, 8, 1)))
    with pytest.raises(BadPicture, match="262,145 strips"):
        check_directory(magic + head + tags)


@pytest.mark.parametrize("size", [(1, 1), (16, 16), (100, 70), (513, 257)])
@pytest.mark.parametrize("tile", [16, 64, 256])
def test_usual_tiles_are_read(size: tuple[int, int], tile: int) -> None:
    tifffile = pytest.importorskip("tifffile")
    pixels = np.random.default_rng(3).integers(0, 256, (size[1], size[0], 3), np.uint8)
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, photometric="rgb", tile=(tile, tile), compression="deflate")
    assert np.array_equal(np.asarray(open_picture(file.getvalue()).decode()), pixels)


@pytest.mark.parametrize("share", [0.001, 0.05, 0.5])
def test_directory_that_is_cut_short_is_a_bad_picture(share: float) -> None:
    data = tiff_of_strips(1000)
    with pytest.raises(BadPicture):
        open_picture(data[: int(len(data) * share)])
