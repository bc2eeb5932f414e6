"""Which image files are read, what is said of those that are not, and what of a file is left out."""

import base64
import io
import zlib
from typing import Any

import numpy as np
import pytest
from dualfocus_engine import BadPicture, open_picture
from dualfocus_engine.pictures.formats import FORMATS
from dualfocus_engine.pictures.pictures import ImageLimits, read_source_image
from PIL import Image, PngImagePlugin

from ..builders import encoded

# Red on the left, blue on the right, 64 x 48: made for this test with libheif's encoder, which is not installed here.
HEIC = base64.b64decode(
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAX1tZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAAACJpbG9jAA"
    "AAAERAAAEAAQAAAAABoQABAAAAAAAAAGQAAAAjaWluZgAAAAAAAQAAABVpbmZlAgAAAAABAABodmMxAAAAAA5waXRtAAAAAAABAAAA/WlwcnAA"
    "AADdaXBjbwAAAHZodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEAGEABDAH//wNwAAADAJAAAAMAAAMAHroCQGEAAQAqQgEBA3AAAAMAkA"
    "AAAwAAAwAeoCCBBZbq5Ka5uAhoMCAAAAMDIAAAAwAhYgABAAZEAcFzwIkAAAATY29scm5jbHgAAQANAAaAAAAAFGlzcGUAAAAAAAAAQAAAAEAA"
    "AAAoY2xhcAAAAEAAAAABAAAAMAAAAAEAAAAAAAAAAv////AAAAACAAAAEHBpeGkAAAAAAwgICAAAABhpcG1hAAAAAAAAAAEAAQWBAgMFhAAAAG"
    "xtZGF0AAAAYCgBrwngOSMkv//6Mb//+EaeQ/a5hcF//EiB9/gGN//7zddRGNYssbEjrcXUtoKsRjmOTHKRpmMRnC/o/J/HYppcLvbubtTUHSCy"
    "IZ2geiRQxAAdzOOU0/mqZnmuHecfjg=="
)
LEVELS = {"JPEG", "WEBP", "AVIF"}  # that change them a little, at the quality they are written with here


@pytest.mark.parametrize("kind", sorted(set(FORMATS) - {"HEIF"}))
def test_each_format_is_read(coffee: Image.Image, kind: str) -> None:
    small = coffee.resize((96, 64)).quantize().convert("RGB")
    options: dict[str, Any] = {"quality": 90} if kind in LEVELS else {}
    shown = np.asarray(open_picture(encoded(small, kind, **options)).decode(), int)
    assert np.abs(shown - np.asarray(small, int)).mean() < 8


def test_a_phones_heic_is_read() -> None:
    shown = open_picture(HEIC).decode()
    assert shown.size == (64, 48)
    assert np.asarray(shown, int)[24, 10] == pytest.approx((200, 30, 30), abs=12)
    assert np.asarray(shown, int)[24, 54] == pytest.approx((20, 60, 200), abs=12)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_heic_cut_short_is_a_bad_picture(share: float) -> None:
    with pytest.raises(BadPicture):
        open_picture(HEIC[: int(len(HEIC) * share)])


@pytest.mark.parametrize("kind", ["DDS", "PCX", "TGA", "IM", "ICO", "PDF", "EPS"])
def test_file_of_another_format_is_refused_naming_those_that_are_read(chelsea: Image.Image, kind: str) -> None:
    with pytest.raises(BadPicture, match="JPEG, PNG, GIF, BMP, TIFF, PPM, WEBP, AVIF, HEIF, JPEG2000"):
        open_picture(encoded(chelsea.resize((40, 28)), kind))


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"%PDF-1.7\n", "is a PDF: send a page of it as PNG"),
        (b"\0\0\1\0\1\0", r"is an icon \(ICO\)"),
        (b"8BPS\0\1", "is a Photoshop file"),
        (b"\xff\x0a\x00", "is JPEG XL"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "is JPEG XL"),
        (b"PK\3\4....", "is a ZIP archive"),
        (b"\x1f\x8b\x08", "is packed by gzip"),
        (b"\0\0\0\x18ftypmp42....", "is a video"),
        (b"\x1aE\xdf\xa3....", "is a video"),
        (b"RIFF....AVI LIST", "is a video"),
        (b"<?xml version='1.0'?>\n<svg xmlns='...'/>", "is an SVG drawing"),
        (b"<!DOCTYPE html>\n<HTML><body>Not found", "is a web page"),
        (b"", "is no bytes at all"),
        (b"P3 1 1 255 1 2 3 ", "is a PPM written as text"),
        (b"P6 1 1 100 \1\2\3", "is a PPM written as text, or of odd depth"),
        (b"anything else", "is in no format that can be read"),
    ],
)
def test_refusal_names_what_was_sent(data: bytes, named: str) -> None:
    with pytest.raises(BadPicture, match=f"^The image {named}.*[.]$"):
        open_picture(data)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "AVIF", "PPM"])
