"""What the encoder is shown: padded to a square, resized, and never a strip that takes gigabytes."""

from PIL import Image

from dualfocus_engine.families.boxes import Size

Colour = tuple[int, int, int]
_WHITE = (255, 255, 255)
# A padded square of more pixels is not made; the picture is shrunk first.
_MAX_SQUARE = 64_000_000
_LONGEST_STRIP = 20
# A picture of over eight times the size asked for is averaged in whole blocks first, down to four to eight times it:
# within four levels of the filter over all of its pixels, a tenth of a level on average, for a fifth of the work.
_REDUCING_GAP = 4.0


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
    square, shown = max(image.size), (image_size, image_size)
    if image.height == square or square > 2 * _REDUCING_GAP * image_size:
        return resize(pad_to_square(image, pad_color), shown)
    # Pillow filters along the rows first: those of the bars above and below stay as they are, and come in afterwards.
    narrow = resize(image, (image_size, image.height))
    return resize(_center_on_canvas(narrow, (image_size, square), pad_color), shown)


def resize(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Return the image at `size`, by Pillow's bicubic filter; one of over eight times that is averaged first."""
    return image.resize(size, Image.Resampling.BICUBIC, reducing_gap=_REDUCING_GAP)


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
    longest = int(_MAX_SQUARE**0.5)
    if max(image.size) <= longest:
        return image
    scale = longest / max(image.size)
    width, height = (max(1, round(length * scale)) for length in image.size)
    return image.resize((width, height), Image.Resampling.BOX)
