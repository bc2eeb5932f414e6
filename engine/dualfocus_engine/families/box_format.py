"""How a model writes a box, as data: its words, its units, and how it is read back."""

import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator

from dualfocus_engine.families.boxes import Box, Size
from dualfocus_engine.families.patterns import Regex, all_groups, compiled

_Several = Literal["first", "largest", "union"]
_CORNERS = ("x1", "y1", "x2", "y2")
_POINT = ("x", "y")
# What {corners} and {point} stand for in a pattern: numbers of at most five digits, apart by commas, spaces, brackets.
_NUMBER = r"(?<![\d.])(?P<%s>-?(?:\d{1,5}(?:\.\d{1,6})?|\.\d{1,6}))(?!\d|\.\d)"
_WITHIN, _BETWEEN = r"(?:\s{0,9},\s{0,9}|\s{1,9})", r"[\s,()\[\]]{1,9}"
# Any box whose corners can't be taken for each other, even where the format has only a few steps.
_SAMPLE = Box(0.125, 0.375, 0.625, 0.875)
_COARSEST = 0.1
# What a picture is taken to measure where a box in pixels is written as a sample.
_SAMPLE_SIZE = (1000, 1000)
_MOST_BOXES = 16


def _as_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


class BoxFormat(BaseModel):
    """How a model writes a box: data, one per family.

    In a pattern `{corners}` stands for four numbers in the order that `order` says, `{point}` for x and y.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    order: Literal["xyxy", "yxyx"] = Field(default="xyxy", description="which of {corners} come first")
    pattern: Annotated[tuple[str, ...], BeforeValidator(_as_tuple)] = Field(
        min_length=1,
        description="a regular expression with the groups x1, y1, x2, y2 (a box) or x, y (a point), or {corners}, "
        "{point}; several are tried in order",
    )
    scale: Annotated[float, Field(gt=0)] | Literal["pixels"] = Field(
        default=1.0, description="the number that means the whole width or height; pixels: of the picture as shown"
    )
    point_side: float = Field(
        default=0.3, gt=0, le=1, description="a point is the centre of a square: this share of the shorter side"
    )
    several: _Several = Field(default="first", description="what is taken of several boxes; union: what holds them all")
    lists: bool = Field(
        default=True,
        description="mode regions: each of several boxes is a region of its own; false: `several` holds there too, for "
        "a model that was trained to write one box around all",
    )
    after_crop: Literal["crop", "original"] = Field(
        default="crop", description="mode search: what a box that is written behind a crop is of"
    )
    sort_corners: bool = Field(
        default=False, description="read a box whose right is left of its left as the one between the two"
    )
    read_after: str = Field(
        default="</think>",
        description="what stands before this in the text is not read; nor is what follows the same without its slash",
    )
    keep_special_tokens: bool = Field(
        default=False, description="read special tokens too, where the model writes its boxes with them"
    )
    opening: str = Field(default="", description="how a reply with one box begins: put into the prompt, not generated")
    stop: str | None = Field(default=None, description="what ends the box; what follows is not generated")
    closing: str = Field(
        default="", description="how the reply ends behind a box that was stopped, with the stop itself"
    )
    grammar: Regex | None = Field(
        default=None,
        description="a regular expression the grounding turn is held to; none lets it write freely",
    )
    list_grammar: Regex | None = Field(
        default=None, description="the same in mode regions, where several boxes may be written; none takes grammar"
    )
    # Last, since it is tried on the others.
    template: str = Field(description="a format string of x1, y1, x2, y2, in units of 1/scale of the image")

    @field_validator("pattern")
    @classmethod
    def _has_numbers(cls, patterns: tuple[str, ...], others: ValidationInfo) -> tuple[str, ...]:
        order = others.data.get("order", "xyxy")  # a wrong one is complained about itself
        return tuple(_with_numbers(_expanded(pattern, order)) for pattern in patterns)

    @field_validator("closing")
    @classmethod
    def _closes(cls, closing: str, others: ValidationInfo) -> str:
        if not closing.startswith(others.data.get("stop") or ""):
            raise ValueError("closing does not begin with what stop is: it is appended in its place")
        return closing

    @field_validator("template")
    @classmethod
    def _reads_back(cls, template: str, others: ValidationInfo) -> str:
        if not {"pattern", "scale"} <= set(others.data):
            return template  # they are complained about themselves
        tried = cls.model_construct(**(others.data | {"template": template}))
        try:
            written = tried.write(_SAMPLE)
            read = tried.read(written)
        except (LookupError, ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"the template can't write a box that reads back: {error}") from error
        if not written.startswith(tried.opening) or not written.endswith(tried.closing):
            raise ValueError(f"the template writes {written!r}, which does not begin with opening and end with closing")
        if read is None or not tried._is_near(read, _SAMPLE):
            raise ValueError(f"the template writes {written!r}, which the pattern reads as another box or none")
        return template

    def write(self, box: Box, shown: Size = _SAMPLE_SIZE) -> str:
        """Write a box the way the model does; `shown` is the size of the picture as the model sees it, in pixels."""
        width, height = self._units(shown)
        x1, y1, x2, y2 = box.as_tuple()
        names = {"x": (x1 + x2) / 2 * width, "y": (y1 + y2) / 2 * height}
        return self.template.format(x1=x1 * width, y1=y1 * height, x2=x2 * width, y2=y2 * height, **names)

    def read(self, text: str, shown: Size = _SAMPLE_SIZE) -> Box | None:
        """Read the box in `text`, clipped to the image; None where there is none.

        Of several patterns the first that finds one is taken; what is taken of several boxes `several` says. The box
        may be empty (`Box.is_empty`): that is the caller's to judge.
        """
        boxes = self._boxes(text, shown)
        return _one_of(boxes, self.several) if boxes else None

    def read_all(self, text: str, shown: Size = _SAMPLE_SIZE) -> list[Box]:
        """Read each box in `text`, as `read` does one; of more than 16 the first, since some lists never end."""
        if self.lists:
            return self._boxes(text, shown)[:_MOST_BOXES]
        box = self.read(text, shown)
        return [] if box is None else [box]

    @property
    def opens_thoughts(self) -> str:
        """What thoughts begin with: what ends them (`read_after`), without its slash."""
        return self.read_after.replace("/", "", 1)

    def said(self, text: str) -> str:
        """Return what a reply says behind its thoughts; nothing where they have not ended."""
        said = text.rpartition(self.read_after)[2]
        return "" if self.opens_thoughts in said else said

    def _boxes(self, text: str, shown: Size) -> list[Box]:
        text = self.said(text)
        found = ([self._box(numbers, shown) for numbers in all_groups(pattern, text)] for pattern in self.pattern)
        return next(filter(None, found), [])

    def _box(self, numbers: Mapping[str, str], shown: Size) -> Box:
        if numbers.get("x1") is None:
            return self._around(float(numbers["x"]), float(numbers["y"]), shown)
        written = [numbers[name] for name in _CORNERS]
        values = [float(number) for number in written]
        # Models of whole numbers write shares now and then.
        as_shares = self._units(shown)[0] > 1 and max(values) <= 1 and any("." in number for number in written)
        width, height = (1.0, 1.0) if as_shares else self._units(shown)
        x1, y1, x2, y2 = (_share(value, unit) for value, unit in zip(values, (width, height) * 2, strict=True))
        if self.sort_corners:
            (x1, x2), (y1, y2) = sorted((x1, x2)), sorted((y1, y2))
        return Box(x1, y1, x2, y2)

    def _around(self, x: float, y: float, shown: Size) -> Box:
        """Return the square around a point."""
        width, height = self._units(shown)
        half_x, half_y = (self.point_side * min(shown) / length / 2 for length in shown)
        x, y = _share(x, width), _share(y, height)
        return Box(max(x - half_x, 0.0), max(y - half_y, 0.0), min(x + half_x, 1.0), min(y + half_y, 1.0))

    def _units(self, shown: Size) -> tuple[float, float]:
        return (float(shown[0]), float(shown[1])) if self.scale == "pixels" else (self.scale, self.scale)

    def _is_near(self, one: Box, other: Box) -> bool:
        """Whether two boxes are the same to the format's precision; of a point the centres are."""
        if "{x1" not in self.template:
            one, other = (Box(*_centre(box), *_centre(box)) for box in (one, other))
        return all(abs(a - b) < _COARSEST for a, b in zip(one.as_tuple(), other.as_tuple(), strict=True))


