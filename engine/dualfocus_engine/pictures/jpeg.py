"""JPEGs beyond what Pillow does: many scans are refused, and a file that lacks its last bytes only is read."""

import io
import re
from itertools import islice

from PIL import Image, ImageChops

from dualfocus_engine.errors import BadPicture

# Encoders write about ten. Each scan of a progressive file is another pass over the whole picture, and a few bytes are
# enough for one.
MAX_SCANS = 100
# The markers SOS and EOI.
_SCAN, _END = b"\xff\xda", b"\xff\xd9"
_SCANS = re.compile(_SCAN)  # finds them in less than half the time that `bytes.count` takes
# Every marker but those that stand alone: in a scan's data FF is followed by 0, another FF or the number of a restart.
_MARKER = re.compile(rb"\xff[\xc0-\xcf\xd9-\xfe]")
# Bits that decode to something else than what a decoder puts where nothing is left.
_NOISE = b"\x55"
# What is compared is smaller: of a progressive file less so, since what is missing there is its details.
_SCALE, _PROGRESSIVE_SCALE = 8, 2
# Rows that may be missing: a row of blocks and what their colour reaches, or a share of a large picture.
_BLOCK_ROWS, _SHARE = 24, 64


def check_scans(data: bytes) -> None:
    """Raise BadPicture where the first picture of a JPEG file has too many scans."""
    may_be_more = next(islice(_SCANS.finditer(data), MAX_SCANS, None), None)
    if may_be_more and (scans := _count_scans(data)) > MAX_SCANS:
        raise BadPicture(f"The image is a JPEG of {scans:,} scans: at most {MAX_SCANS} are accepted.")


def _count_scans(data: bytes) -> int:
    """Return how many scans begin before the first end; a segment's content, such as a thumbnail, is skipped."""
    scans, at = 0, 0
    while (found := _MARKER.search(data, at)) and found[0] != _END:
        scans += found[0] == _SCAN
        length = int.from_bytes(data[found.end() : found.end() + 2])
        at = found.end() + max(length, 2)  # libjpeg reads the length in any case
    return scans


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
