"""How many scans a JPEG may have."""

import contextlib
import io
import struct
import time

import pytest
from dualfocus_engine import BadPicture
from dualfocus_engine.pictures.jpeg import MAX_SCANS, check_scans
from dualfocus_engine.pictures.pictures import open_picture, read_source_image
from hostile_memory import jpeg_of_scans
from PIL import Image

from ..builders import encoded

SCAN = b"\xff\xda"


def with_segment(content: bytes, data: bytes, marker: int = 0xE1) -> bytes:
    """A JPEG with one more segment behind its start."""
    return data[:2] + struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content + data[2:]


@pytest.mark.parametrize("scans", [MAX_SCANS + 1, 300])
def test_jpeg_of_too_many_scans_is_refused_by_its_markers_alone(scans: int) -> None:
    with pytest.raises(BadPicture, match=f"^The image is a JPEG of {scans} scans: at most 100 are accepted.$"):
        read_source_image(jpeg_of_scans(scans))


def test_jpeg_of_as_many_scans_as_may_be_is_read() -> None:
    assert open_picture(jpeg_of_scans(MAX_SCANS)).size == (64, 64)


@pytest.mark.parametrize("progressive", [False, True])
def test_usual_jpegs_are_read(coffee: Image.Image, progressive: bool) -> None:
    check_scans(encoded(coffee, "JPEG", quality=95, progressive=progressive))


def test_what_a_segment_holds_is_no_scan(coffee: Image.Image) -> None:
    """A thumbnail in EXIF is a JPEG itself, with an end of its own."""
    thumbnail = jpeg_of_scans(300) + SCAN * MAX_SCANS
    assert open_picture(with_segment(thumbnail, encoded(coffee, "JPEG"))).size == coffee.size
    with pytest.raises(BadPicture, match="of 300 scans"):
        read_source_image(with_segment(thumbnail, jpeg_of_scans(300)))


@pytest.mark.parametrize("padding", [b"\xff", b"\xff\xff\xff", b"\xff\x00\xff", b"\xff\xd3\xff", b"\x12\xff\x07\xff"])
def test_scans_are_found_behind_padding_escapes_and_restarts(padding: bytes) -> None:
    padded = jpeg_of_scans(300).replace(SCAN, padding + SCAN[1:])
    with pytest.raises(BadPicture, match="of 300 scans"):
        check_scans(padded)


@pytest.mark.parametrize("length", [b"\0\0", b"\0\1"])
def test_segment_that_is_shorter_than_its_own_length_hides_no_scan(length: bytes) -> None:
    whole = jpeg_of_scans(300)
    with pytest.raises(BadPicture, match="of 300 scans"):
        check_scans(whole[:2] + b"\xff\xfe" + length + whole[2:])


def test_only_the_first_picture_of_a_file_counts() -> None:
    """A camera puts further pictures behind the first, a telephone a film."""
    images = [Image.new("RGB", (40, 30), colour) for colour in ((255, 0, 0), (0, 0, 255))]
    file = io.BytesIO()
    images[0].save(file, "MPO", save_all=True, append_images=images[1:])
    assert open_picture(file.getvalue() + jpeg_of_scans(300)).size == (40, 30)
    assert open_picture(encoded(images[0], "JPEG") + SCAN * 1000).size == (40, 30)


@pytest.mark.parametrize("share", [0.2, 0.9])
def test_scans_of_a_jpeg_that_is_cut_short_are_counted(share: float) -> None:
    whole = jpeg_of_scans(2000)
    with pytest.raises(BadPicture, match=r"of [\d,]+ scans"):
        check_scans(whole[: int(len(whole) * share)])


@pytest.mark.parametrize("piece", [b"\xff\x00", b"\xff", SCAN, b"\xff\xfe\0\2", b"\xff\xda\0\2"])
def test_counting_is_quick_whatever_a_file_holds(piece: bytes) -> None:
    data = b"\xff\xd8" + SCAN * (MAX_SCANS + 1) + piece * ((1 << 20) // len(piece))
    began = time.process_time()
    with contextlib.suppress(BadPicture):
        check_scans(data)
    assert time.process_time() - began < 5
