"""Pictures to ask about, and what is seen in pictures of the page."""

import io
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import Locator, Page, expect

# The line that the box is drawn with.
BOX_COLOUR = (0x1F, 0x5B, 0xBD)
Sides = tuple[float, float, float, float]


def picture(width: int = 400, height: int = 300, orientation: int | None = None) -> bytes:
    """A grey JPEG, with a camera's note of how it was held."""
    file = io.BytesIO()
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    Image.new("RGB", (width, height), (190, 190, 190)).save(file, "JPEG", exif=exif)
    return file.getvalue()


def choose(page: Page, content: bytes | None = None, name: str = "grey.jpg") -> None:
    """Choose a picture as with the file dialog."""
    page.set_input_files("#file", {"name": name, "mimeType": "image/jpeg", "buffer": content or picture()})
    expect(page.locator("#drop-title")).to_have_text(name)


def ask(page: Page, question: str = "What is it?") -> None:
    """Ask with the button, and wait for the answer."""
    page.fill("#question", question)
    page.click("#send")
    expect(page.locator("#answer")).to_be_visible()


def pixels(element: Locator) -> np.ndarray:
    """An element as it looks: height x width x 3."""
    return np.asarray(Image.open(io.BytesIO(element.screenshot(animations="disabled"))).convert("RGB")).astype(int)


def extent(seen: np.ndarray, colour: tuple[int, int, int], tolerance: int = 6) -> Sides:
    """Where a colour is: left, top, right, bottom as shares of the picture's width and height."""
    rows, columns = np.nonzero((np.abs(seen - np.array(colour)) <= tolerance).all(axis=2))
    assert rows.size, f"nothing has the colour {colour}"
    height, width = seen.shape[:2]
    return (
        columns.min() / width,
        rows.min() / height,
        (columns.max() + 1) / width,
        (rows.max() + 1) / height,
    )


def assert_drawn_at(page: Page, box: Any) -> None:
    """The box's line runs where the box is, to a few pixels: half its own width and what was rounded."""
    frame = page.locator(".framed")
    expect(frame.locator("svg")).to_be_visible()
    seen = pixels(frame)
    height, width = seen.shape[:2]
    found = extent(seen, BOX_COLOUR)
    off = [(found[side] - box[side]) * (width, height)[side % 2] for side in range(4)]
    assert max(map(abs, off)) <= 3, f"drawn at {found}, off by {off} pixels"
