"""JPEGs as cameras and pages send them: no two have the same bytes, and few have to be drawn."""

import base64
import io
from functools import cache

from PIL import Image

from loadtests.asking.questions import asked

# By name: width, height and Pillow's quality. The larger one has a megabyte.
SIZES = {"800 x 600": (800, 600, 90), "2400 x 1800": (2400, 1800, 90)}
_DRAWN = 16
# Grain, as sensors have it: a drawn scene alone packs into a tenth of a photo's bytes.
_GRAIN, _GRAIN_SHARE = 60, 0.15
_AFTER_START = 2  # bytes of a JPEG's first marker, behind which a comment may stand


def jpeg_url(size: str, number: int) -> str:
    """Return a JPEG as a data: URL; its comment holds its number, so that no cache knows it."""
    drawn, text = _jpeg(size, number % _DRAWN), str(number).encode()
    comment = b"\xff\xfe" + (len(text) + 2).to_bytes(2, "big") + text
    data = drawn[:_AFTER_START] + comment + drawn[_AFTER_START:]
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"


@cache
def _jpeg(size: str, number: int) -> bytes:
    width, height, quality = SIZES[size]
    scene = asked(number).picture.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
    grain = Image.effect_noise((width, height), _GRAIN).convert("RGB")
    written = io.BytesIO()
    Image.blend(scene, grain, _GRAIN_SHARE).save(written, "JPEG", quality=quality)
    return written.getvalue()
