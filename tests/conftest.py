"""What all tests share: photos that libraries carry inside their wheels."""

import io
import os
from collections.abc import Callable

import pytest
from PIL import Image
from skimage import data

# Tests run side by side, and their models are small: an engine gets one core, as on the smallest machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def photo() -> Callable[[str], Image.Image]:
    """Photos by their name in `skimage.data` (astronaut, chelsea, coffee, camera, …)."""

    def by_name(name: str) -> Image.Image:
        return Image.fromarray(getattr(data, name)())

    return by_name


@pytest.fixture(scope="session")
def jpeg(photo: Callable[[str], Image.Image]) -> Callable[[str], bytes]:
    """The same photos as the bytes of a JPEG file."""

    def by_name(name: str) -> bytes:
        buffer = io.BytesIO()
        photo(name).convert("RGB").save(buffer, "JPEG", quality=95)
        return buffer.getvalue()

    return by_name
