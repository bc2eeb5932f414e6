"""Colours as on a screen: ICC profiles, gamma, and what turning an image upright does to none of them."""

import io
import struct
import zlib

import numpy as np
import pytest
from dualfocus_engine import Region, open_picture
from dualfocus_engine.pictures import colours
from dualfocus_engine.pictures.picture_cache import PictureCache
from PIL import Image, ImageCms

from ..builders import encoded, oriented

LINEAR = (188, 188, 188)  # how sRGB writes half of the light


def _own(space: str) -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile(space)).tobytes()


def _linear() -> bytes:
    """An ICC profile of gamma 1 with sRGB's primaries, made from Pillow's own by rewriting its curves."""
    packed = bytearray(_own("sRGB"))
    (tags,) = struct.unpack_from(">I", packed, 128)
    for number in range(tags):
        name, at, _ = struct.unpack_from(">4sII", packed, 132 + 12 * number)
        if name in (b"rTRC", b"gTRC", b"bTRC"):
            struct.pack_into(">4sIHHi", packed, at, b"para", 0, 0, 0, 1 << 16)  # y = x ** 1.0
    described = packed.find("sRGB".encode("utf-16-be"))
    packed[described : described + 8] = "Line".encode("utf-16-be")
    return bytes(packed)


def test_embedded_profile_is_applied() -> None:
    grey = Image.new("RGB", (40, 30), (128, 128, 128))
    for kind in ("PNG", "JPEG", "TIFF", "WEBP"):
        data = encoded(grey, kind, icc_profile=_linear(), **({"quality": 100} if kind in ("JPEG", "WEBP") else {}))
        assert open_picture(data).decode().getpixel((5, 5)) == pytest.approx(LINEAR, abs=2)


def test_pixels_that_are_other_colours_by_their_profile_are_another_picture_to_every_cache() -> None:
    plain = Image.new("RGB", (40, 30), (128, 128, 128))
    profiled = plain.copy()
    profiled.info["icc_profile"] = _linear()
    pictures = [open_picture(image) for image in (plain, profiled)]
    assert pictures[0].key != pictures[1].key
    assert pictures[1].key == open_picture(profiled.copy()).key
    assert pictures[1].decode().getpixel((5, 5)) == pytest.approx(LINEAR, abs=2)


@pytest.mark.parametrize("mode", ["RGBA", "P"])
def test_profile_of_other_ways_to_hold_rgb_is_applied(mode: str) -> None:
    image = Image.new("RGB", (40, 30), (128, 128, 128))
    image = image.quantize() if mode == "P" else image.convert(mode)
    assert open_picture(encoded(image, icc_profile=_linear())).decode().getpixel((5, 5)) == pytest.approx(LINEAR, abs=2)


@pytest.mark.parametrize(
    "profile",
    [b"", b"no profile", _linear()[:200], _own("sRGB"), _own("LAB")],
    ids=["none", "no profile", "cut short", "sRGB", "LAB"],  # a profile has the time it was made at in it
)
def test_profile_that_says_nothing_new_changes_nothing(profile: bytes) -> None:
    data = encoded(Image.new("RGB", (40, 30), (128, 90, 60)), icc_profile=profile)
    assert open_picture(data).decode().getpixel((5, 5)) == (128, 90, 60)


