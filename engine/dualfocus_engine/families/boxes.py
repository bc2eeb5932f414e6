"""Boxes, and which pixels one means."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

Size = tuple[int, int]  # width and height in pixels


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

    @classmethod
    def around(cls, boxes: Iterable["Box"]) -> "Box":
        """Return the least box that holds all of some, of which there is at least one."""
        lefts, tops, rights, bottoms = zip(*(box.as_tuple() for box in boxes), strict=True)
        return cls(min(lefts), min(tops), max(rights), max(bottoms))

    def within(self, region: "Region", size: Size) -> "Box":
        """Return the box, which is one of a region's, as one of the whole image of `size`."""
        (left, top, right, bottom), (width, height) = region, size
        across, down = right - left, bottom - top
        return Box(
            (left + self.x1 * across) / width,
            (top + self.y1 * down) / height,
            (left + self.x2 * across) / width,
            (top + self.y2 * down) / height,
        )

    def clipped(self, region: "Region", size: Size) -> "Box":
        """Return what of the box, which is one of the whole image of `size`, lies in a region; empty where nothing."""
        left, top, right, bottom = region
        across, down = (left / size[0], right / size[0]), (top / size[1], bottom / size[1])
        x1, x2 = (min(max(x, across[0]), across[1]) for x in (self.x1, self.x2))
        y1, y2 = (min(max(y, down[0]), down[1]) for y in (self.y1, self.y2))
        return Box(x1, y1, x2, y2)

    def of(self, region: "Region", size: Size) -> "Box":
        """Return the box, which is one of the whole image of `size`, as one of a region's."""
        (left, top, right, bottom), (width, height) = region, size
        across, down = right - left, bottom - top
        return Box(
            (self.x1 * width - left) / across,
            (self.y1 * height - top) / down,
            (self.x2 * width - left) / across,
            (self.y2 * height - top) / down,
        )

    @property
    def area(self) -> float:
        """Its share of the image; 0 where it is empty."""
        return max(self.x2 - self.x1, 0.0) * max(self.y2 - self.y1, 0.0)

    def overlap(self, other: "Box") -> float:
        """Return the area that two boxes have in common as a share of what both cover, 0 to 1."""
        x1, y1, x2, y2 = zip(self.as_tuple(), other.as_tuple(), strict=True)
        common = Box(max(x1), max(y1), min(x2), min(y2)).area
        covered = self.area + other.area - common
        return common / covered if covered > 0 else float(self == other)

    def overlaps(self, other: "Box") -> bool:
        """Whether two boxes have area in common."""
        return max(self.x1, other.x1) < min(self.x2, other.x2) and max(self.y1, other.y1) < min(self.y2, other.y2)


class Region(NamedTuple):
    """A rectangle in whole pixels of the original image; `right` and `bottom` are the first ones outside."""

    left: int
    top: int
    right: int
    bottom: int

    @classmethod
    def around(cls, regions: Iterable["Region"]) -> "Region":
        """Return the least region that holds all of some, of which there is at least one."""
        lefts, tops, rights, bottoms = zip(*regions, strict=True)
        return cls(min(lefts), min(tops), max(rights), max(bottoms))

    @property
    def area(self) -> int:
        """Its pixels."""
        return (self.right - self.left) * (self.bottom - self.top)


class CropPolicy(BaseModel):
    """How a box becomes a crop: squared around its centre or not, then widened on every side."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    square: bool = True
    margin: int = Field(default=25, ge=0, description="pixels of the original image, on every side")
    margin_share: float = Field(
        default=0.0, ge=0, le=1, description="more on every side: a share of the image's width or height"
    )
    least_side: int = Field(
        default=0,
        ge=0,
        description="pixels of the original image that a side has at least; 0: a box without area has none",
    )
    edges: Literal["whole", "released"] = Field(
        default="whole",
        description="released: clipped as by the released code, so the image's last row and column are in no crop, and "
        "a box without area has the margin's; only one whose corners all lie within a pixel of 0 is none",
    )

    def takes(self, box: Box) -> bool:
        """Whether a box may have a crop: one without area has none, unless sides have a least length."""
        return self.edges == "released" or self.least_side > 0 or not box.is_empty


def crop_region(box: Box, size: Size, policy: CropPolicy) -> Region | None:
    """Return the pixels to crop for `box` in an image of `size` (width, height), or None where none are left.

    The released code's order: square around the centre, clip, widen, clip, truncate to integers. Its bounds, a pixel
    short of the image's, are those of `edges: released` alone.
    """
    width, height = size
    corners = box.x1 * width, box.y1 * height, box.x2 * width, box.y2 * height
    if policy.edges == "released":
        if max(corners) <= 1:
            return None
        size = width - 1, height - 1
    if policy.square:
        corners = _squared(*corners)
    if policy.least_side:
        corners = _grown(*corners, policy.least_side)
    left, top, right, bottom = _clipped(*corners, size)
    x, y = (policy.margin + policy.margin_share * length for length in size)
    region = Region(*(int(corner) for corner in _clipped(left - x, top - y, right + x, bottom + y, size)))
    return region if region.right > region.left and region.bottom > region.top else None


_Corners = tuple[float, float, float, float]


def _squared(left: float, top: float, right: float, bottom: float) -> _Corners:
    x, y, half = (left + right) / 2, (top + bottom) / 2, max(right - left, bottom - top) / 2
    return x - half, y - half, x + half, y + half


def _grown(left: float, top: float, right: float, bottom: float, least: int) -> _Corners:
    """Return the corners with sides of `least` pixels or more, around the same centre."""
    x, y = max(least - (right - left), 0.0) / 2, max(least - (bottom - top), 0.0) / 2
    return left - x, top - y, right + x, bottom + y


def _clipped(left: float, top: float, right: float, bottom: float, size: Size) -> _Corners:
    width, height = (float(length) for length in size)
    left, right = (min(max(x, 0.0), width) for x in (left, right))
    top, bottom = (min(max(y, 0.0), height) for y in (top, bottom))
    return left, top, right, bottom
