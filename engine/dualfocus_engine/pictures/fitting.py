"""What the encoder is shown: padded to a square, resized, and never a strip that takes gigabytes."""

from collections.abc import Callable
from typing import TypeAlias, cast

import numpy as np
import numpy.typing as npt
from PIL import Image

from dualfocus_engine.families.boxes import Size

Colour = tuple[int, int, int]
# Bytes: height, width and the three colours.
Pixels: TypeAlias = npt.NDArray[np.uint8]
# Pillow's for a pixel in RGB.
PIXEL_BYTES = 4
_WHITE = (255, 255, 255)
# A padded square of more pixels is not made; the picture is shrunk first.
_MAX_SQUARE = 64_000_000
_LONGEST_STRIP = 20
# Pixels whose rows are filtered at once: so many are copied for it.
_PIXELS_AT_ONCE = 1 << 20
# A side of over twice as many times the one asked for is averaged in blocks first; it keeps as many times at the least.
_LONGEST_FILTER = 16


def fit(image: Image.Image, pad_color: Colour | None, image_size: int | None) -> Image.Image:
    """Return what the encoder is shown: padded to a square of colour `pad_color`, then resized to `image_size` pixels.

    Either step is left out where it is None: the model's own processor does the rest. `image_size` needs `pad_color`
    (profiles see to it): a picture that is not padded is left to the processor altogether.
    """
    if pad_color is None:
        return within_aspect(image)
    if image_size is None:
        return pad_to_square(image, pad_color)
    image = shrink_to_bound(image)
    square = max(image.size)
    # The bars above and below a landscape are of one colour along their rows as well: they need no filter.
    narrow = np.array(Image.new("RGB", (image_size, square), pad_color))
    top = (square - image.height) // 2
    _narrow(image, lambda rows: _widened(rows, square, pad_color), narrow[top : top + image.height])
    return Image.fromarray(_filtered(narrow, (image_size, image_size)))


def resize(image: Image.Image, size: Size) -> Image.Image:
    """Return an RGB image at `size`, with all that is said of it, by torch's bicubic filter over all of its pixels.

    It is Pillow's, but for a level here and there, in a quarter of the time.
    """
    averaged = _averaged(image, size)
    narrow: Pixels = np.empty((averaged.height, size[0], 3), np.uint8)
    _narrow(averaged, lambda rows: rows, narrow)
    shown = Image.fromarray(_filtered(narrow, size))
    shown.info = dict(image.info)
    return shown


def _averaged(image: Image.Image, size: Size) -> Image.Image:
    """Return the image averaged along sides that are far longer than asked: a strip's rows would take gigabytes."""
    across, down = (max(side // (_LONGEST_FILTER * asked), 1) for side, asked in zip(image.size, size, strict=True))
    return image if across == down == 1 else image.reduce((across, down))


def _narrow(image: Image.Image, pad: Callable[[Image.Image], Image.Image], into: Pixels) -> None:
    """Filter an image along its rows, padded before, `into` pixels of its height."""
    height = max(_PIXELS_AT_ONCE // max(image.size), 1)
    for top in range(0, image.height, height):
        rows = pad(image.crop((0, top, image.width, min(top + height, image.height))))
        into[top : top + rows.height] = _filtered(np.array(rows), (into.shape[1], rows.height))


def _filtered(pixels: Pixels, size: Size) -> Pixels:
    """Return pixels at another width and height."""
    import torch  # this package is imported before the environment is prepared for it

    # numpy turns them for torch, whose every call makes other threads wake up for the interpreter's lock.
    batch = torch.from_numpy(pixels.reshape(1, *pixels.shape).transpose(0, 3, 1, 2))
    shown = torch.nn.functional.interpolate(batch, size[::-1], mode="bicubic", antialias=True)
    return cast("Pixels", shown.numpy().transpose(0, 2, 3, 1)[0])


def _widened(rows: Image.Image, width: int, colour: Colour) -> Image.Image:
    return rows if rows.width == width else _center_on_canvas(rows, (width, rows.height), colour)


def pad_to_square(image: Image.Image, colour: Colour) -> Image.Image:
    """Return the image centred on a square of `colour`, as LLaVA-1.5 was trained to see it."""
    image = shrink_to_bound(image)
    image_size = max(image.size)
    if image.size == (image_size, image_size):
        return image
    return _center_on_canvas(image, (image_size, image_size), colour)


def _center_on_canvas(image: Image.Image, size: tuple[int, int], colour: Colour) -> Image.Image:
    width, height = size
    canvas = Image.new("RGB", size, colour)
    canvas.paste(image, ((width - image.width) // 2, (height - image.height) // 2))
    return canvas


def within_aspect(image: Image.Image) -> Image.Image:
    """Return the image, its short side padded with white where it is over 20 times as long as wide.

    Processors that resize by the short side would make gigabytes of a strip.
    """
    image = shrink_to_bound(image)
    size = size_within_aspect(image.size)
    return image if size == image.size else _center_on_canvas(image, size, _WHITE)


def size_within_aspect(size: Size) -> Size:
    """Return the size of a picture of `size` with that padding."""
    least = -(-max(size) // _LONGEST_STRIP)
    return max(size[0], least), max(size[1], least)


def shrink_to_bound(image: Image.Image) -> Image.Image:
    """Return the image, shrunk where padding it to a square would take hundreds of megabytes."""
    size = _size_within_bound(image.size)
    return image if size == image.size else image.resize(size, Image.Resampling.BOX)


def _size_within_bound(size: Size) -> Size:
    scale = min(int(_MAX_SQUARE**0.5) / max(size), 1.0)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def bytes_within_aspect(size: Size) -> int:
    """Return the memory that `within_aspect` of a picture of `size` takes."""
    width, height = size_within_aspect(_size_within_bound(size))
    return width * height * PIXEL_BYTES