def test_profile_is_applied_to_what_is_shown_and_cropped_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole picture is kept as the file has it; what is made of it is converted, small."""
    data = encoded(Image.new("RGB", (3000, 2000), (128, 128, 128)), "JPEG", quality=100, icc_profile=_linear())
    sizes: list[int] = []
    apply = ImageCms.ImageCmsTransform.apply

    def counted(transform: ImageCms.ImageCmsTransform, image: Image.Image) -> Image.Image:
        sizes.append(image.width * image.height)
        return apply(transform, image)

    monkeypatch.setattr(ImageCms.ImageCmsTransform, "apply", counted)
    cache = PictureCache((122, 116, 104), 112)
    picture = cache.open(data)
    part = picture.crop(Region(100, 100, 300, 300))
    for _ in range(2):
        assert cache.encoder_input(picture).getpixel((56, 56)) == pytest.approx(LINEAR, abs=2)
        assert cache.encoder_input(part).getpixel((56, 56)) == pytest.approx(LINEAR, abs=2)
        crop = cache.crop(picture.original, Region(0, 0, 50, 50), 10_000)
        assert crop.getpixel((5, 5)) == pytest.approx(LINEAR, abs=2)
        assert crop.info == {}
    assert cache.encoder_input(picture.shown_at((56, 28))).getpixel((5, 5)) == pytest.approx(LINEAR, abs=2)
    assert cache.within_side(picture.original, 60).getpixel((5, 5)) == pytest.approx(LINEAR, abs=2)
    assert max(sizes) < 3000 * 2000 / 4
    assert cache.within_aspect(picture.original).getpixel((5, 5)) == pytest.approx(LINEAR, abs=2)
    strip = encoded(Image.new("RGB", (900, 9), (128, 128, 128)), icc_profile=_linear())
    padded = PictureCache(None, None).within_aspect(open_picture(strip).original)
    assert padded.getpixel((450, 22)) == pytest.approx(LINEAR, abs=2)
    assert padded.getpixel((450, 2)) == (255, 255, 255)


def test_cmyk_of_a_printer_is_shown_by_its_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    """No profile of CMYK can be made here: that rows are given to it as they are is what is seen."""
    seen: list[tuple[bytes, str]] = []

    class Inverted:
        def apply(self, rows: Image.Image) -> Image.Image:
            assert rows.mode == "CMYK"
            return Image.new("RGB", rows.size, (1, 2, 3))

    def transform(packed: bytes, mode: str) -> Inverted | None:
        seen.append((packed, mode))
        return Inverted() if mode == "CMYK" else None

    monkeypatch.setattr(colours, "_transform", transform)
    data = encoded(Image.new("CMYK", (40, 600), (0, 255, 255, 0)), "TIFF", icc_profile=b"a printer's")
    assert open_picture(data).decode().getcolors() == [(40 * 600, (1, 2, 3))]
    assert (b"a printer's", "CMYK") in seen


def _with_gamma(gamma: float, extra: bytes = b"") -> bytes:
    plain = encoded(Image.new("RGB", (20, 10), (128, 128, 128)))
    chunk = b"gAMA" + round(gamma * 100_000).to_bytes(4, "big")
    return plain[:33] + (4).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big") + extra + plain[33:]


@pytest.mark.parametrize(("gamma", "grey"), [(1 / 2.2, 128), (0.45, 128), (1.0, 186), (0.55, 144), (0.0, 128)])
def test_gamma_of_a_png_is_applied(gamma: float, grey: int) -> None:
    assert open_picture(_with_gamma(gamma)).decode().getpixel((5, 5)) == pytest.approx((grey,) * 3, abs=2)


def test_gamma_gives_way_to_what_says_more() -> None:
    chunk = b"sRGB\0"
    srgb = (1).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")
    assert open_picture(_with_gamma(1.0, srgb)).decode().getpixel((5, 5)) == (128, 128, 128)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_image_of_many_rows_is_turned_upright(coffee: Image.Image, orientation: int) -> None:
    """More rows than are converted at once."""
    tall = coffee.resize((130, 700))
    opened = open_picture(oriented(tall, orientation, "PNG"))
    assert np.array_equal(np.asarray(opened.decode()), np.asarray(tall))


def test_twelve_bits_in_a_file_of_sixteen_are_stretched(camera: Image.Image) -> None:
    tones = np.asarray(camera)
    deep = Image.fromarray((tones.astype(np.uint32) * 4095 // 255).astype(np.uint16))
    file = io.BytesIO()
    deep.save(file, "PNG")
    opened = np.asarray(open_picture(file.getvalue()).decode(), int)
    assert np.abs(opened - tones[..., None]).max() <= 1
