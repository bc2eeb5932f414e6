"""Boxes in pictures: what a question is about, and where a server looked."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle as shares of the picture's width and height, 0 to 1, from the top left corner."""

    x1: float
    y1: float
    x2: float
    y2: float

    @property
    def area(self) -> float:
        """Its share of the picture; 0 where a side has no length or is turned inside out."""
        return max(0.0, self.x2 - self.x1) * max(0.0, self.y2 - self.y1)

    def as_tuple(self) -> tuple[float, float, float, float]:
        """The box as (x1, y1, x2, y2)."""
        return self.x1, self.y1, self.x2, self.y2

    def shared_with(self, other: "Box") -> "Box":
        """The part that both cover; its area is 0 where they don't meet."""
        return Box(max(self.x1, other.x1), max(self.y1, other.y1), min(self.x2, other.x2), min(self.y2, other.y2))


def overlap(one: Box, other: Box) -> float:
    """Intersection over union of two boxes."""
    shared = one.shared_with(other).area
    return shared / max(one.area + other.area - shared, 1e-9)
