"""Pictures: opened upright and in RGB, and cropped."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from dualfocus_engine.errors import BadPicture
from dualfocus_engine.families.boxes import Region, Size
from dualfocus_engine.pictures.colours import PROFILE, as_rgb, in_srgb, is_sideways
from dualfocus_engine.pictures.formats import (
    FORMATS,
    MAX_DECODING_BYTES,
    MAX_PIXELS,
    decoding_bytes,
    format_of,
    opened,
    raise_bad_picture,
    what_is_left_out,
)
from dualfocus_engine.pictures.jpeg import check_scans, complete_truncated
from dualfocus_engine.pictures.png import rows_are_missing

# Rows of pixels that are hashed at once: all of a large picture's bytes would hold the interpreter for long.
_ROWS_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What an image may be: how many pixels it may have, its format, and the bytes that decoding it may take.

    All are judged by its header, before anything is decoded.
    """

    pixels: int = MAX_PIXELS
    formats: tuple[str, ...] = FORMATS
    decoding_bytes: int = MAX_DECODING_BYTES


DEFAULT_LIMITS = ImageLimits()


@dataclass(frozen=True, slots=True, eq=False)
class SourceImage:
    """An image as it was given, the bytes of a file or Pillow's pixels, and the key that names its content.

    `format` is that of the bytes, `decoding_bytes` what decoding them takes at most, and `left_out` says what of the
    file is not looked at. The encoder is shown what the decoder scaled down where `is_scaled`.
    """

    data: bytes | Image.Image
    key: str
    format: str = ""
    decoding_bytes: int = 0
    left_out: str | None = None
    is_scaled: bool = False

    def scaled(self) -> "SourceImage":
        """Return the image as the encoder is shown it scaled down: another one, to every cache."""
        return replace(self, key=f"{self.key}-scaled", is_scaled=True)

    def decode(self, min_side: int | None = None) -> Image.Image:
        """Return the whole image upright in RGB; that of a file is decoded each time: work for a thread.

        A JPEG's decoder may scale it down as long as `min_side` pixels a side are left. The colours may be those of a
        profile still, for `in_srgb`. Raises BadPicture.
        """
        return self.data if isinstance(self.data, Image.Image) else _decode(self.data, self.format, min_side)

    def scaled_size(self, min_side: int) -> Size | None:
        """Return the upright size of a JPEG that its decoder can scale down to `min_side` a side; None for others.

        Only the header is read. Raises BadPicture.
        """
        return None if isinstance(self.data, Image.Image) else _scaled_size(self.data, self.format, min_side)


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """An upright picture, or the part of one in `region`, and the size that the encoder is `shown` it at.

    `size` is width and height in pixels, those of the original's resolution. Where `shown` is None, the profile and the
    model's own processor say how large it is shown. `patch` is a crop of it that the model is shown as part of it.
    """

    original: SourceImage
    size: Size
    region: Region | None = None
    shown: Size | None = None
    patch: "Picture | None" = None

    @property
    def key(self) -> str:
        """Names in every cache what is shown: the content, the part, the size and the patch."""
        part = "" if self.region is None else f"-{'-'.join(map(str, self.region))}"
        size = "" if self.shown is None else f"@{self.shown[0]}x{self.shown[1]}"
        return self.original.key + part + size + ("" if self.patch is None else f"+{self.patch.key}")

    def decode(self) -> Image.Image:
        """Return its RGB pixels at the original's resolution; a file is decoded each time: work for a thread."""
        whole = self.original.decode()
        return in_srgb(whole if self.region is None else whole.crop(self.region))

    def crop(self, region: Region) -> "Picture":
        """Return the part inside `region`, at the original resolution; nothing is decoded for it yet."""
        x, y = (0, 0) if self.region is None else self.region[:2]
        left, top, right, bottom = region
        inside = Region(x + left, y + top, x + right, y + bottom)
        return Picture(self.original, (right - left, bottom - top), inside)

    def shown_at(self, size: Size) -> "Picture":
        """Return the picture as the encoder is to be shown it: resized to `size`."""
        return replace(self, shown=size)

    def with_patch(self, crop: "Picture | None") -> "Picture":
        """Return the picture with a crop of it as a further patch; None leaves it without."""
        return replace(self, patch=crop)


