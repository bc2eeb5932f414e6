"""JSON files larger than memory, read an item at a time."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

_CHUNK = 1 << 20


def items(path: Path) -> Iterator[Any]:
    """The items of a file that holds one JSON array.

    Raises ValueError naming the file where it holds no array, or where it ends too early.
    """
    decoder = json.JSONDecoder()
    with path.open(encoding="utf-8") as file:
        text = file.read(_CHUNK).lstrip()
        if not text.startswith("["):
            raise ValueError(f"{path.name} holds no JSON array")
        text = text[1:]
        while True:
            text = _after_comma(text, file, path)
            if text.startswith("]"):
                return
            item, text = _next_item(decoder, text, file, path)
            yield item


def _after_comma(text: str, file: TextIO, path: Path) -> str:
    """The text from the next item, or from the array's end."""
    while not (rest := text.lstrip().removeprefix(",").lstrip()):
        more = file.read(_CHUNK)
        if not more:
            raise ValueError(f"{path.name} ends before its array does")
        text += more
    return rest


def _next_item(decoder: json.JSONDecoder, text: str, file: TextIO, path: Path) -> tuple[Any, str]:
    """Decode one item, reading on until it is whole."""
    while True:
        try:
            item, end = decoder.raw_decode(text)
        except json.JSONDecodeError:
            item, end = None, 0
        # An item that ends where the text does may be a number cut in two.
        if end and end < len(text):
            return item, text[end:]
        more = file.read(max(_CHUNK, len(text)))
        if not more:
            raise ValueError(f"{path.name} ends before its array does")
        text += more
