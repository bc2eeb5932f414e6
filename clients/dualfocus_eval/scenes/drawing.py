"""Scenes as pictures: textured ground, shapes and print, with Pillow's own font."""

from dataclasses import replace
from functools import lru_cache

from PIL import Image, ImageDraw, ImageFont, ImageOps

from dualfocus_eval.scenes.layout import COLOURS, Background, Extent, Print, Rgb, Scene

# A digit of Pillow's bundled font is this share of the font's size high.
_DIGIT_SHARE = 0.71


def draw(scene: Scene, region: Extent | None = None, scale: float = 1.0) -> Image.Image:
    """The scene as an RGB picture of `scene.width` x `scene.height` pixels.

    With a `region` (left, top, right, bottom, pixels) what such a picture's crop shows, without drawing the rest of it;
    with a `scale` all so many times as large.
    """
    left, top, right, bottom = region or (0, 0, scene.width, scene.height)
    size = round((right - left) * scale), round((bottom - top) * scale)
    shares = left / scene.width, top / scene.height, right / scene.width, bottom / scene.height
    picture = _ground(scene.background, size, shares)
    pen = ImageDraw.Draw(picture)
    for shape in scene.shapes:
        pen.polygon([((x - left) * scale, (y - top) * scale) for x, y in shape.outline], fill=shape.rgb)
        (x, y), mark = shape.print.centre, shape.print
        moved = replace(mark, centre=((x - left) * scale, (y - top) * scale), height=mark.height * scale)
        _draw_print(pen, moved, shape.rgb)
    return picture


def owners(scene: Scene, region: Extent, side: int) -> Image.Image:
    """Which shape each pixel shows: a `side` x `side` "L" map, 0 for ground, n for shape n - 1.

    `region` (left, top, right, bottom, pixels) is padded to a centred square like any image.
    """
    x, y, square = padded_square(region)
    scale = side / square
    mask = Image.new("L", (side, side))
    pen = ImageDraw.Draw(mask)
    for number, shape in enumerate(scene.shapes, start=1):
        pen.polygon([((px - x) * scale, (py - y) * scale) for px, py in shape.outline], fill=number)
    return mask


def padded_square(region: Extent) -> tuple[float, float, float]:
    """Left, top and side, in pixels, of the square that a region is padded to."""
    left, top, right, bottom = region
    side = max(right - left, bottom - top)
    return left - (side - (right - left)) / 2, top - (side - (bottom - top)) / 2, side


def _ground(background: Background, size: tuple[int, int], shares: Extent) -> Image.Image:
    """The part of the ground within `shares` (left, top, right, bottom) of the picture, at `size`."""
    if background.texture == "plain":
        return Image.new("RGB", size, background.light)
    cells = (background.columns, background.columns)
    grain = Image.frombytes("L", cells, background.grain)
    smooth = Image.Resampling.BICUBIC if background.texture == "clouds" else Image.Resampling.BOX
    if background.texture == "stripes":
        grain = grain.crop((0, 0, background.columns, 1))
    if background.texture == "checks":
        grain = _checks(background.columns)
    if background.texture == "grain":
        grain = grain.resize((background.columns * 3, background.columns * 3), smooth)
    left, top, right, bottom = shares
    part = left * grain.width, top * grain.height, right * grain.width, bottom * grain.height
    return ImageOps.colorize(grain, background.dark, background.light).resize(size, smooth, part)


def _checks(columns: int) -> Image.Image:
    bits = bytes(255 * ((x + y) % 2) for y in range(columns) for x in range(columns))
    return Image.frombytes("L", (columns, columns), bits)


def _draw_print(pen: ImageDraw.ImageDraw, mark: Print, ground: Rgb) -> None:
    x, y = mark.centre
    if mark.kind == "dot":
        reach = mark.height / 2
        pen.ellipse((x - reach, y - reach, x + reach, y + reach), fill=COLOURS[mark.text])
        return
    ink = (0, 0, 0) if _luminance(ground) > 120 else (255, 255, 255)
    pen.text((x, y), mark.text, fill=ink, font=_font(max(1, round(mark.height / _DIGIT_SHARE))), anchor="mm")


def _luminance(colour: Rgb) -> float:
    red, green, blue = colour
    return 0.299 * red + 0.587 * green + 0.114 * blue


@lru_cache(maxsize=64)
def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size=size)
