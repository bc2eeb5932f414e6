"""Fitted pictures: each made once, kept while there is room, tried again where it failed."""

import asyncio
from typing import Any

import pytest
from dualfocus_engine import fitted
from dualfocus_engine.fitted import FittedPictures
from dualfocus_engine.profiles import load_profile

from .builders import plain

PROFILE = load_profile("starter")  # 112 pixels a side
BYTES = 112 * 112 * 3


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was fitted, in order."""
    made: list[Any] = []
    fit = fitted.fit

    def noted(image: Any, *how: Any) -> Any:
        made.append(image)
        return fit(image, *how)

    monkeypatch.setattr(fitted, "fit", noted)
    return made


async def test_a_picture_is_fitted_once_also_for_those_who_ask_at_once(fits: list[Any]) -> None:
    pictures, picture = FittedPictures(PROFILE), plain()
    one, other = await asyncio.gather(pictures.of(picture), pictures.of(picture))
    assert one is other is await pictures.of(picture)
    assert one.size == (112, 112)
    assert len(fits) == 1


async def test_what_is_kept_is_bounded_by_its_pixels(fits: list[Any]) -> None:
    pictures = FittedPictures(PROFILE, kept=2 * BYTES)
    one, other, third = (plain((shade, 0, 0)) for shade in (1, 2, 3))
    for picture in (one, other, third, other, one):
        await pictures.of(picture)
    assert len(fits) == 4, "the one used longest ago makes room, and is made again"


async def test_picture_larger_than_all_that_is_kept_is_still_fitted(fits: list[Any]) -> None:
    pictures = FittedPictures(PROFILE, kept=BYTES - 1)
    for _ in range(2):
        assert (await pictures.of(plain())).size == (112, 112)
    assert len(fits) == 2


async def test_failed_fit_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    pictures, picture, fit = FittedPictures(PROFILE), plain(), fitted.fit

    def fails(*given: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(fitted, "fit", fails)
    with pytest.raises(MemoryError):
        await pictures.of(picture)
    monkeypatch.setattr(fitted, "fit", fit)
    assert (await pictures.of(picture)).size == (112, 112)


async def test_one_who_leaves_takes_nothing_from_those_who_wait(fits: list[Any]) -> None:
    pictures, picture = FittedPictures(PROFILE), plain()
    leaves, waits = asyncio.create_task(pictures.of(picture)), asyncio.create_task(pictures.of(picture))
    await asyncio.sleep(0)
    leaves.cancel()
    assert (await waits).size == (112, 112)
    assert len(fits) == 1
