"""One picture of how an answer was found: the box on the picture, the crop beside it, both answers below."""

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

from PIL import Image, ImageDraw, ImageFont

# Pixels. The sheet's width is fixed, and pictures are scaled to it: so the writing is as large on every sheet.
_MARGIN, _GAP, _PADDING = 24, 12, 14
_PICTURE, _CROP = (760, 640), (420, 420)
_TEXT_SIZE, _SMALL_SIZE = 22, 17
_LINE = 1.35
_WIDTH = _MARGIN + _PICTURE[0] + _MARGIN + _CROP[0] + _MARGIN
_MOST_LINES = 40
# Tried in this order: Linux's usual ones first, then those of macOS and Windows.
_FONTS = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "LiberationSans-Regular.ttf",
    "NotoSansCJK-Regular.ttc",
    "wqy-zenhei.ttc",
    "Arial Unicode.ttf",
    "arial.ttf",
    "msyh.ttc",
)
_INK, _QUIET, _PAPER, _CARD = "#1d2430", "#5d6675", "#ffffff", "#eef0f3"
_BOX, _WON, _WON_CARD = "#e0301e", "#1c7c54", "#dff3e8"

_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class _Block:
    """Lines of text in one font and colour; on a card, with a bar at its left, where it has a colour of its own."""

    lines: Sequence[tuple[str, _Font, str]]
    card: str = _PAPER
    bar: str = _PAPER

    @property
    def height(self) -> int:
        return sum(_line_height(font) for _, font, _ in self.lines) + 2 * _PADDING


def perplexity_text(perplexity: float | None) -> str:
    """Return a perplexity as it is read; an answer without a token, whose is infinite, has none in JSON."""
    return "∞" if perplexity is None else f"{perplexity:.3g}"


def draw_sheet(picture: Image.Image, question: str, completion: dict[str, Any]) -> Image.Image:
    """Draw a chat completion's answers below its RGB picture; without a `dualfocus` field, the answer alone."""
    focus = completion.get("dualfocus") or {}
    panels = [(_with_box(_fitted(picture, _PICTURE), focus.get("box")), _MARGIN)]
    if focus.get("crop"):
        panels.append((_fitted(picture.crop(focus["crop"]), _CROP), 2 * _MARGIN + panels[0][0].width))
    blocks = list(_blocks(question, completion, focus))
    top = 2 * _MARGIN + max(panel.height for panel, _ in panels)
    sheet = Image.new("RGB", (_WIDTH, top + sum(block.height + _GAP for block in blocks) + _GAP), _PAPER)
    for panel, left in panels:
        sheet.paste(panel, (left, _MARGIN))
    for block in blocks:
        _write(ImageDraw.Draw(sheet), block, top)
        top += block.height + _GAP
    return sheet


def _fitted(image: Image.Image, bounds: tuple[int, int]) -> Image.Image:
    scale = min(bounds[0] / image.width, bounds[1] / image.height)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0 if scale < 1 else None)


def _with_box(panel: Image.Image, box: Sequence[float] | None) -> Image.Image:
    """Draw the box's outline outside of what it holds, between lines of white that set it off any ground."""
    if box is None:
        return panel
    draw = ImageDraw.Draw(panel)
    left, top, right, bottom = (round(s * side) for s, side in zip(box, 2 * panel.size, strict=True))
    for out, width, colour in ((5, 5, "white"), (4, 3, _BOX)):
        draw.rectangle((left - out, top - out, right + out, bottom + out), outline=colour, width=width)
    return panel


def _blocks(question: str, completion: dict[str, Any], focus: dict[str, Any]) -> Iterator[_Block]:
    yield _Block(list(_wrapped(question, _QUIET)))
    looks = [(name, focus[name]) for name in ("macro", "micro") if focus.get(name)]
    for name, answer in looks:
        yield _answer(name, answer, focus)
    if not looks:
        yield _Block(list(_wrapped(completion["choices"][0]["message"]["content"] or "", _INK)), _CARD)
    elif not focus.get("box"):
        yield _Block([("no box", _font_for("no box", _SMALL_SIZE), _QUIET)])


def _answer(name: str, answer: dict[str, Any], focus: dict[str, Any]) -> _Block:
    won = focus["winner"] == name
    chosen = f", chosen ({focus['selection']})" if won else ""
    head = f"{name}, perplexity {perplexity_text(answer['perplexity'])}{chosen}"
    lines = [(head, _font_for(head, _SMALL_SIZE), _WON if won else _QUIET), *_wrapped(answer["text"], _INK)]
    return _Block(lines, _WON_CARD if won else _CARD, _WON if won else _CARD)


def _write(draw: ImageDraw.ImageDraw, block: _Block, top: int) -> None:
    draw.rectangle((_MARGIN, top, _WIDTH - _MARGIN, top + block.height), fill=block.card)
    draw.rectangle((_MARGIN, top, _MARGIN + 6, top + block.height), fill=block.bar)
    top += _PADDING
    for text, font, colour in block.lines:
        draw.text((_MARGIN + 6 + _PADDING, top), text, fill=colour, font=font)
        top += _line_height(font)


def _line_height(font: _Font) -> int:
    return round(_LINE * getattr(font, "size", _TEXT_SIZE))


def _wrapped(text: str, colour: str) -> Iterator[tuple[str, _Font, str]]:
    """Break a text into lines that fit the sheet, at most `_MOST_LINES` of them."""
    shown = _writable(text).strip() or "(empty)"
    font = _font_for(shown, _TEXT_SIZE)
    width = _WIDTH - 2 * _MARGIN - 6 - 2 * _PADDING
    for number, line in enumerate(line for part in shown.splitlines() for line in _broken(part, font, width)):
        if number == _MOST_LINES:
            yield "…", font, colour
            return
        yield line, font, colour


def _broken(text: str, font: _Font, width: int) -> Iterator[str]:
    """Break a line between words; a word that is too long, where it has to be."""
    line = ""
    for word in re.findall(r"\s*\S+", text) or [""]:
        if font.getlength(line + word) <= width:
            line += word
            continue
        if line:
            yield line
        line = word.lstrip()
        while font.getlength(line) > width:
            fits = _fitting(line, font, width)
            yield line[:fits]
            line = line[fits:]
    yield line


def _fitting(text: str, font: _Font, width: int) -> int:
    """Return how many of a text's characters fit, at least one."""
    counts = range(1, len(text) + 1)
    return max(1, bisect_right(counts, float(width), key=lambda count: float(font.getlength(text[:count]))))


def _writable(text: str) -> str:
    """Replace what no font can draw (control characters, halves of characters) by blanks."""
    return "".join(c if c == "\n" or unicodedata.category(c) not in ("Cc", "Cs", "Cn") else " " for c in text)


def _font_for(text: str, size: int) -> _Font:
    """Return the installed font that lacks the fewest of a text's characters; Pillow's own has few but ASCII's."""
    characters = {character for character in text if not character.isspace()}
    return min(_fonts(size), key=lambda font: sum(_lacks(font, character) for character in characters))


@cache
def _fonts(size: int) -> list[_Font]:
    found: list[_Font] = []
    for name in _FONTS:
        with suppress(OSError):
            found.append(ImageFont.truetype(name, size))
    return [*found, ImageFont.load_default(size)]


def _lacks(font: _Font, character: str) -> bool:
    return _drawn(font, character) == _drawn(font, "\U0010ffff")


@cache
def _drawn(font: _Font, character: str) -> bytes:
    return bytes(font.getmask(character))
