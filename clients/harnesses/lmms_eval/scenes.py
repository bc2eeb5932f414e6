"""Drawn scenes for lmms-eval: the picture of a question, and whether a reply is its answer."""

from pathlib import Path
from typing import Any

from PIL import Image

_FOLDER = Path("scenes")


def picture(question: dict[str, Any]) -> list[Image.Image]:
    """Return the question's picture."""
    return [Image.open(_FOLDER / question["image"]).convert("RGB")]


def score(question: dict[str, Any], replies: list[str]) -> dict[str, float]:
    """Return 1 where the reply is the answer, but for case and outer blanks."""
    return {"accuracy": float(replies[0].strip().casefold() == question["answer"].casefold())}
