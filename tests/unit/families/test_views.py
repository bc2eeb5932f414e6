"""How large pictures are shown: the families' own rules, within the tokens that a view allows."""

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from dualfocus_engine.families.boxes import Region
from dualfocus_engine.families.profiles import load_profile
from dualfocus_engine.families.views import Budget, Grid, Square, Tiles, View, Views
from PIL import Image
from pydantic import ValidationError
from transformers.models.gemma4.image_processing_gemma4 import Gemma4ImageProcessor, get_aspect_ratio_preserving_size
from transformers.models.glm4v.image_processing_glm4v import smart_resize as glm_resize
from transformers.models.got_ocr2.image_processing_got_ocr2 import get_optimal_tiled_canvas
from transformers.models.pixtral.image_processing_pixtral import get_resize_output_image_size
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

UNLIMITED = 1 << 40
QWEN25 = Grid(kind="grid", cell=28, least=4, most=16384)
QWEN3 = Grid(kind="grid", cell=32, least=64, most=16384)
GLM = Grid(kind="grid", cell=28, least=8, most=7500, frames=2)
MISTRAL = Grid(kind="grid", cell=28, most=3025, most_side=1540, rounds_up=True)
INTERNVL = Tiles(kind="tiles", side=448, tile_tokens=256, most_tiles=12)


GEMMA4 = [Budget(kind="budget", cell=48, most=tokens) for tokens in (70, 140, 280, 560, 1120)]


def _sizes(count: int = 3000, most: int = 13) -> Iterator[tuple[int, int]]:
    rng = random.Random(5)
    for _ in range(count):
        yield int(2 ** rng.uniform(3, most)), int(2 ** rng.uniform(3, most))


@pytest.mark.parametrize(("grid", "least", "most"), [(QWEN25, 3136, 12845056), (QWEN3, 65536, 16777216)])
def test_a_grid_is_the_one_of_qwens_processor(grid: Grid, least: int, most: int) -> None:
    compared = 0
    for width, height in _sizes():
        if max(width, height) > 100 * min(width, height) or min(width, height) < grid.cell:
            continue  # the processor refuses the first, and makes less of the second than there is
        assert grid.fit((width, height), 1, UNLIMITED) == smart_resize(height, width, grid.cell, least, most)[::-1]
        compared += 1
    assert compared > 1000


@pytest.mark.parametrize(("grid", "least", "most"), [(QWEN25, 3136, 12845056), (QWEN3, 65536, 16777216)])
def test_the_processor_leaves_what_it_is_given_as_it_is(grid: Grid, least: int, most: int) -> None:
    for size in _sizes():
        for limits in ((1, UNLIMITED), (256, 1024), (1, 100)):
            width, height = grid.fit(size, *limits)
            assert smart_resize(height, width, grid.cell, least, most) == (height, width)


def test_a_grid_of_two_frames_is_the_one_of_glms_processor() -> None:
    limits = {"num_frames": 2, "factor": 28, "min_pixels": 12544, "max_pixels": 11760000}
    compared = 0
    for width, height in _sizes():
        shown = GLM.fit((width, height), 1, UNLIMITED)
        assert glm_resize(height=shown[1], width=shown[0], **limits) == shown[::-1], "it leaves it as it is"
        if max(width, height) > 100 * min(width, height) or min(width, height) < 28:
            continue
        assert shown == glm_resize(height=height, width=width, **limits)[::-1]
        compared += 1
    assert compared > 1000


def _mistrals(size: tuple[int, int]) -> tuple[int, int]:
    height, width = get_resize_output_image_size(np.zeros((size[1], size[0], 3), np.uint8), 1540, 28)
    return width, height


def test_a_grid_of_a_longest_side_is_the_one_of_mistrals_processor() -> None:
    for size in _sizes(600):
        shown = MISTRAL.fit(size, 1, UNLIMITED)
        assert _mistrals(shown) == shown, "it leaves it as it is"
        assert max(shown) <= 1540
        if max(size) <= 100 * min(size):
            assert shown == _mistrals(size)
    assert max(MISTRAL.fit((4000, 30), 1000, 1024)) == 1540, "a strip is not enlarged beyond it"


