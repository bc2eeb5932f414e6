"""Truncated JPEGs: those that lack their last bytes only are read, as browsers show them."""

import io

from PIL import Image, ImageChops

# The marker EOI.
_END = b"\xff\xd9"
# Bits that decode to something else than what a decoder puts where nothing is left.
_NOISE = b"\x55"
# What is compared is smaller: of a progressive file less so, since what is missing there is its details.
_SCALE, _PROGRESSIVE_SCALE = 8, 2
# Rows that may be missing: a row of blocks and what their colour reaches, or a share of a large picture.
_BLOCK_ROWS, _SHARE = 24, 64


def complete_truncated(data: bytes) -> bytes | None:
    """Return a truncated JPEG that lacks only its last bytes with an end put to it; None where more of it is missing.

    What is missing is what changes with other bytes in its place.
    """
    data = data.rstrip(_END[:1])  # the first half of an end
    ended = data + _END
    try:
        height, shown = _decode_small(ended)
        _, noisy = _decode_small(data + _NOISE * (len(data) // 2) + _END)
    except Exception:  # there is no end to what Pillow's readers raise over files that lie
        return None
    differing = ImageChops.difference(shown, noisy).getbbox()
    intact = differing[1] / shown.height if differing else 1.0
    return ended if (1 - intact) * height <= max(_BLOCK_ROWS, height // _SHARE) else None


def _decode_small(data: bytes) -> tuple[int, Image.Image]:
    """Return the height of a JPEG, and the picture made smaller."""
    with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
        height, scale = image.height, _PROGRESSIVE_SCALE if "progressive" in image.info else _SCALE
        image.draft("RGB", (image.width // scale, height // scale))
        return height, image.convert("RGB")
