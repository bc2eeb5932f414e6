"""Pictures that a command reads and writes: from a file or a URL, to a file whose suffix names the format."""

import io
import urllib.request
import warnings
from pathlib import Path
from typing import cast

import httpx
from PIL import ExifTags, Image

from dualfocus_client.client import AskError, raise_unanswered, read_file

# Formats that any picture can be written in, and read back from, everywhere.
FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
}


_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def check_target(path: Path) -> None:
    """Raise AskError where a picture could not be written to `path`; nothing is left there that was not."""
    if path.suffix.lower() not in FORMATS:
        raise AskError(f"--save {path}: the suffix names the format; accepted: {', '.join(FORMATS)}")
    was_there = path.exists()
    try:
        with path.open("ab"):
            pass
        if not was_there:
            path.unlink()
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL byte
        raise _unwritable(path, error) from error


def save_picture(picture: Image.Image, path: Path) -> None:
    """Write a picture in the format that the suffix names. Raises AskError."""
    try:
        picture.save(path, FORMATS[path.suffix.lower()])
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: Exception) -> AskError:
    return AskError(f"--save {path}: can't be written: {getattr(error, 'strerror', None) or error}")


def open_picture(image: str, timeout: float) -> Image.Image:
    """Return a file's or URL's picture upright, in RGB, white where it is transparent. Raises AskError."""
    data = _content(image, timeout)
    try:
        with warnings.catch_warnings():
            # A picture that the user has named may be large.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return _shown(Image.open(io.BytesIO(data)))
    except Exception as error:  # Pillow's decoders raise errors of many kinds over damaged files
        raise AskError(f"{image[:200]}: can't be drawn on: {error}") from error


def _content(image: str, timeout: float) -> bytes:
    if image.startswith(("http://", "https://")):
        return _fetch(image, timeout)
    if not image.startswith("data:"):
        return read_file(image)
    try:
        with urllib.request.urlopen(image) as response:
            return cast("bytes", response.read())
    except (OSError, ValueError) as error:
        raise AskError(f"{image[:64]}: is not a valid data: URL: {error}") from error


def _fetch(url: str, timeout: float) -> bytes:
    """Fetch what the server is given the URL of: for the picture that is saved, it is needed here too."""
    with raise_unanswered(url):
        response = httpx.get(url, timeout=timeout, follow_redirects=True)
    if not response.is_success:
        raise AskError(f"{url}: can't be drawn on: its server answered {response.status_code}")
    return response.content


def _shown(image: Image.Image) -> Image.Image:
    image.load()
    # Pillow's own way to turn an image rewrites all of EXIF, and fails where any tag is odd.
    transpose = _TRANSPOSES.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    if image.mode.startswith("I") or image.mode == "F":
        image = _eight_bit(image)
    upright = image if transpose is None else image.transpose(transpose)
    return _on_white(upright) if upright.has_transparency_data else upright.convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    layer = image.convert("RGBA")
    white = Image.new("RGBA", layer.size, "white")
    white.alpha_composite(layer)
    return white.convert("RGB")


def _eight_bit(image: Image.Image) -> Image.Image:
    """Scale deep greys down to what can be drawn on; Pillow's own conversion clips them to white."""
    levels = image.convert("F")
    brightest = float(cast("tuple[float, float]", levels.getextrema())[1]) or 1.0
    return levels.point(lambda level: level * (255.0 / brightest) + 0.0).convert("L")