def test_a_grid_keeps_within_its_tokens() -> None:
    for size in _sizes():
        tokens = QWEN25.tokens(QWEN25.fit(size, 256, 1024))
        assert tokens <= 1024
        if max(size) < 20 * min(size):
            assert tokens >= 256


def test_tiles_are_those_of_internvls_processor() -> None:
    for width, height in _sizes():
        columns, rows = get_optimal_tiled_canvas((height, width), (448, 448), 1, 12)
        assert INTERNVL.fit((width, height), 1, UNLIMITED) == (columns * 448, rows * 448)
        assert INTERNVL.fit((columns * 448, rows * 448), 1, UNLIMITED) == (columns * 448, rows * 448)


@pytest.mark.parametrize("most_tiles", [6, 12, 16, 24, 36])
@pytest.mark.parametrize("most", [1024, 2560, UNLIMITED])
def test_tiles_stay_as_they_are_shown_however_many_there_may_be(most_tiles: int, most: int) -> None:
    rule = INTERNVL.model_copy(update={"most_tiles": most_tiles})
    for size in _sizes(500):
        width, height = rule.fit(size, 1, most)
        columns, rows = get_optimal_tiled_canvas((height, width), (448, 448), 1, most_tiles)
        assert (width, height) == (columns * 448, rows * 448)
        assert rule.tokens((width, height)) <= most


@pytest.mark.parametrize(
    ("size", "tokens"), [((160, 120), 3328), ((300, 300), 256), ((1600, 1200), 3328), ((500, 300), 1792)]
)
def test_the_tokens_of_tiles_are_those_that_are_published(size: tuple[int, int], tokens: int) -> None:
    assert INTERNVL.tokens(INTERNVL.fit(size, 1, UNLIMITED)) == tokens


@pytest.mark.parametrize(
    ("region", "wide"),
    [
        (Region(500, 500, 660, 620), Region(500, 480, 660, 640)),  # 160 x 120: a square takes the least more
        (Region(500, 500, 800, 800), Region(500, 500, 800, 800)),
        (Region(0, 0, 60, 40), Region(0, 0, 80, 40)),  # moved inside
        (Region(0, 10, 4000, 2990), Region(0, 10, 4000, 2990)),  # no room to widen: 4000 x 2980 is shown as it is
    ],
)
def test_a_crop_is_widened_to_an_aspect_that_tiles_take_well(region: Region, wide: Region) -> None:
    views = Views(rule=INTERNVL)
    found = views.crop_region(region, (4000, 3000), 1024)
    assert found == wide or region == Region(0, 10, 4000, 2990)
    assert found.left <= region.left
    assert found.right >= region.right
    assert views.tokens(views.show_crop((found.right - found.left, found.bottom - found.top), 0.0, 1024)) <= 1024


def test_a_crop_is_shown_twice_as_large_as_in_the_whole_picture_where_its_tokens_allow() -> None:
    views = Views(rule=QWEN25, crop=View(least=256, most=1024))
    assert views.tokens(views.show_crop((560, 560), 0.1)) == 400, "its own size"
    assert views.tokens(views.show_crop((560, 560), 1.0)) == 29 * 29, "the grid nearest to 800"
    assert views.tokens(views.show_crop((560, 560), 4.0)) == 1024
    assert views.tokens(views.show_crop((60, 60), 0.1)) == 256
    assert views.tokens(views.show_crop((560, 560), 1.0, 300)) <= 300
    tiled = Views(rule=INTERNVL, crop=View(least=256, most=1280))
    assert tiled.show_crop((400, 400), 0.2) == (448, 448)
    assert tiled.show_crop((400, 400), 1.0) == (896, 896)


