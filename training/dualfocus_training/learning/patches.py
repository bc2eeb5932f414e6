"""What each patch of a picture shows: dense labels that teach the encoder before words do.

Each patch is told everything about the shape it lies on: colour, form, the decimals of its box in
this picture, the print that lies on it where the picture is large enough to read it, whether it is
the largest or smallest, and how much of each of the patch's own cells is covered. The labels train
one linear readout of the projected features, which is dropped at export.
"""

from dataclasses import dataclass

import numpy as np
from dualfocus_engine.families.boxes import Region
from dualfocus_eval.scenes.drawing import owners, padded_square
from dualfocus_eval.scenes.layout import COLOURS, FORMS, LETTERS, Point, Scene, Shape, print_extent
from dualfocus_eval.scenes.questions import extremes
from numpy.typing import NDArray

from dualfocus_training.learning.objective import IGNORED

_COLOUR_NAMES = sorted(COLOURS)
_SYMBOLS = [*"0123456789", *LETTERS, *_COLOUR_NAMES]
# Classes of each categorical label: ground is 0 for colour and form; corners are written as
# hundredths, tens (0 to 10) and ones (0 to 9) apart, as the box is; "no second digit" is 10; the
# last four say whether a shape is the largest or smallest of all, or of its form.
CLASSES = (len(_COLOUR_NAMES) + 1, len(FORMS) + 1, *[11, 10] * 4, len(_SYMBOLS), 11, 2, 2, 2, 2)
LOOKS, DECIMALS, PRINTS, RANKS = slice(0, 2), slice(2, 10), slice(10, 12), slice(12, 16)
# Pixels of the encoder's input a glyph, and a dot, must measure to be told apart.
_READABLE = {"number": 5.5, "letter": 5.5, "dot": 2.4}
_SAMPLES = 8
_CELLS_A_SIDE = 4
CELLS = _CELLS_A_SIDE**2
_LEAST_COVER = 0.2


@dataclass(frozen=True)
class PatchLabels:
    """What is known of each of patches² patches.

    `classes`: (patches², len(CLASSES)), IGNORED where unknown; `corners`: (patches², 4), shares of
    the picture; `cover`: (patches², CELLS), how much of each cell of the patch any shape covers;
    `owners`: (patches²,), the place in the scene of the shape that a patch shows, -1 for ground;
    `printed`: (patches²,), whether that shape's print lies on the patch; `centres`: (shapes,), the patch that each
    shape's centre lies on, -1 where the picture does not show it.
    """

    classes: NDArray[np.int16]
    corners: NDArray[np.float32]
    cover: NDArray[np.float32]
    owners: NDArray[np.int64]
    printed: NDArray[np.bool_]
    centres: NDArray[np.int64]


def label_patches(scene: Scene, region: Region, side: int, patches: int) -> PatchLabels:
    """Label the patches of the picture cut from `region` and shown at `side` pixels a side."""
    shown = _pixels_of_patches(scene, region, patches)
    owner = _owner_of_patches(shown, len(scene.shapes))
    scale = side / max(region.right - region.left, region.bottom - region.top)
    facts = [_facts(scene, shape, region, scale) for shape in scene.shapes]
    ground = np.full(len(CLASSES), IGNORED, np.int16)
    ground[:2] = 0
    classes = np.stack([ground, *(row for row, _ in facts)])
    corners = np.stack([np.zeros(4, np.float32), *(corner for _, corner in facts)])
    prints = [np.zeros(len(owner), bool), *(_holds_print(shape, region, patches) for shape in scene.shapes)]
    printed = np.stack(prints)[owner, np.arange(len(owner))]
    of_patches = classes[owner]
    of_patches[~printed, PRINTS] = IGNORED
    centres = np.array([_patch_at(shape.centre, region, patches) for shape in scene.shapes], np.int64)
    return PatchLabels(of_patches, corners[owner], _cover(shown), owner - 1, printed, centres)


