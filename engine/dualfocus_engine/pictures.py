"""Pictures: opened upright and in RGB, fitted to the encoder, and cropped."""

import hashlib
import io
import struct
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from PIL import Image, ImageOps, UnidentifiedImageError

from dualfocus_engine.boxes import Region
from dualfocus_engine.errors import BadPicture

Colour = tuple[int, int, int]
_WHITE = (255, 255, 255)
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
MAX_PIXELS = 50_000_000
# A padded square of more pixels is not made; the picture is shrunk first.
_MAX_SQUARE = 64_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """An upright RGB image at its own resolution, and the key that names its content in every cache."""

    image: Image.Image
    key: str

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.image.size

    def crop(self, region: Region) -> "Picture":
        """Return the part inside `region`, at the original resolution."""
        return Picture(self.image.crop(region), f"{self.key}-{'-'.join(map(str, region))}")


def open_picture(source: bytes | str | Path | Image.Image, max_pixels: int = MAX_PIXELS) -> Picture:
    """Open an image from its encoded bytes, a file or Pillow: orientation honoured, converted to RGB.

    Of an animation the first frame is taken; metadata is dropped. Raises BadPicture where the image can't be read, is
    in none of FORMATS, or has more than `max_pixels`, which is judged by its header before anything is decoded.
    """
    if isinstance(source, Image.Image):
        upright = _rgb(source)
        return Picture(upright, _key(upright.tobytes() + repr(upright.size).encode()))
    try:
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
    except OSError as error:
        raise BadPicture(f"The image file can't be read: {error.strerror or error}.") from error
    return Picture(_decoded(data, max_pixels), _key(data))


def _decoded(data: bytes, max_pixels: int) -> Image.Image:
    try:
        with warnings.catch_warnings():
            # Pillow's own alarm comes at another size than ours.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                _check_pixels(image, max_pixels)
                return _rgb(image)
    except UnidentifiedImageError as error:
        raise BadPicture(f"The image is in no format that can be read ({', '.join(FORMATS)}).") from error
    except Image.DecompressionBombError as error:
        raise BadPicture(f"The image has more than {max_pixels:,} pixels.") from error
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, OverflowError, MemoryError) as error:
        raise BadPicture(f"The image is damaged or cut short: {error}.") from error


def _check_pixels(image: Image.Image, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise BadPicture(f"The image is {width}x{height}: more than {max_pixels:,} pixels.")


def _key(data: bytes) -> str:
    return f"picture-{hashlib.blake2b(data, digest_size=16).hexdigest()}"


def _rgb(image: Image.Image) -> Image.Image:
    """Return the image upright and in RGB; transparent parts show white, as vLLM's own loader has it."""
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I") or upright.mode == "F":
        upright = _eight_bit(upright)
    if upright.has_transparency_data:
        layer = upright.convert("RGBA")
        upright = Image.new("RGBA", layer.size, (*_WHITE, 255))
        upright.alpha_composite(layer)
    return upright.convert("RGB")


def _eight_bit(image: Image.Image) -> Image.Image:
    """Scale a deep greyscale image down to 8 bits; Pillow's own conversion would clip it to white."""
    levels = image if image.mode == "F" else image.convert("I").convert("F")
    full = 65535.0 if image.mode.startswith("I;16") else _full_scale(levels)
    return levels.point(lambda level: level * (255.0 / full) + 0.0).convert("L")


def _full_scale(levels: Image.Image) -> float:
    """Guess the level that means white: the smallest usual one that no pixel exceeds."""
    brightest = float(cast("tuple[float, float]", levels.getextrema())[1])
    return next((top for top in (1.0, 255.0, 65535.0) if brightest <= top), brightest)


def fit(image: Image.Image, pad: Colour | None, side: int | None) -> Image.Image:
    """Return what the encoder is shown: padded to a square of colour `pad`, then resized to `side` pixels.

    Either step is left out where it is None: the model's own processor does the rest.
    """
    shown = image if pad is None else pad_to_square(image, pad)
    if side is None or pad is None:
        return shown
    return shown.resize((side, side), Image.Resampling.BICUBIC)


def pad_to_square(image: Image.Image, colour: Colour) -> Image.Image:
    """Return the image centred on a square of `colour`, as LLaVA-1.5 was trained to see it."""
    image = bounded(image)
    side = max(image.size)
    if image.size == (side, side):
        return image
    square = Image.new("RGB", (side, side), colour)
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


def bounded(image: Image.Image) -> Image.Image:
    """Return the image, shrunk where padding it to a square would take hundreds of megabytes."""
    longest = int(_MAX_SQUARE**0.5)
    if max(image.size) <= longest:
        return image
    scale = longest / max(image.size)
    width, height = (max(1, round(length * scale)) for length in image.size)
    return image.resize((width, height), Image.Resampling.BOX)
