"""The colours that one sees: any mode, depth, transparency, gamma and ICC profile becomes RGB as on a screen (sRGB)."""

import io
from collections.abc import Callable, Iterator
from typing import cast

from PIL import ExifTags, Image, ImageCms

_WHITE = (255, 255, 255)
# Rows that are converted at once: what a conversion takes besides is bounded by them.
_ROWS = 256
# The levels that a deep grey file's white may have: bits that cameras and scanners use.
_WHITES = (1.0, 255.0, 1023.0, 4095.0, 16383.0, 65535.0)
# Where a profile waits to be applied: under this name nothing else reads or writes it.
PROFILE = "dualfocus_icc_profile"
_SRGB = ImageCms.createProfile("sRGB")
# sRGB's own gamma, as PNG's gAMA has it, and how far from it nothing is to be seen.
_SRGB_GAMMA, _GAMMA_TOLERANCE = 1 / 2.2, 0.02
# EXIF's orientations, and what turns each upright.
_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = {_TRANSPOSES[orientation] for orientation in (5, 6, 7, 8)}
# Those that put an image's first row last.
_FROM_THE_END = {_TRANSPOSES[orientation] for orientation in (3, 4, 6, 7)}


def is_sideways(image: Image.Image) -> bool:
    """Whether turning an image upright exchanges its sides."""
    return _orientation(image) in _SIDEWAYS


def as_rgb(image: Image.Image, *, is_ours: bool = False) -> Image.Image:
    """Return an image upright, in RGB and without metadata; an orientation left in it would turn it once more.

    One that `is_ours` shares its pixels with what is returned, where they are that already. An ICC profile of RGB stays
    in `info`, for `in_srgb` to apply once the picture is smaller.
    """
    image.load()
    if image.mode == "P" and image.palette is None:
        raise ValueError("its palette is missing")
    convert, transpose = _converter(image), _orientation(image)
    if is_ours and convert is _on_white and transpose is None and _is_plain(image):
        shown = image._new(image.im)  # as all of Pillow's methods make theirs; there is no public way without a copy
        shown.info = {}
    else:
        shown = _converted(image, convert, transpose)
    profile = image.info.get("icc_profile") or b""
    if image.mode in ("RGB", "RGBA", "P") and _transform(profile, "RGB"):
        shown.info[PROFILE] = profile
    return shown


def _is_plain(image: Image.Image) -> bool:
    return image.mode == "RGB" and not image.has_transparency_data


def _converted(
    image: Image.Image, convert: Callable[[Image.Image], Image.Image], transpose: Image.Transpose | None
) -> Image.Image:
    shown = Image.new("RGB", image.size if transpose not in _SIDEWAYS else image.size[::-1])
    for top, rows in _in_rows(image):
        at = image.height - top - rows.height if transpose in _FROM_THE_END else top
        # Pillow's own way to turn an image rewrites all of EXIF, and fails where any tag is odd.
        part = convert(rows) if transpose is None else convert(rows).transpose(transpose)
        shown.paste(part, (at, 0) if transpose in _SIDEWAYS else (0, at))
    return shown


def in_srgb(image: Image.Image, min_side: int | None = None) -> Image.Image:
    """Return an RGB image in sRGB's colours, by the ICC profile that `as_rgb` left in it.

    Where that changes them, a larger image is made smaller first, as long as `min_side` pixels a side are left.
    """
    transform = _transform(image.info.get(PROFILE, b""), "RGB")
    if transform is None:
        return image
    shown = transform.apply(image.reduce(max(min(image.size) // min_side, 1)) if min_side else image)
    shown.info = {}
    return shown


def _transform(packed: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Return what makes sRGB of a mode's colours; None where they are that already, or can't be told."""
    if not packed:
        return None
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(packed))
        if "sRGB" in ImageCms.getProfileDescription(profile):
            return None
        return ImageCms.buildTransform(profile, _SRGB, mode, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):  # a damaged profile changes nothing, as in browsers
        return None


def _converter(image: Image.Image) -> Callable[[Image.Image], Image.Image]:
    """Return what converts rows of an image to RGB; what is the same for all of them is found out once."""
    if image.mode.startswith("I") or image.mode == "F":
        full = _full_scale(image)
        return lambda rows: _on_white(_eight_bit(rows, full))
    if image.mode in ("CMYK", "L") and (transform := _transform(image.info.get("icc_profile") or b"", image.mode)):
        return lambda rows: transform.apply(rows)
    gamma = image.info.get("gamma") or _SRGB_GAMMA
    if abs(gamma - _SRGB_GAMMA) > _GAMMA_TOLERANCE and not {"icc_profile", "srgb"} & set(image.info):
        curve = [round(255 * (level / 255) ** (_SRGB_GAMMA / gamma)) for level in range(256)] * 3
        return lambda rows: _on_white(rows).convert("RGB").point(curve)
    return _on_white


def _on_white(image: Image.Image) -> Image.Image:
    """Return the image with white where it is transparent, as vLLM's own loader has it."""
    if not image.has_transparency_data:
        return image
    # Pillow converts La to LA only.
    layer = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    white = Image.new("RGBA", layer.size, (*_WHITE, 255))
    white.alpha_composite(layer)
    return white.convert("RGB")


def _eight_bit(image: Image.Image, full: float) -> Image.Image:
    """Scale a deep grey image down to 8 bits; Pillow's own conversion would clip it to white."""
    shown = _levels(image).point(lambda level: level * (255.0 / full) + 0.0).convert("L")
    clear = shown.info.pop("transparency", None)
    if isinstance(clear, int):
        # One deep level is transparent, not all those that share its 8 bits.
        shown.putalpha(image.convert("I").point([255 * (level != clear) for level in range(65536)], "L"))
    return shown


def _levels(image: Image.Image) -> Image.Image:
    return image if image.mode == "F" else image.convert("I").convert("F")


def _full_scale(image: Image.Image) -> float:
    """Guess the level that means white: the smallest usual one that no pixel exceeds."""
    brightest = max(float(cast("tuple[float, float]", _levels(rows).getextrema())[1]) for _, rows in _in_rows(image))
    return next((white for white in _WHITES if brightest <= white), brightest)


def _in_rows(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """Yield an image in parts of a few rows, each with the row it begins at."""
    for top in range(0, image.height, _ROWS):
        yield top, image.crop((0, top, image.width, min(top + _ROWS, image.height)))


def _orientation(image: Image.Image) -> Image.Transpose | None:
    """Return what turns an image upright."""
    try:
        return _TRANSPOSES.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # EXIF that can't be read turns nothing; the pixels are fine
        return None