def open_picture(source: bytes | str | Path | Image.Image, limits: ImageLimits = DEFAULT_LIMITS) -> Picture:
    """Open an image from its encoded bytes, a file or Pillow: orientation honoured, converted to RGB.

    Of an animation the first frame is taken; metadata is dropped. Raises BadPicture where the image can't be read or is
    beyond the limits.
    """
    original = read_source_image(source, limits)
    return Picture(original, original.decode().size)


def read_source_image(
    source: bytes | str | Path | Image.Image, limits: ImageLimits = DEFAULT_LIMITS, salt: str | None = None
) -> SourceImage:
    """Read an image as `open_picture` does, but judge it by its header alone: it may be damaged.

    Under another `salt` the same image has another key, so that no cache tells whether it was there before.
    """
    if isinstance(source, Image.Image):
        _check_pixels(source.size, limits)
        with raise_bad_picture():
            upright = as_rgb(source)
        return SourceImage(upright, _key(_pixel_bands(upright), salt))
    data = source if isinstance(source, bytes) else _read_file(source)
    with opened(data, limits.formats) as image:
        _check_pixels(image.size, limits)
        name = format_of(image)
        if name == "JPEG":
            check_scans(data)
        takes = decoding_bytes(image, data)
        if takes > limits.decoding_bytes:
            raise BadPicture(
                f"The image is {image.width}x{image.height}: as {name} it takes {takes:,} bytes to decode, more than "
                f"the {limits.decoding_bytes:,} that this server has for it (--max-decoding-bytes)."
            )
        left_out = what_is_left_out(image)
    return SourceImage(data, _key([data], salt), name, takes, left_out)


def _read_file(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise BadPicture(f"The image file can't be read: {error.strerror or error}.") from error
    except ValueError as error:  # a path with a NUL byte
        raise BadPicture(f"The image file can't be read: {error}.") from error


def _decode(data: bytes, name: str, min_side: int | None) -> Image.Image:
    try:
        return _decode_whole(data, name, min_side)
    except BadPicture:
        if name != "JPEG" or (ended := complete_truncated(data)) is None:
            raise
        return _decode_whole(ended, name, min_side)


def _decode_whole(data: bytes, name: str, min_side: int | None) -> Image.Image:
    with opened(data, (name,)) as image:
        if min_side is not None:
            image.draft(None, (min_side, min_side))
        shown = as_rgb(image, is_ours=True)
        if name == "PNG" and rows_are_missing(data, image):
            raise BadPicture("The image is damaged or cut short: it has fewer rows than it claims.")
        return shown


def _scaled_size(data: bytes, name: str, min_side: int) -> Size | None:
    with opened(data, (name,)) as image:
        width, height = image.size
        image.draft(None, (min_side, min_side))
        if image.size == (width, height):
            return None
        return (height, width) if is_sideways(image) else (width, height)


def _check_pixels(size: Size, limits: ImageLimits) -> None:
    width, height = size
    if width * height > limits.pixels:
        raise BadPicture(f"The image is {width}x{height}: more than {limits.pixels:,} pixels (--max-image-pixels).")


def _key(pieces: Iterable[bytes], salt: str | None) -> str:
    salted = b"" if salt is None else hashlib.blake2b(salt.encode()).digest()
    digest = hashlib.blake2b(digest_size=16, key=salted)
    for piece in pieces:
        digest.update(piece)
    return f"picture-{digest.hexdigest()}"


def _pixel_bands(image: Image.Image) -> Iterator[bytes]:
    """Yield an image's pixels from the top, then its size, and the profile by which they are colours."""
    for top in range(0, image.height, _ROWS_AT_ONCE):
        yield image.crop((0, top, image.width, min(top + _ROWS_AT_ONCE, image.height))).tobytes()
    yield repr(image.size).encode()
    yield image.info.get(PROFILE, b"")
