"""Formats of image files: those that are read, what each takes to decode, and what a file is that is none of them."""

import contextlib
import io
from collections.abc import Iterator

import pi_heif
from PIL import Image, ImageFile, UnidentifiedImageError

from dualfocus_engine.errors import BadPicture
from dualfocus_engine.pictures import avif, tiff
from dualfocus_engine.pictures.png import without_text

pi_heif.register_heif_opener()

# Pillow's own alarm comes at a size that can't be chosen; every file is judged by its header before it is decoded.
Image.MAX_IMAGE_PIXELS = None
# Of a file as much is decoded at a time: after each piece a thread waits for the interpreter's lock.
ImageFile.MAXBLOCK = 1 << 20
# By Pillow's names, with the bytes that decoding one pixel takes, its result and ours included: measured, and rounded
# up for what was not (10 bits, a channel for transparency).
_DECODING_BYTES = {
    **dict.fromkeys(("JPEG", "PNG", "GIF", "BMP", "TIFF", "PPM"), 11),
    "WEBP": 18,
    "AVIF": 11,
    "HEIF": 18,
    "JPEG2000": 26,
}
# What a JPEG's fourth channel takes besides, and a pixel of what an AVIF's frames are coded at (12 bits, full colour).
_FOURTH_CHANNEL_BYTES, _AVIF_CODED_BYTES = 2, 7
# What a TIFF takes beside the tile or strip that is being decoded.
_TIFF_BYTES = 5
FORMATS = tuple(_DECODING_BYTES)
# vLLM's own bound.
MAX_PIXELS = 178_956_970
# Holds one JPEG or PNG of as many pixels.
MAX_DECODING_BYTES = 2 << 30
# What a file is by its first bytes, at an offset, and what to send in its place.
_OTHERS = (
    (0, b"%PDF-", "a PDF: send a page of it as PNG"),
    (0, b"\0\0\1\0", "an icon (ICO), which holds several pictures: send one of them as PNG"),
    (0, b"8BPS", "a Photoshop file: send it as PNG"),
    (0, b"\xff\x0a", "JPEG XL: send it as PNG, JPEG or AVIF"),
    (0, b"\0\0\0\x0cJXL ", "JPEG XL: send it as PNG, JPEG or AVIF"),
    (0, b"PK\3\4", "a ZIP archive or an Office document: send the picture in it"),
    (0, b"\x1f\x8b", "packed by gzip: send it unpacked"),
    (0, b"%!PS", "PostScript: send a page of it as PNG"),
    (0, b"\x1aE\xdf\xa3", "a video: send a frame of it as PNG or JPEG"),
    (4, b"ftyp", "a video, or in a format of that family that is not read: send it as PNG or JPEG"),
    (8, b"AVI ", "a video: send a frame of it as PNG or JPEG"),
    (8, b"WAVE", "audio"),
)
# Of texts, by what they hold near the beginning.
_TEXTS = ((b"<svg", "an SVG drawing: send it drawn, as PNG"), (b"<html", "a web page: send the image itself"))
_NEAR = 1024


@contextlib.contextmanager
def opened(data: bytes, formats: tuple[str, ...] = FORMATS) -> Iterator[Image.Image]:
    """Open an image file of one of `formats`; of its pixels nothing is decoded yet.

    Raises BadPicture, also for whatever Pillow raises about it inside the block.
    """
    with raise_bad_picture():
        # Pillow and libavif read lists of any length as they open a file.
        avif.check_lists(data)
        tiff.check_directory(data)
        try:
            image = Image.open(io.BytesIO(without_text(data)), formats=formats)
        except UnidentifiedImageError as error:
            raise BadPicture(_refusal(data, formats)) from error
        with image:
            if image.format == "PPM" and image.tile[0][0] != "raw":
                raise BadPicture("The image is a PPM written as text, or of odd depth: send it as PNG.")
            yield image


@contextlib.contextmanager
def raise_bad_picture() -> Iterator[None]:
    """Turn what Pillow raises about an image into BadPicture."""
    try:
        yield
    except BadPicture:
        raise
    except Exception as error:  # there is no end to what Pillow's readers raise over files that lie
        raise BadPicture(f"The image is damaged or cut short: {str(error) or type(error).__name__}.") from error


def format_of(image: Image.Image) -> str:
    """Return the format of an image that `opened` gave, by the name in FORMATS."""
    return "JPEG" if image.format in (None, "MPO") else str(image.format)  # a JPEG with further ones behind it


def decoding_bytes(image: Image.Image, data: bytes) -> int:
    """Return the memory that decoding an image, opened from `data`, to RGB takes at most.

    Raises BadPicture where that can't be told.
    """
    name, pixels = format_of(image), image.width * image.height
    takes = _DECODING_BYTES[name] * pixels
    if name == "JPEG" and image.mode == "CMYK":
        return takes + _FOURTH_CHANNEL_BYTES * pixels
    if name == "TIFF":
        return max(takes, _TIFF_BYTES * pixels + tiff.block_bytes(image))
    if name == "AVIF":
        return takes + _AVIF_CODED_BYTES * max(avif.coded_pixels(data), pixels)
    return takes


def what_is_left_out(image: Image.Image) -> str | None:
    """Return what of a file is not looked at, None where that is nothing: what follows the first picture."""
    if image.format == "MPO" or not getattr(image, "is_animated", False):
        return None  # what follows in a camera's JPEG is the same picture, smaller or deeper
    parts = "page" if image.format == "TIFF" else "picture" if image.format == "HEIF" else "frame"
    return f"Of the {format_of(image)} file the first {parts} alone is looked at."


def _refusal(data: bytes, formats: tuple[str, ...]) -> str:
    accepted = ", ".join(formats)
    shut = [name for name in FORMATS if name not in formats]
    if shut and (name := _readable(data, shut)):
        return f"The image is {name}, which this server is told not to read (--image-formats); accepted: {accepted}."
    near = data[:_NEAR].lower()
    found = [what for at, magic, what in _OTHERS if data[at:].startswith(magic)] if data else ["no bytes at all"]
    found += [what for mark, what in _TEXTS if mark in near]
    if found:
        return f"The image is {found[0]}. Accepted: {accepted}."
    return f"The image is in no format that can be read ({accepted})."


def _readable(data: bytes, formats: list[str]) -> str | None:
    """Return which of the formats a file begins as; none of its pixels are read, nor its header."""
    for name in formats:
        accept = Image.OPEN[name][1]
        if accept is not None and accept(data[:16]) is True:
            return name
    return None
