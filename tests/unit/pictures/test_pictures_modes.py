"""Every way Pillow holds pixels becomes RGB of the colour one sees."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from dualfocus_engine.pictures.pictures import open_picture
from PIL import Image

from ..builders import encoded

WHITE, BLACK, RED, BLUE = (255, 255, 255), (0, 0, 0), (255, 0, 0), (0, 0, 255)
MID = (127, 127, 127)
PINK = (255, 127, 127)  # half-transparent red on white
HALF = 128


def _shown(image: Image.Image | bytes) -> tuple[int, ...]:
    opened = open_picture(image).decode()
    assert opened.mode == "RGB"
    assert opened.size == (4, 4)
    colours = opened.getcolors()
    assert colours is not None
    assert len(colours) == 1
    colour = colours[0][1]
    assert isinstance(colour, tuple)
    return colour


def _new(mode: str, pixel: Any, transparency: Any = None) -> Image.Image:
    image = Image.new(mode, (4, 4), pixel)
    if mode in ("P", "PA"):
        image.putpalette([*RED, *BLUE])
    if transparency is not None:
        image.info["transparency"] = transparency
    return image


def _deep(mode: str, level: float, dtype: str) -> Image.Image:
    return Image.frombytes(mode, (4, 4), np.full((4, 4), level, dtype).tobytes())


@pytest.mark.parametrize(
    ("mode", "pixel", "colour"),
    [
        ("1", 1, WHITE),
        ("1", 0, BLACK),
        ("L", 90, (90, 90, 90)),
        ("LA", (90, 255), (90, 90, 90)),
        ("LA", (0, HALF), MID),
        ("LA", (0, 0), WHITE),
        ("La", (90, 255), (90, 90, 90)),
        ("La", (0, HALF), MID),
        ("P", 1, BLUE),
        ("PA", (0, 255), RED),
        ("PA", (0, HALF), PINK),
        ("PA", (0, 0), WHITE),
        ("RGB", (1, 2, 3), (1, 2, 3)),
        ("RGBX", (1, 2, 3, 0), (1, 2, 3)),
        ("RGBA", (*RED, 255), RED),
        ("RGBA", (*RED, HALF), PINK),
        ("RGBA", (*RED, 0), WHITE),
        ("RGBa", (HALF, 0, 0, HALF), PINK),
        ("RGBa", (0, 0, 0, 0), WHITE),
        ("CMYK", (0, 255, 255, 0), RED),
        ("CMYK", (0, 0, 0, 255), BLACK),
        ("YCbCr", (76, 85, 255), RED),
        ("YCbCr", (127, 128, 128), MID),
        ("LAB", (128, 128, 128), (119, 119, 119)),
        ("LAB", (255, 128, 128), WHITE),
        ("HSV", (0, 255, 255), RED),
        ("HSV", (0, 0, 127), MID),
    ],
)
def test_mode_becomes_the_colour_it_shows(mode: str, pixel: Any, colour: tuple[int, int, int]) -> None:
    assert _shown(_new(mode, pixel)) == pytest.approx(colour, abs=1)


@pytest.mark.parametrize(
    ("mode", "pixel", "transparency", "colour"),
    [
        ("P", 0, 0, WHITE),
        ("P", 1, 0, BLUE),
        ("P", 0, bytes([0, 255]), WHITE),
        ("P", 0, bytes([HALF, 255]), PINK),
        ("P", 1, bytes([0]), BLUE),
        ("1", 0, 0, WHITE),
        ("L", 90, 90, WHITE),
        ("L", 90, 91, (90, 90, 90)),
        ("RGB", (1, 2, 3), (1, 2, 3), WHITE),
        ("RGB", (1, 2, 3), (1, 2, 4), (1, 2, 3)),
    ],
)
def test_transparent_colour_shows_white(mode: str, pixel: Any, transparency: Any, colour: tuple[int, int, int]) -> None:
    assert _shown(_new(mode, pixel, transparency)) == pytest.approx(colour, abs=1)


@pytest.mark.parametrize(
    ("mode", "dtype"),
    [("I;16", "<u2"), ("I;16L", "<u2"), ("I;16B", ">u2"), ("I;16N", "=u2"), ("I", "=i4"), ("F", "=f4")],
)
@pytest.mark.parametrize(
    ("level", "grey"),
    [(0, 0), (16384, 63), (32768, 127), (49152, 191), (65535, 255), (300, 75), (4095, 255), (2048, 127), (1000, 249)],
)
def test_sixteen_bit_grey_keeps_its_tone(mode: str, dtype: str, level: int, grey: int) -> None:
    assert _shown(_deep(mode, level, dtype)) == pytest.approx((grey,) * 3, abs=1)


@pytest.mark.parametrize(
    ("mode", "dtype", "level", "grey"),
    [
        ("F", "=f4", 0.5, 127),
        ("F", "=f4", 1.0, 255),
        ("F", "=f4", -3.0, 0),
        ("F", "=f4", 128.0, 128),
        ("F", "=f4", 1e6, 255),
        ("I", "=i4", 128, 128),
        ("I", "=i4", -5, 0),
        ("I", "=i4", 2**30, 255),
    ],
)
def test_levels_without_a_stated_range_are_scaled_by_their_brightest(
    mode: str, dtype: str, level: float, grey: int
) -> None:
    assert _shown(_deep(mode, level, dtype)) == pytest.approx((grey,) * 3, abs=1)


def test_tones_of_a_deep_photo_stay_in_order(camera: Image.Image) -> None:
    tones = np.asarray(camera)
    deep = Image.fromarray(tones.astype(np.uint16) * 257)
    opened = np.asarray(open_picture(encoded(deep)).decode(), int)
    assert np.abs(opened - tones[..., None]).max() <= 1


@pytest.mark.parametrize("level", [np.nan, np.inf, -np.inf])
def test_pixels_without_a_number_do_not_keep_a_picture_from_opening(level: float) -> None:
    pixels = np.full((4, 4), 0.5, np.float32)
    pixels[0, 0] = level
    assert open_picture(Image.fromarray(pixels)).decode().mode == "RGB"


@pytest.mark.parametrize(
    ("kind", "image", "colour"),
    [
        ("JPEG", _new("L", 90), (90, 90, 90)),
        ("JPEG", _new("CMYK", (0, 255, 255, 0)), RED),
        ("PNG", _new("1", 1), WHITE),
        ("PNG", _new("P", 1), BLUE),
        ("PNG", _new("LA", (0, HALF)), MID),
        ("PNG", _new("RGBA", (*RED, HALF)), PINK),
        ("PNG", _deep("I;16", 32768, "<u2"), MID),
        ("GIF", _new("P", 0), RED),
        ("WEBP", _new("RGBA", (*RED, 0)), WHITE),
        ("TIFF", _deep("I;16B", 32768, ">u2"), MID),
        ("TIFF", _deep("I", 32768, "=i4"), MID),
        ("TIFF", _deep("F", 0.5, "=f4"), MID),
        ("TIFF", _new("CMYK", (0, 255, 255, 0)), RED),
        ("TIFF", _new("LAB", (128, 128, 128)), (119, 119, 119)),
        ("TIFF", _new("YCbCr", (76, 85, 255)), RED),
        ("TIFF", _new("RGBA", (*RED, HALF)), PINK),
        ("BMP", _new("1", 0), BLACK),
    ],
    ids=lambda value: value if isinstance(value, str) else value.mode if isinstance(value, Image.Image) else "",
)
def test_file_of_any_mode_opens_in_the_colour_it_shows(
    kind: str, image: Image.Image, colour: tuple[int, int, int]
) -> None:
    assert _shown(encoded(image, kind)) == pytest.approx(colour, abs=2)


@pytest.mark.parametrize(
    ("kind", "image", "transparency"),
    [
        ("PNG", _new("P", 0), 0),
        ("PNG", _new("P", 0), bytes([0, 255])),
        ("PNG", _new("L", 90), 90),
        ("PNG", _new("RGB", (1, 2, 3)), (1, 2, 3)),
        ("GIF", _new("P", 0), 0),
    ],
)
def test_transparent_colour_of_a_file_shows_white(kind: str, image: Image.Image, transparency: Any) -> None:
    data = encoded(image, kind, transparency=transparency)
    with Image.open(io.BytesIO(data)) as stored:
        assert stored.has_transparency_data, "the file says nothing of transparency: no test"
    assert _shown(data) == WHITE


def test_one_deep_level_is_transparent_and_its_neighbour_is_not() -> None:
    levels = np.full((4, 4), 20_000, np.uint16)
    levels[:, 1:] = 20_001  # the same in 8 bits
    opened = open_picture(encoded(Image.fromarray(levels), transparency=20_000)).decode()
    assert opened.getpixel((0, 0)) == WHITE
    assert opened.getpixel((1, 0)) == pytest.approx((78, 78, 78), abs=1)


def test_sixteen_bit_colour_keeps_its_tone() -> None:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    row = b"\0" + struct.pack(">HHH", 65535, 32768, 0) * 4
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0))
    data = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(row * 4)) + chunk(b"IEND", b"")
    assert _shown(data) == pytest.approx((255, 128, 0), abs=1)
