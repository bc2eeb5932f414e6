"""What AVIF files are held to beyond the size that they claim."""

import struct
import time

import pytest
from dualfocus_engine import BadPicture
from dualfocus_engine.pictures.avif import check_lists, coded_pixels
from dualfocus_engine.pictures.pictures import ImageLimits, open_picture, read_source_image
from hostile_memory import avif_claiming, avif_of_parts
from PIL import Image

from ..builders import encoded

MIB = 1 << 20


def box(name: bytes, content: bytes) -> bytes:
    """A box of an AVIF file."""
    return struct.pack(">I4s", 8 + len(content), name) + content


def item_of(data: bytes) -> bytes:
    """The AV1 data of an AVIF that has one item."""
    return data[data.index(b"mdat") + 4 :]


def with_item(item: bytes) -> bytes:
    """An AVIF of 64x64 pixels with other AV1 data in it."""
    whole = encoded(Image.new("RGB", (64, 64)), "AVIF")
    length_at = whole.index(b"iloc") + 22
    head = whole[:length_at] + struct.pack(">I", len(item)) + whole[length_at + 4 :]
    return head[: whole.index(b"mdat") - 4] + box(b"mdat", item)


def of_frames(frames: int) -> bytes:
    """An AVIF whose frame is there several times, as hidden ones might be."""
    item = item_of(encoded(Image.new("RGB", (64, 64)), "AVIF"))
    frame = item[2 + 2 + item[3] :]  # behind a delimiter of two bytes and the sequence's header
    return with_item(item + frame * (frames - 1))


def of_header(*fields: tuple[int, int]) -> bytes:
    """An AVIF whose sequence header begins with numbers, each of so many bits, and one frame behind it."""
    bits = "".join(f"{number:0{size}b}" for number, size in fields)
    header = int(bits.ljust(400, "0"), 2).to_bytes(50)
    return with_item(b"\x0a\x32" + header + b"\x32\0")


@pytest.mark.parametrize("size", [(1, 1), (64, 48), (300, 201), (2049, 17)])
def test_frame_has_the_pixels_that_the_file_claims(size: tuple[int, int]) -> None:
    data = encoded(Image.new("RGB", size), "AVIF")
    assert coded_pixels(data) == size[0] * size[1]
    assert read_source_image(data).decoding_bytes == 18 * size[0] * size[1]


def test_transparency_is_another_frame() -> None:
    data = encoded(Image.new("RGBA", (64, 48), (1, 2, 3, 100)), "AVIF")
    assert coded_pixels(data) == 2 * 64 * 48
    assert read_source_image(data).decoding_bytes == 25 * 64 * 48


def test_frames_of_a_sequence_may_be_of_any_size_that_its_header_has_bits_for() -> None:
    frames = [Image.new("RGB", (300, 200), colour) for colour in ((255, 0, 0), (0, 0, 255), (0, 255, 0))]
    data = encoded(frames[0], "AVIF", save_all=True, append_images=frames[1:])
    assert coded_pixels(data) == 512 * 256, "the first frame alone, once"
    assert open_picture(data).size == (300, 200)


SIDES = ((9, 4), (7, 4), (1000, 10), (199, 8))  # bits of the sides, then the sides less one
TIMES = ((1, 1), (0, 64), (1, 1), (0b00101, 5), (1, 1), (9, 5), (0, 42))  # an interval of 4 ticks, delays of 10 bits
POINTS = ((1, 1), (1, 5), (0, 12), (8, 5), (1, 1), (1, 1), (0, 21), (1, 1), (0, 4), (0, 12), (7, 5), (0, 1), (0, 1))


@pytest.mark.parametrize(
    ("fields", "pixels"),
    [
        (((0, 3), (3, 2), (0, 5)), 1001 * 200),
        (((0, 3), (0, 2), (0, 1), (0, 1), (0, 5), (0, 12), (0, 5)), 1024 * 256),
        (((0, 3), (0, 2), *TIMES, *POINTS), 1024 * 256),
    ],
)
def test_long_and_short_headers_are_read(fields: tuple[tuple[int, int], ...], pixels: int) -> None:
    assert coded_pixels(of_header(*fields, *SIDES)) == pixels


def test_frame_has_no_more_pixels_than_libavif_would_decode() -> None:
    fields = ((0, 3), (0, 2), (0, 1), (0, 1), (0, 5), (0, 12), (0, 5), (15, 4), (15, 4))
    assert coded_pixels(of_header(*fields)) == 16_384 * 16_384


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_frame_larger_than_the_picture_counts_as_memory(mode: str) -> None:
    data = avif_claiming(1024, 16, mode)
    assert read_source_image(data).decoding_bytes >= 7 * MIB
    assert open_picture(data).size == (16, 16)
    with pytest.raises(BadPicture, match=r"16x16: as AVIF it takes .*--max-decoding-bytes"):
        read_source_image(data, ImageLimits(decoding_bytes=7 * MIB))