def test_a_square_takes_every_picture_alike() -> None:
    views = Views(rule=Square(kind="square", side=896, square_tokens=256))
    assert (views.show_whole((4000, 30)), views.tokens((896, 896))) == ((896, 896), 256)
    assert views.crop_region(Region(100, 100, 300, 200), (1000, 1000)) == Region(100, 50, 300, 250)


def _gemma4(budget: Budget, size: tuple[int, int]) -> tuple[int, int]:
    """The size that Gemma 4's processor makes of another."""
    height, width = get_aspect_ratio_preserving_size(size[1], size[0], 16, 9 * budget.most, 3)
    return width, height


@pytest.mark.parametrize("budget", GEMMA4, ids=lambda budget: str(budget.most))
def test_a_budget_is_filled_by_a_size_that_gemmas_processor_leaves_as_it_is(budget: Budget) -> None:
    kept = changed = 0
    for size in _sizes(600):
        if max(size) > budget.most * min(size):
            continue  # its processor refuses some of these
        shown, its_own = budget.fit(size, 1, UNLIMITED), _gemma4(budget, size)
        assert _gemma4(budget, shown) == shown
        assert budget.tokens(shown) <= budget.most
        if max(size) > 8 * min(size):
            continue
        assert budget.tokens(shown) >= budget.tokens(its_own), "never fewer pixels than by one look"
        is_kept = _gemma4(budget, its_own) == its_own
        assert shown == its_own or not is_kept
        kept, changed = kept + is_kept, changed + (not is_kept)
    assert kept > 100
    assert changed > 100


@pytest.mark.parametrize("size", [(4000, 3), (3, 4000), (1, 1), (13440, 48)])
def test_a_budget_has_a_size_for_every_strip(size: tuple[int, int]) -> None:
    for budget in GEMMA4:
        shown = budget.fit(size, 1, UNLIMITED)
        assert _gemma4(budget, shown) == shown


@pytest.mark.parametrize("size", [(160, 120), (1600, 900), (300, 700)])
def test_gemmas_processor_makes_the_tokens_of_a_budget_and_changes_no_pixel(size: tuple[int, int]) -> None:
    views = Views(rule=GEMMA4[2], crop=View())
    shown = views.show_whole(size)
    assert views.show_crop(size, 1.0) == shown, "a crop fills the budget too"
    pixels = np.random.default_rng(0).integers(0, 256, (shown[1], shown[0], 3), dtype=np.uint8)
    seen = Gemma4ImageProcessor()(Image.fromarray(pixels), return_tensors="np")
    assert int(seen["num_soft_tokens_per_image"][0]) == views.tokens(shown)
    patches = np.asarray(seen["pixel_values"])[0][: 9 * views.tokens(shown)]
    assert np.allclose(np.sort(patches, axis=None), np.sort(pixels / 255, axis=None), atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"rule": {"kind": "rings", "cell": 28}}, "views.rule"),
        ({"rule": {"kind": "grid", "cell": 0, "most": 10}}, "views.rule.grid.cell"),
        ({"rule": {"kind": "grid", "cell": 28}}, "views.rule.grid.most"),
        ({"rule": {"kind": "tiles", "side": 448}}, "views.rule.tiles.tile_tokens"),
        ({"rule": {"kind": "budget", "cell": 48, "least": 70}}, "views.rule.budget.most"),
        ({"crop": {"least": 10, "most": 5}}, "views.crop"),
        ({"whole": {"most": -1}}, "views.whole.most"),
        ({"hole": {}}, "views.hole"),
    ],
)
def test_an_impossible_view_is_refused_by_its_name(changes: dict[str, Any], field: str) -> None:
    whole = load_profile("qwen2.5-vl").model_dump()
    whole["views"] = {"rule": {"kind": "grid", "cell": 28, "most": 100}} | changes
    with pytest.raises(ValidationError) as refused:
        type(load_profile("paper")).model_validate(whole)
    assert field in {".".join(map(str, error["loc"])) for error in refused.value.errors()}
