"""Views: how large the encoder is shown a picture and a crop, in image tokens, by a family's rule of pixels to tokens.

Pictures are resized here, to sizes that the family's own processor leaves as they are: so it is known which pixels a
box of the shown picture means, and a picture is the same in every turn.
"""

import math
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from dualfocus_engine.families.boxes import Region, Size

_Tokens = Annotated[int, Field(gt=0)]
# Processors refuse pictures that are longer for their width than this.
_LONGEST_STRIP = 200
_UNLIMITED = 1 << 62


class _Cells(BaseModel):
    """A token for each cell of `cell` pixels a side."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cell: int = Field(gt=0, description="pixels a side: patch size times the patches that become one token")
    most: _Tokens

    @property
    def tokens_a_pixel(self) -> float:
        """Image tokens for each pixel that the encoder is shown."""
        return 1 / self.cell**2

    def tokens(self, size: Size) -> int:
        """Return the image tokens of a picture shown at `size`."""
        return (size[0] // self.cell) * (size[1] // self.cell)


class Grid(_Cells):
    """A token for each cell of `cell` pixels a side, the picture's sides rounded to whole cells (Qwen's smart_resize).

    `least`, `most` and `most_side` are what the processor allows; an engine puts those of the loaded one here.
    """

    kind: Literal["grid"]
    least: _Tokens = 1
    most_side: int | None = Field(default=None, gt=0, description="pixels of a side")
    rounds_up: bool = Field(default=False, description="a cell that a picture fills in part counts whole")
    frames: int = Field(
        default=1, gt=0, description="how often a picture counts where it is held to the pixels allowed"
    )

    def fit(self, size: Size, least: int, most: int) -> Size:
        """Return the size to show a picture of `size` at, its aspect kept: `least` to `most` tokens."""
        width, height = self._within_side(*(max(length, max(size) / _LONGEST_STRIP) for length in size))
        most = min(most, self.most)
        least = min(max(least, self.least), most)
        rounded = math.ceil if self.rounds_up else round
        columns, rows = (max(1, rounded(length / self.cell)) for length in (width, height))
        if columns * rows < least:
            scale = math.sqrt(least / (width * height))
            columns, rows = math.ceil(width * scale), math.ceil(height * scale)
        if columns * rows > most:
            scale = math.sqrt(most / (width * height))
            columns, rows = (max(1, math.floor(length * scale)) for length in (width, height))
            columns = min(columns, max(1, most // rows))
            rows = min(rows, most // columns)
        longest = (self.most_side or _UNLIMITED) // self.cell
        columns, rows = min(columns, rows * _LONGEST_STRIP, longest), min(rows, columns * _LONGEST_STRIP, longest)
        while columns * rows < self.least:  # rounded down too far: the processor would enlarge it its own way
            columns, rows = (columns + 1, rows) if columns > rows else (columns, rows + 1)
        return columns * self.cell, rows * self.cell

    def _within_side(self, width: float, height: float) -> tuple[float, float]:
        """Return the sides reduced so that the longer one is allowed, to whole pixels where they are."""
        scale = (self.most_side or math.inf) / max(width, height)
        return (width, height) if scale >= 1 else (math.floor(width * scale), math.floor(height * scale))

    def widened(self, region: Region, size: Size, most: int) -> Region:
        """Return the region to crop: a grid takes one of any aspect."""
        return region


class Tiles(BaseModel):
    """Tiles of `side` pixels in the grid whose aspect is nearest, and a small copy of the whole beside several.

    InternVL's rule: small pictures are enlarged to as many tiles as large ones of the same aspect.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["tiles"]
    side: int = Field(gt=0, description="pixels of a tile")
    tile_tokens: int = Field(gt=0, description="image tokens of a tile")
    most_tiles: int = Field(gt=0, description="tiles of a picture, the small copy not counted")

    @property
    def tokens_a_pixel(self) -> float:
        """Image tokens for each pixel that the encoder is shown."""
        return self.tile_tokens / self.side**2

    def tokens(self, size: Size) -> int:
        """Return the image tokens of a picture shown at `size`."""
        return self._tokens_of(size[0] // self.side * (size[1] // self.side))

    def fit(self, size: Size, least: int, most: int) -> Size:
        """Return the size to show a picture of `size` at: the grid of nearest aspect, of at most `most` tokens.

        Of two as near the larger is taken where the other has fewer than `least`, or it is less than twice the picture.
        """
        aspect, area = size[0] / size[1], size[0] * size[1]
        best = (1, 1)
        for columns, rows in self._grids(most):
            further = abs(aspect - columns / rows) - abs(aspect - best[0] / best[1])
            is_small = self._tokens_of(best[0] * best[1]) < least or 2 * area > self.side**2 * columns * rows
            if further < 0 or (further == 0 and is_small):
                best = columns, rows
        columns, rows = self._processed(*best)
        return columns * self.side, rows * self.side

    def widened(self, region: Region, size: Size, most: int) -> Region:
        """Return the region widened inside a picture of `size` to the aspect of the grid that takes the least for it.

        A region that is not widened may take a dozen tiles for its aspect alone.
        """
        regions = [_to_aspect(region, columns / rows, size) for columns, rows in self._grids(most)]
        return min(regions, key=lambda wide: (wide.right - wide.left) * (wide.bottom - wide.top))

    def _grids(self, most: int) -> Iterator[Size]:
        """Yield the grids, small ones first, that show a picture by at most `most` tokens; one tile always does."""
        for tiles in range(1, self.most_tiles + 1):
            grids = ((columns, tiles // columns) for columns in range(1, tiles + 1) if tiles % columns == 0)
            yield from (
                grid for grid in grids if tiles == 1 or self._tokens_of(math.prod(self._processed(*grid))) <= most
            )

    def _processed(self, columns: int, rows: int) -> Size:
        """Return the grid that the processor leaves as it is, of what is shown in this one.

        It takes a larger one of the same aspect where that has less than twice the tiles: (4, 4) for (3, 3).
        """
        unit = math.gcd(columns, rows)
        most = math.isqrt(self.most_tiles * unit**2 // (columns * rows))
        units = unit
        while (larger := min(math.isqrt(2 * units**2 - 1), most)) > units:
            units = larger
        return columns // unit * units, rows // unit * units

    def _tokens_of(self, tiles: int) -> int:
        return self.tile_tokens * (tiles + 1 if tiles > 1 else 1)


class Square(BaseModel):
    """Every picture as a square of `side` pixels and `square_tokens` image tokens, whatever its aspect."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["square"]
    side: int = Field(gt=0, description="pixels of the square")
    square_tokens: int = Field(gt=0, description="image tokens of a picture")

    @property
    def tokens_a_pixel(self) -> float:
        """Image tokens for each pixel that the encoder is shown."""
        return self.square_tokens / self.side**2

    def tokens(self, size: Size) -> int:
        """Return the image tokens of a picture: always as many."""
        return self.square_tokens

    def fit(self, size: Size, least: int, most: int) -> Size:
        """Return the one size there is."""
        return self.side, self.side

    def widened(self, region: Region, size: Size, most: int) -> Region:
        """Return the region squared inside a picture of `size`, so that it is not distorted."""
        return _to_aspect(region, 1.0, size)


class Budget(_Cells):
    """Every picture as many cells of `cell` pixels a side as a budget of `most` tokens holds, its aspect kept.

    Gemma 4's rule: small pictures are enlarged. Its processor changes some of the sizes that it made itself, so a
    picture is shown at one that it keeps: its own where it does, else the one of nearest aspect.
    """

    kind: Literal["budget"]

    def fit(self, size: Size, least: int, most: int) -> Size:
        """Return the size to show a picture of `size` at: always the one that fills the budget."""
        width, height = size
        filled = math.isqrt(self.most * width // height), math.isqrt(self.most * height // width)
        kept = _kept_grids(self.most)
        columns, rows = filled if filled in kept else min(kept, key=lambda grid: _distortion(grid, size))
        return columns * self.cell, rows * self.cell

    def widened(self, region: Region, size: Size, most: int) -> Region:
        """Return the region to crop: a budget is filled by one of any aspect."""
        return region


@cache
def _kept_grids(most: int) -> frozenset[Size]:
    """Return the columns and rows that fill a budget so that they are what is made of them again."""
    pairs = ((columns, rows) for columns in range(1, most + 1) for rows in range(1, most // columns + 1))
    return frozenset(
        (columns, rows)
        for columns, rows in pairs
        if most * columns < rows * (columns + 1) ** 2 and most * rows < columns * (rows + 1) ** 2
    )


def _distortion(grid: Size, size: Size) -> float:
    return abs(math.log(grid[0] * size[1] / (grid[1] * size[0])))


class View(BaseModel):
    """The image tokens that a picture may take; None: what the processor allows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    least: _Tokens | None = None
    most: _Tokens | None = None

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if self.least is not None and self.most is not None and self.least > self.most:
            raise ValueError(f"least ({self.least}) is more than most ({self.most})")
        return self


class Views(BaseModel):
    """What the encoder is shown of whole pictures and of crops, by a family's `rule`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rule: Annotated[Grid | Tiles | Square | Budget, Field(discriminator="kind")]
    whole: View = View()
    crop: View = View(least=256, most=1024)

    @property
    def are_fixed(self) -> bool:
        """Whether every picture is shown at the size that the processor makes, which no limit on its tokens changes."""
        return isinstance(self.rule, Square | Budget)

    def tokens(self, size: Size) -> int:
        """Return the image tokens of a picture shown at `size`."""
        return self.rule.tokens(size)

    def show_whole(self, size: Size, most: int | None = None) -> Size:
        """Return the size to show a whole picture of `size` at, of at most `most` tokens where that is less."""
        return self.rule.fit(size, self.whole.least or 1, _least_of(self.whole.most, most))

    def crop_region(self, region: Region, size: Size, most: int | None = None) -> Region:
        """Return the region to crop from a picture of `size`: a wider one where the rule shows its aspect badly."""
        return self.rule.widened(region, size, _least_of(self.crop.most, most))

    def show_crop(self, size: Size, whole_scale: float, most: int | None = None) -> Size:
        """Return the size to show a crop of `size` at, enlarged to the least tokens of a crop.

        It is also shown twice as large as in the whole picture, as far as its most tokens allow: `whole_scale` is how
        many pixels the encoder was shown there of one of the original's.
        """
        twice = math.ceil(_ENLARGED * whole_scale * math.prod(size) * self.rule.tokens_a_pixel)
        return self.rule.fit(size, max(self.crop.least or 1, twice), _least_of(self.crop.most, most))


# How much more area a crop is shown on than it has in the whole picture.
_ENLARGED = 2


def _least_of(*limits: int | None) -> int:
    return min((limit for limit in limits if limit is not None), default=_UNLIMITED)


def _to_aspect(region: Region, aspect: float, size: Size) -> Region:
    """Return the least region around `region` of that width to height, as far as a picture of `size` has room."""
    width, height = region.right - region.left, region.bottom - region.top
    left, right = _spread(region.left, region.right, max(width, round(height * aspect)), size[0])
    top, bottom = _spread(region.top, region.bottom, max(height, round(width / aspect)), size[1])
    return Region(left, top, right, bottom)


def _spread(start: int, end: int, length: int, limit: int) -> Sequence[int]:
    """Return where a stretch begins and ends that is widened to `length` on both sides, moved inside 0 to `limit`."""
    length = min(length, limit)
    first = min(max(start - (length - (end - start)) // 2, 0), limit - length)
    return first, first + length