def test_frame_smaller_than_the_picture_counts_as_if_it_were_as_large() -> None:
    assert read_source_image(avif_claiming(16, 1024)).decoding_bytes == 18 * MIB


@pytest.mark.parametrize("frames", [1, 2, 40])
def test_every_frame_before_the_one_that_is_shown_counts(frames: int) -> None:
    assert coded_pixels(of_frames(frames)) == frames * 64 * 64


def test_item_in_several_parts_is_put_together() -> None:
    """A header cut in two by the list of places is no way around."""
    whole = encoded(Image.new("RGB", (64, 64)), "AVIF")
    number_at = whole.index(b"iloc") + 16
    place, length = struct.unpack_from(">II", whole, number_at + 2)
    parts = struct.pack(">HIIII", 2, place + 8, 5, place + 13, length - 5)
    longer = whole[:number_at] + parts + whole[number_at + 10 :]
    for name in (b"iloc", b"meta"):
        size_at = longer.index(name) - 4
        size = struct.unpack_from(">I", longer, size_at)[0] + 8
        longer = longer[:size_at] + struct.pack(">I", size) + longer[size_at + 4 :]
    assert coded_pixels(longer) == 64 * 64
    assert open_picture(longer).size == (64, 64)


def test_item_that_is_stored_in_the_list_of_items_is_found() -> None:
    whole = encoded(Image.new("RGB", (64, 64)), "AVIF")
    at, end, data_at = whole.index(b"iloc") - 4, whole.index(b"iinf") - 4, whole.index(b"mdat") - 4
    meta, item = whole.index(b"meta") - 4, whole[data_at + 8 :]
    # Version 1, with the way it is stored: 1 is idat.
    places = box(b"iloc", b"\1\0\0\0\x44\0" + struct.pack(">HHHHHII", 1, 1, 1, 0, 1, 0, len(item)))
    content = whole[meta + 8 : at] + places + whole[end:data_at] + box(b"idat", item)
    stored = whole[:meta] + box(b"meta", content)
    assert coded_pixels(stored) == 64 * 64
    assert open_picture(stored).size == (64, 64)


@pytest.mark.parametrize("items", [100, 0xFFFF])
def test_items_of_parts_without_an_end_are_refused_before_libavif_reads_them(items: int) -> None:
    """Half a megabyte would take 64 GB."""
    with pytest.raises(BadPicture, match=r"in more than 4,096 parts|a list \(iloc\) of 524,288 bytes"):
        open_picture(avif_of_parts(items))


@pytest.mark.parametrize("name", [b"iloc", b"ipma", b"iinf", b"stsz"])
def test_long_list_is_refused(name: bytes) -> None:
    whole = encoded(Image.new("RGB", (64, 64)), "AVIF")
    at = whole.index(b"meta") - 4
    holding = box(b"meta", bytes(4) + box(name, bytes(300_000)))
    with pytest.raises(BadPicture, match=rf"a list \({name.decode()}\) of 300,000 bytes"):
        open_picture(whole[:at] + holding + whole[at:])


@pytest.mark.parametrize("name", [b"free", b"trak"])
def test_boxes_without_an_end_are_refused(name: bytes) -> None:
    many = box(name, b"") * 100_000 if name == b"free" else struct.pack(">I4s", 0, name) * 100_000
    began = time.process_time()
    with pytest.raises(BadPicture, match="in more than 1,000 boxes"):
        check_lists(encoded(Image.new("RGB", (64, 64)), "AVIF") + many)
    assert time.process_time() - began < 1


def test_units_without_an_end_are_refused() -> None:
    with pytest.raises(BadPicture, match="a frame in it is in more than 100,000 parts"):
        coded_pixels(with_item(b"\x12\0" * 200_000))


@pytest.mark.parametrize("item", [b"", b"\x12\0", b"\x0a\x02\0\0", b"\x0a\xff\xff", b"\x0a" + b"\xff" * 40])
def test_data_in_which_no_frame_is_found_is_a_bad_picture(item: bytes) -> None:
    with pytest.raises(BadPicture, match="damaged or cut short"):
        coded_pixels(with_item(item))


@pytest.mark.parametrize("step", [1, 7])
def test_file_cut_short_is_a_bad_picture(step: int) -> None:
    whole = encoded(Image.new("RGB", (64, 64), (200, 30, 30)), "AVIF")
    for size in range(step, len(whole) - 1, step):
        with pytest.raises(BadPicture):
            open_picture(whole[:size])
