"""Pictures: opened upright and in RGB, fitted to the encoder, and cropped."""

import hashlib
import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from PIL import ExifTags, Image, UnidentifiedImageError

from dualfocus_engine.errors import BadPicture
from dualfocus_engine.families.boxes import Region, Size
from dualfocus_engine.pictures.png_rows import rows_are_missing

Colour = tuple[int, int, int]
_WHITE = (255, 255, 255)
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
MAX_PIXELS = 50_000_000
# A padded square of more pixels is not made; the picture is shrunk first.
_MAX_SQUARE = 64_000_000
_LONGEST_STRIP = 20
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
# Rows of pixels that are hashed at once: all of a large picture's bytes would hold the interpreter for long.
_ROWS_AT_ONCE = 64


@dataclass(frozen=True, slots=True, eq=False)
class SourceImage:
    """An image as it was given, the bytes of a file or Pillow's pixels, and the key that names its content."""

    data: bytes | Image.Image
    key: str

    def decode(self, min_side: int | None = None) -> Image.Image:
        """Return the whole image upright in RGB; that of a file is decoded each time: work for a thread.

        A JPEG's decoder may scale it down as long as `min_side` pixels a side are left. Raises BadPicture.
        """
        return self.data if isinstance(self.data, Image.Image) else _decode(self.data, min_side)

    def scaled_size(self, min_side: int) -> Size | None:
        """Return the upright size of a JPEG that its decoder can scale down to `min_side` a side; None for others.

        Only the header is read. Raises BadPicture.
        """
        return None if isinstance(self.data, Image.Image) else _scaled_size(self.data, min_side)


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """An upright picture, or the part of one in `region`, and the size that the encoder is `shown` it at.

    `size` is width and height in pixels, those of the original's resolution. Where `shown` is None, the profile and the
    model's own processor say how large it is shown.
    """

    original: SourceImage
    size: Size
    region: Region | None = None
    shown: Size | None = None

    @property
    def key(self) -> str:
        """Names in every cache what is shown: the content, the part and the size."""
        part = "" if self.region is None else f"-{'-'.join(map(str, self.region))}"
        return self.original.key + part + ("" if self.shown is None else f"@{self.shown[0]}x{self.shown[1]}")

    def decode(self) -> Image.Image:
        """Return its RGB pixels at the original's resolution; a file is decoded each time: work for a thread."""
        whole = self.original.decode()
        return whole if self.region is None else whole.crop(self.region)

    def crop(self, region: Region) -> "Picture":
        """Return the part inside `region`, at the original resolution; nothing is decoded for it yet."""
        x, y = (0, 0) if self.region is None else self.region[:2]
        left, top, right, bottom = region
        inside = Region(x + left, y + top, x + right, y + bottom)
        return Picture(self.original, (right - left, bottom - top), inside)

    def shown_at(self, size: Size) -> "Picture":
        """Return the picture as the encoder is to be shown it: resized to `size`."""
        return replace(self, shown=size)


def open_picture(source: bytes | str | Path | Image.Image, max_pixels: int = MAX_PIXELS) -> Picture:
    """Open an image from its encoded bytes, a file or Pillow: orientation honoured, converted to RGB.

    Of an animation the first frame is taken; metadata is dropped. Raises BadPicture where the image can't be read, is
    in none of FORMATS, or has more than `max_pixels`, which is judged by its header before anything is decoded.
    """
    original = read_source_image(source, max_pixels)
    return Picture(original, original.decode().size)


def read_source_image(source: bytes | str | Path | Image.Image, max_pixels: int = MAX_PIXELS) -> SourceImage:
    """Read an image as `open_picture` does, but judge it by its header alone: it may be damaged."""
    if isinstance(source, Image.Image):
        with _raise_bad_picture(max_pixels):
            _check_pixels(source, max_pixels)
            upright = _rgb(source)
        return SourceImage(upright, _key(_pixel_bands(upright)))
    data = source if isinstance(source, bytes) else _read_file(source)
    with _raise_bad_picture(max_pixels), Image.open(io.BytesIO(data), formats=FORMATS) as image:
        _check_pixels(image, max_pixels)
    return SourceImage(data, _key([data]))