def test_format_can_be_shut_off_and_is_named_then(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    data = encoded(Image.new("RGB", (40, 30)), kind)

    def never(*given: Any) -> Any:
        raise AssertionError("a format that is shut off was opened")

    monkeypatch.setitem(Image.OPEN, kind, (never, Image.OPEN[kind][1]))
    limits = ImageLimits(formats=("JPEG", "GIF"))
    with pytest.raises(BadPicture, match=rf"is {kind}, which .*--image-formats.*; accepted: JPEG, GIF\."):
        open_picture(data, limits)
    assert open_picture(encoded(Image.new("RGB", (40, 30)), "JPEG"), limits).size == (40, 30)


def test_what_takes_more_memory_than_there_is_for_it_is_refused_by_its_header() -> None:
    data = encoded(Image.new("RGB", (100, 100)), "WEBP")
    assert open_picture(data, ImageLimits(decoding_bytes=180_000)).size == (100, 100)
    with pytest.raises(BadPicture, match=r"100x100: as WEBP it takes 180,000 bytes.*179,999.*--max-decoding-bytes"):
        read_source_image(data, ImageLimits(decoding_bytes=179_999))
    assert open_picture(encoded(Image.new("RGB", (100, 100))), ImageLimits(decoding_bytes=110_000)).size == (100, 100)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("size", [2 << 20, 70 << 20])
def test_megabytes_of_text_in_a_png_are_dropped(packed: bool, size: int) -> None:
    texts = PngImagePlugin.PngInfo()
    for number in range(4):
        texts.add_text(f"workflow {number}", "x" * (size // 4), zip=packed)
        texts.add_itxt(f"other {number}", "y" * (size // 4), zip=packed)
    opened = open_picture(encoded(Image.new("RGB", (20, 10), (1, 2, 3)), pnginfo=texts))
    assert opened.decode().getpixel((5, 5)) == (1, 2, 3)


def test_small_text_that_says_which_way_up_is_kept() -> None:
    texts = PngImagePlugin.PngInfo()
    texts.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="6"/>')
    assert open_picture(encoded(Image.new("RGB", (20, 10)), pnginfo=texts)).size == (10, 20)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("missing", [1, 2, 3, 30])
def test_jpeg_that_lacks_its_last_bytes_is_read_as_browsers_show_it(
    coffee: Image.Image, missing: int, progressive: bool
) -> None:
    data = encoded(coffee, "JPEG", quality=90, progressive=progressive)
    whole, shown = (np.asarray(open_picture(some).decode(), int) for some in (data, data[:-missing]))
    assert whole.shape == shown.shape
    assert np.array_equal(whole[:-32], shown[:-32]) or progressive
    assert np.abs(whole - shown).mean() < 3


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8, 0.9])
def test_jpeg_that_lacks_rows_is_a_bad_picture(coffee: Image.Image, share: float) -> None:
    data = encoded(coffee, "JPEG", quality=90)
    with pytest.raises(BadPicture, match="cut short"):
        open_picture(data[: int(len(data) * share)])


@pytest.mark.parametrize(
    ("kind", "part"), [("GIF", "frame"), ("WEBP", "frame"), ("PNG", "frame"), ("TIFF", "page"), ("AVIF", "frame")]
)
def test_what_follows_the_first_picture_is_told(kind: str, part: str) -> None:
    first, second = Image.new("RGB", (40, 30), (255, 0, 0)), Image.new("RGB", (40, 30), (0, 0, 255))
    data = encoded(first, kind, save_all=True, append_images=[second])
    assert read_source_image(data).left_out == f"Of the {kind} file the first {part} alone is looked at."
    assert read_source_image(encoded(first, kind)).left_out is None


def test_what_follows_in_a_cameras_jpeg_is_the_same_picture() -> None:
    images = [Image.new("RGB", (40, 30), colour) for colour in ((255, 0, 0), (0, 0, 255))]
    file = io.BytesIO()
    images[0].save(file, "MPO", save_all=True, append_images=images[1:])
    source = read_source_image(file.getvalue())
    assert (source.format, source.left_out) == ("JPEG", None)
    assert open_picture(file.getvalue()).size == (40, 30)


def test_picture_inside_a_zip_of_a_text_is_no_bomb() -> None:
    """16 KiB of packed text hold 16 MiB: Pillow's own bound on a PNG's texts stays."""
    bomb = zlib.compress(b"x" * (15 << 20), 9)
    assert len(bomb) < 16 << 10
    text = b"zTXt" + b"a\0\0" + bomb
    chunk = len(text[4:]).to_bytes(4, "big") + text + zlib.crc32(text).to_bytes(4, "big")
    plain = encoded(Image.new("RGB", (20, 10)))
    with pytest.raises(BadPicture):
        open_picture(plain[:33] + chunk + plain[33:])