def _patch_at(point: Point, region: Region, patches: int) -> int:
    x, y, side = padded_square(region)
    across, down = ((value - origin) * patches / side for value, origin in zip(point, (x, y), strict=True))
    inside = region.left < point[0] < region.right and region.top < point[1] < region.bottom
    return int(down) * patches + int(across) if inside else -1


def _holds_print(shape: Shape, region: Region, patches: int) -> NDArray[np.bool_]:
    """Which of the patches the print lies on."""
    x, y, side = padded_square(region)
    edges = np.arange(patches + 1) * side / patches
    left, top, right, bottom = print_extent(shape.print)
    across = (edges[1:] > left - x) & (edges[:-1] < right - x)
    down = (edges[1:] > top - y) & (edges[:-1] < bottom - y)
    return np.outer(down, across).ravel()


def _pixels_of_patches(scene: Scene, region: Region, patches: int) -> NDArray[np.uint8]:
    """(patches², _SAMPLES, _SAMPLES): which shape each sample of each patch shows; 0 is ground."""
    pixels = np.asarray(owners(scene, region, patches * _SAMPLES))
    apart = pixels.reshape(patches, _SAMPLES, patches, _SAMPLES).swapaxes(1, 2)
    return apart.reshape(patches * patches, _SAMPLES, _SAMPLES)


def _owner_of_patches(shown: NDArray[np.uint8], shapes: int) -> NDArray[np.int64]:
    """For each patch the shape that covers most of it, counted from 1; 0 where none does."""
    cover = np.stack([(shown == number).mean((1, 2)) for number in range(1, shapes + 1)])
    return np.where(cover.max(0) >= _LEAST_COVER, cover.argmax(0) + 1, 0)


def _cover(shown: NDArray[np.uint8]) -> NDArray[np.float32]:
    cells = (shown > 0).reshape(len(shown), _CELLS_A_SIDE, -1, _CELLS_A_SIDE, _SAMPLES // _CELLS_A_SIDE)
    cover: NDArray[np.float32] = cells.mean((2, 4), dtype=np.float32)
    return cover.reshape(len(shown), CELLS)


def _facts(scene: Scene, shape: Shape, region: Region, scale: float) -> tuple[NDArray[np.int16], NDArray[np.float32]]:
    corners = _corners(shape, region)
    hundredths = [round(float(share) * 100) for share in corners]
    decimals = [part for number in hundredths for part in (min(number // 10, 10), number % 10)]
    colour, form = _COLOUR_NAMES.index(shape.colour) + 1, FORMS.index(shape.form) + 1
    ranks = _rank_facts(scene, shape, region)
    return np.array([colour, form, *decimals, *_print_facts(shape, region, scale), *ranks], np.int16), corners


def _corners(shape: Shape, region: Region) -> NDArray[np.float32]:
    wide, high = region.right - region.left, region.bottom - region.top
    left, top, right, bottom = shape.extent
    shares = [
        (left - region.left) / wide,
        (top - region.top) / high,
        (right - region.left) / wide,
        (bottom - region.top) / high,
    ]
    return np.clip(np.array(shares, np.float32), 0.0, 1.0)


def _print_facts(shape: Shape, region: Region, scale: float) -> tuple[int, int]:
    mark = shape.print
    x, y = mark.centre
    inside = region.left < x < region.right and region.top < y < region.bottom
    if not inside or mark.height * scale < _READABLE[mark.kind]:
        return IGNORED, IGNORED
    if mark.kind == "number":
        return int(mark.text[0]), int(mark.text[1]) if len(mark.text) == 2 else 10
    return _SYMBOLS.index(mark.text), IGNORED


def _rank_facts(scene: Scene, shape: Shape, region: Region) -> list[int]:
    """Largest and smallest of all and of its form; a crop can't tell."""
    if region != (0, 0, scene.width, scene.height):
        return [IGNORED] * 4
    names = extremes(scene, shape)
    return [int(f"{extreme} {noun}" in names) for noun in ("shape", shape.form) for extreme in ("largest", "smallest")]
