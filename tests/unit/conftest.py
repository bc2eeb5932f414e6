"""Photos that ship inside scikit-image and scikit-learn: real pictures, without a download."""

import numpy as np
import pytest
from PIL import Image
from skimage import data
from sklearn.datasets import load_sample_image


def _photo(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels)


@pytest.fixture(scope="session")
def astronaut() -> Image.Image:
    """512 x 512, RGB."""
    return _photo(data.astronaut())


@pytest.fixture(scope="session")
def chelsea() -> Image.Image:
    """451 x 300, RGB: a cat."""
    return _photo(data.chelsea())


@pytest.fixture(scope="session")
def coffee() -> Image.Image:
    """600 x 400, RGB."""
    return _photo(data.coffee())


@pytest.fixture(scope="session")
def camera() -> Image.Image:
    """512 x 512, greyscale."""
    return _photo(data.camera())


@pytest.fixture(scope="session")
def china() -> Image.Image:
    """640 x 427, RGB: a temple."""
    return _photo(load_sample_image("china.jpg"))
