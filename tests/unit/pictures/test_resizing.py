"""What the encoder is shown is Pillow's picture, whoever resizes it."""

from collections.abc import Callable

import numpy as np
import pytest
from dualfocus_engine.pictures.resizing import resize
from PIL import Image

Photo = Callable[[str], Image.Image]


@pytest.mark.parametrize("name", ["coffee", "page", "rocket"])
@pytest.mark.parametrize("size", [(128, 128), (336, 336), (97, 640), (1500, 900)])
def test_it_is_pillows_picture(photo: Photo, name: str, size: tuple[int, int]) -> None:
    image = photo(name).convert("RGB")
    expected = np.asarray(image.resize(size, Image.Resampling.BICUBIC), int)
    difference = np.abs(np.asarray(resize(image, size), int) - expected)
    assert difference.max() <= 2
    assert (difference > 0).mean() < 0.01


def test_strips_and_single_pixels_are_resized() -> None:
    for size in ((1, 1), (1, 3000), (3000, 1)):
        assert resize(Image.new("RGB", size, (9, 8, 7)), (112, 112)).getcolors() == [(112 * 112, (9, 8, 7))]


def test_what_stands_beside_the_pixels_is_kept() -> None:
    image = Image.new("RGB", (50, 40))
    image.info["profile"] = b"waits"
    assert resize(image, (10, 8)).info == {"profile": b"waits"}
