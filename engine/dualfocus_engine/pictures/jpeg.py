"""JPEGs that lack their last bytes, as browsers show them."""

import io

from PIL import Image, ImageChops

_END = b"\xff\xd9"
# Bits that decode to something else than what a decoder puts where nothing is left.
_NOISE = b"\x55"
# What is compared is an eighth as large; there one row of blocks has two rows, and colour reaches one further.
_SCALE = 8
_ROWS_OF_BLOCKS, _LARGEST_SHARE = 3, 64


def with_an_end(data: bytes) -> bytes | None:
    """Return a JPEG that lacks only its last bytes with an end put to it; None where more of it is missing.

    What is missing is what changes with other bytes in its place.
    """
    data = data.rstrip(_END[:1])  # the first half of an end
    ended = data + _END
    try:
        shown, noisy = (_small(other) for other in (ended, data + _NOISE * (len(data) // 2) + _END))
    except Exception:  # there is no end to what Pillow's readers raise over files that lie
        return None
    differing = ImageChops.difference(shown, noisy).getbbox()
    rows = shown.height - (differing[1] if differing else shown.height)
    return ended if rows <= max(_ROWS_OF_BLOCKS, shown.height // _LARGEST_SHARE) else None


def _small(data: bytes) -> Image.Image:
    with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
        image.draft("RGB", (image.width // _SCALE, image.height // _SCALE))
        return image.convert("RGB")
