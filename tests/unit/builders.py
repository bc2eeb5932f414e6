"""Small makers of what the tests need: turns, encoded images, questions."""

import base64
import io
import math
from typing import Any

import numpy as np
from dualfocus_engine.method.questions import Message
from dualfocus_engine.method.results import Turn
from dualfocus_engine.pictures.pictures import Picture, open_picture
from PIL import Image

ORIENTATION = 0x0112  # EXIF's
CLOSING = 0  # the closing token of the conversations made here


def turn(text: str = "an answer", mean_nll: float = 1.0, **given: Any) -> Turn:
    """A turn that said `text` at `mean_nll` nats a token: two text tokens and a closing one."""
    values: dict[str, Any] = {
        "text": text,
        "token_ids": (11, 12, CLOSING),
        "logprobs": (-mean_nll, -mean_nll, -mean_nll),
        "finish_reason": "stop",
        "prompt_token_ids": tuple(range(10)),
        "cached_tokens": 0,
        "encoder_runs": 1,
        "engine_steps": 3,
        "seconds": 0.5,
    }
    return Turn(**(values | given))


def perplexity_by_hand(logprobs: list[float]) -> float:
    """Eq. 7 as it is written."""
    return math.exp(-sum(logprobs) / len(logprobs))


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """The bytes of a file with the image in it."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def stored_as(upright: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels as a camera stores them, by EXIF's definition of where row 0 and column 0 are."""
    return {
        1: upright,  # top, left
        2: upright[:, ::-1],  # top, right
        3: upright[::-1, ::-1],  # bottom, right
        4: upright[::-1],  # bottom, left
        5: upright.transpose(1, 0, 2),  # left, top
        6: np.rot90(upright, 1),  # right, top
        7: upright[::-1, ::-1].transpose(1, 0, 2),  # right, bottom
        8: np.rot90(upright, -1),  # left, bottom
    }[orientation]


def oriented(photo: Image.Image, orientation: int, kind: str) -> bytes:
    """The bytes of a file that stores a photo turned, and says so."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    stored = Image.fromarray(np.ascontiguousarray(stored_as(np.asarray(photo), orientation)))
    return encoded(stored, kind, exif=exif, **({"quality": 95} if kind == "JPEG" else {}))


def data_url(image: bytes) -> str:
    """The bytes of a file as a data: URL."""
    return f"data:application/octet-stream;base64,{base64.b64encode(image).decode()}"


def plain(colour: tuple[int, int, int] = (200, 30, 30), size: tuple[int, int] = (100, 80)) -> Picture:
    """A picture of one colour."""
    return open_picture(Image.new("RGB", size, colour))


def asked(text: str = "What colour is the cup?", *pictures: Picture) -> Message:
    """A user's turn about pictures (one plain picture where none is given)."""
    return Message("user", text, pictures or (plain(),))
