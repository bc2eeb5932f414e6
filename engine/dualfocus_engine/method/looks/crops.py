"""Crops as the encoder is shown them: parts of a picture, enlarged, within the image tokens of one."""

import math
from collections.abc import Sequence

from dualfocus_engine.families.boxes import Region
from dualfocus_engine.families.views import Views
from dualfocus_engine.pictures.pictures import Picture


def show_crops(views: Views | None, picture: Picture, regions: Sequence[Region], most: int | None) -> list[Picture]:
    """Return the crops of a picture at the sizes they are shown at; each has its share of `most` image tokens.

    A region may have been widened for the family.
    """
    share = None if most is None else max(most // len(regions), 1)
    return [_show_crop(views, picture, region, share) for region in regions]


def _show_crop(views: Views | None, picture: Picture, region: Region, most: int | None) -> Picture:
    if views is None:
        return picture.crop(region)
    crop = picture.crop(views.crop_region(region, picture.size, most))
    return crop.shown_at(views.show_crop(crop.size, _scale(picture), most))


def enlarges(crop: Picture, picture: Picture) -> bool:
    """Whether the crop shows its part larger than the picture does; None of either is known without views."""
    if crop.shown is None or picture.shown is None:
        return True
    return _scale(crop) > _scale(picture)


def _scale(picture: Picture) -> float:
    """Return how many pixels the encoder is shown of one of the original's."""
    assert picture.shown is not None
    return math.prod(picture.shown) / math.prod(picture.size)
