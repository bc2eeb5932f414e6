"""Boxes: how a model writes one, and which pixels it means."""

import re
from dataclasses import dataclass
from typing import Annotated, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator

_CORNERS = ("x1", "y1", "x2", "y2")


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle as shares of the original image's width and height, 0 to 1, from the top left corner."""

    x1: float
    y1: float
    x2: float
    y2: float

    @property
    def is_empty(self) -> bool:
        """Whether the box holds no area (a side of no length, or turned inside out)."""
        return self.x2 <= self.x1 or self.y2 <= self.y1

    def as_tuple(self) -> tuple[float, float, float, float]:
        """The box as (x1, y1, x2, y2)."""
        return self.x1, self.y1, self.x2, self.y2


class Region(NamedTuple):
    """A rectangle in whole pixels of the original image; `right` and `bottom` are the first ones outside."""

    left: int
    top: int
    right: int
    bottom: int


def _compiles(pattern: str) -> str:
    try:
        re.compile(pattern)
    except (re.error, OverflowError) as error:
        raise ValueError(f"{pattern!r} is not a valid regular expression: {error}") from error
    return pattern


Regex = Annotated[str, AfterValidator(_compiles)]
# Any box whose corners can't be taken for each other, even where the format has only a few steps.
_SAMPLE = Box(0.125, 0.375, 0.625, 0.875)
_COARSEST = 0.1


class CropPolicy(BaseModel):
    """How a box becomes a crop: squared around its centre or not, then widened by `margin` pixels a side."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    square: bool = True
    margin: int = Field(default=25, ge=0, description="pixels of the original image, on every side")


class BoxFormat(BaseModel):
    """How a model writes a box: data, one per family."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pattern: Regex = Field(description="a regular expression with the groups x1, y1, x2, y2")
    scale: float = Field(default=1.0, gt=0, description="the number that means the whole width or height")
    grammar: Regex | None = Field(
        default=None,
        description="a regular expression the grounding turn is held to; none lets it write freely",
    )
    # Last, since it is tried on the others.
    template: str = Field(description="a format string of x1, y1, x2, y2, in units of 1/scale of the image")

    @field_validator("pattern")
    @classmethod
    def _has_corners(cls, pattern: str) -> str:
        missing = set(_CORNERS) - set(re.compile(pattern).groupindex)
        if missing:
            raise ValueError(f"the pattern has no group named {', '.join(sorted(missing))}")
        return pattern

    @field_validator("template")
    @classmethod
    def _reads_back(cls, template: str, others: ValidationInfo) -> str:
        if not {"pattern", "scale"} <= set(others.data):
            return template  # they are complained about themselves
        try:
            written = _written(template, _SAMPLE, others.data["scale"])
            read = _read(others.data["pattern"], written, others.data["scale"])
        except (LookupError, ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"the template can't write a box that reads back: {error}") from error
        if read is None or not _alike(read, _SAMPLE):
            raise ValueError(f"the template writes {written!r}, which the pattern reads as another box or none")
        return template

    def write(self, box: Box) -> str:
        """Write a box the way the model does."""
        return _written(self.template, box, self.scale)

    def read(self, text: str) -> Box | None:
        """Read the first box in `text`, clipped to the image; None where there is none.

        The box may be empty (`Box.is_empty`): that is the caller's to judge.
        """
        return _read(self.pattern, text, self.scale)


def _written(template: str, box: Box, scale: float) -> str:
    corners = zip(_CORNERS, box.as_tuple(), strict=True)
    return template.format(**{name: share * scale for name, share in corners})


def _read(pattern: str, text: str, scale: float) -> Box | None:
    found = re.search(pattern, text)
    return None if found is None else Box(*(_share(found[name], scale) for name in _CORNERS))


def _alike(one: Box, other: Box) -> bool:
    return all(abs(a - b) < _COARSEST for a, b in zip(one.as_tuple(), other.as_tuple(), strict=True))


def _share(number: str, scale: float) -> float:
    return min(max(float(number) / scale, 0.0), 1.0)


def crop_region(box: Box, size: tuple[int, int], policy: CropPolicy) -> Region | None:
    """Return the pixels to crop for `box` in an image of `size` (width, height), or None where none are left.

    The released code's order: square around the centre, clip, widen, clip, truncate to integers.
    """
    width, height = size
    left, top, right, bottom = box.x1 * width, box.y1 * height, box.x2 * width, box.y2 * height
    if policy.square:
        left, top, right, bottom = _squared(left, top, right, bottom)
    left, top, right, bottom = _clipped(left, top, right, bottom, size)
    margin = policy.margin
    corners = _clipped(left - margin, top - margin, right + margin, bottom + margin, size)
    region = Region(*(int(corner) for corner in corners))
    return region if region.right > region.left and region.bottom > region.top else None


_Corners = tuple[float, float, float, float]


def _squared(left: float, top: float, right: float, bottom: float) -> _Corners:
    x, y, half = (left + right) / 2, (top + bottom) / 2, max(right - left, bottom - top) / 2
    return x - half, y - half, x + half, y + half


def _clipped(left: float, top: float, right: float, bottom: float, size: tuple[int, int]) -> _Corners:
    width, height = size
    return max(left, 0.0), max(top, 0.0), min(right, float(width)), min(bottom, float(height))