def _read_file(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise BadPicture(f"The image file can't be read: {error.strerror or error}.") from error
    except ValueError as error:  # a path with a NUL byte
        raise BadPicture(f"The image file can't be read: {error}.") from error


def _decode(data: bytes, min_side: int | None) -> Image.Image:
    with _raise_bad_picture(), Image.open(io.BytesIO(data), formats=FORMATS) as image:
        if min_side is not None:
            image.draft(None, (min_side, min_side))
        shown = _rgb(image)
        if image.format == "PNG" and rows_are_missing(data, image):
            raise BadPicture("The image is damaged or cut short: it has fewer rows than it claims.")
        return shown


def _scaled_size(data: bytes, min_side: int) -> Size | None:
    with _raise_bad_picture(), Image.open(io.BytesIO(data), formats=FORMATS) as image:
        width, height = image.size
        image.draft(None, (min_side, min_side))
        if image.size == (width, height):
            return None
        return (height, width) if _orientation(image) in _SIDEWAYS else (width, height)


@contextmanager
def _raise_bad_picture(max_pixels: int = MAX_PIXELS) -> Iterator[None]:
    """Turn what Pillow raises about an image into BadPicture."""
    try:
        yield
    except UnidentifiedImageError as error:
        raise BadPicture(f"The image is in no format that can be read ({', '.join(FORMATS)}).") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadPicture(f"The image has more than {max_pixels:,} pixels.") from error
    except BadPicture:
        raise
    except Exception as error:  # there is no end to what Pillow's readers raise over files that lie
        raise BadPicture(f"The image is damaged or cut short: {str(error) or type(error).__name__}.") from error


def _check_pixels(image: Image.Image, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise BadPicture(f"The image is {width}x{height}: more than {max_pixels:,} pixels.")


def _key(pieces: Iterable[bytes]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for piece in pieces:
        digest.update(piece)
    return f"picture-{digest.hexdigest()}"


def _pixel_bands(image: Image.Image) -> Iterator[bytes]:
    """Yield an image's pixels from the top, then its size."""
    for top in range(0, image.height, _ROWS_AT_ONCE):
        yield image.crop((0, top, image.width, min(top + _ROWS_AT_ONCE, image.height))).tobytes()
    yield repr(image.size).encode()


def _rgb(image: Image.Image) -> Image.Image:
    """Return the image upright, in RGB and without metadata; an orientation left in it would turn it once more."""
    image.load()
    turn = _orientation(image)
    # Pillow's own way to turn an image rewrites all of EXIF, and fails where any tag is odd.
    shown = _on_white(image if turn is None else image.transpose(turn)).convert("RGB")
    shown.info = {}
    return shown


def _orientation(image: Image.Image) -> Image.Transpose | None:
    """Return what turns an image upright."""
    try:
        return _TRANSPOSES.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # EXIF that can't be read turns nothing; the pixels are fine
        return None


def _on_white(image: Image.Image) -> Image.Image:
    """Return the image with white where it is transparent, as vLLM's own loader has it."""
    if image.mode.startswith("I") or image.mode == "F":
        image = _eight_bit(image)
    if not image.has_transparency_data:
        return image
    # Pillow converts La to LA only.
    layer = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    white = Image.new("RGBA", layer.size, (*_WHITE, 255))
    white.alpha_composite(layer)
    return white


def _eight_bit(image: Image.Image) -> Image.Image:
    """Scale a deep greyscale image down to 8 bits; Pillow's own conversion would clip it to white."""
    levels = image if image.mode == "F" else image.convert("I").convert("F")
    full = 65535.0 if image.mode.startswith("I;16") else _full_scale(levels)
    shown = levels.point(lambda level: level * (255.0 / full) + 0.0).convert("L")
    clear = shown.info.pop("transparency", None)
    if isinstance(clear, int):
        # One deep level is transparent, not all those that share its 8 bits.
        shown.putalpha(image.convert("I").point([255 * (level != clear) for level in range(65536)], "L"))
    return shown


def _full_scale(levels: Image.Image) -> float:
    """Guess the level that means white: the smallest usual one that no pixel exceeds."""
    brightest = float(cast("tuple[float, float]", levels.getextrema())[1])
    return next((top for top in (1.0, 255.0, 65535.0) if brightest <= top), brightest)


def fit(image: Image.Image, pad_color: Colour | None, image_size: int | None) -> Image.Image:
    """Return what the encoder is shown: padded to a square of colour `pad_color`, then resized to `image_size` pixels.

    Either step is left out where it is None: the model's own processor does the rest. `image_size` needs `pad_color`
    (profiles see to it): a picture that is not padded is left to the processor altogether.
    """
    shown = within_aspect(image) if pad_color is None else pad_to_square(image, pad_color)
    if image_size is None or pad_color is None:
        return shown
    return shown.resize((image_size, image_size), Image.Resampling.BICUBIC)


def pad_to_square(image: Image.Image, colour: Colour) -> Image.Image:
    """Return the image centred on a square of `colour`, as LLaVA-1.5 was trained to see it."""
    image = bounded(image)
    image_size = max(image.size)
    if image.size == (image_size, image_size):
        return image
    return _centred(image, (image_size, image_size), colour)


def _centred(image: Image.Image, size: tuple[int, int], colour: Colour) -> Image.Image:
    width, height = size
    canvas = Image.new("RGB", size, colour)
    canvas.paste(image, ((width - image.width) // 2, (height - image.height) // 2))
    return canvas


def within_aspect(image: Image.Image) -> Image.Image:
    """Return the image, its short side padded with white where it is over 20 times as long as wide.

    Processors that resize by the short side would make gigabytes of a strip.
    """
    image = bounded(image)
    min_side = -(-max(image.size) // _LONGEST_STRIP)
    size = (max(image.width, min_side), max(image.height, min_side))
    return image if size == image.size else _centred(image, size, _WHITE)


def bounded(image: Image.Image) -> Image.Image:
    """Return the image, shrunk where padding it to a square would take hundreds of megabytes."""
    longest = int(_MAX_SQUARE**0.5)
    if max(image.size) <= longest:
        return image
    scale = longest / max(image.size)
    width, height = (max(1, round(length * scale)) for length in image.size)
    return image.resize((width, height), Image.Resampling.BOX)