def _expanded(pattern: str, order: str) -> str:
    names = _CORNERS if order == "xyxy" else ("y1", "x1", "y2", "x2")
    first, second, third, fourth = (_NUMBER % name for name in names)
    corners = f"{first}{_WITHIN}{second}{_BETWEEN}{third}{_WITHIN}{fourth}"
    point = f"{_NUMBER % 'x'}{_WITHIN}{_NUMBER % 'y'}"
    return pattern.replace("{corners}", corners).replace("{point}", point)


def _with_numbers(pattern: str) -> str:
    """Return a pattern that compiles and has the groups of a box or a point. Raises ValueError."""
    groups = set(compiled(pattern).groupindex)
    wanted = _POINT if groups & set(_POINT) else _CORNERS
    if missing := set(wanted) - groups:
        raise ValueError(f"the pattern has no group named {', '.join(sorted(missing))}")
    return pattern


def _one_of(boxes: Iterable[Box], several: _Several) -> Box:
    first, *others = boxes
    if several == "first" or not others:
        return first
    if several == "largest":
        return max((first, *others), key=lambda box: box.area)
    return Box.around((first, *others))


def _centre(box: Box) -> tuple[float, float]:
    return (box.x1 + box.x2) / 2, (box.y1 + box.y2) / 2


def _share(number: float, unit: float) -> float:
    share = number / unit
    return min(max(share, 0.0), 1.0) if math.isfinite(share) else 0.0
