"""Crops as the encoder is shown them: parts of a picture, enlarged, within the image tokens of one."""

import math
from collections.abc import Sequence

from dualfocus_engine.families.boxes import Region
from dualfocus_engine.families.views import Views
from dualfocus_engine.pictures.pictures import Picture


def show_crops(
    views: Views | None, picture: Picture, regions: Sequence[Region], most: int | None, seen: Picture
) -> list[Picture]:
    """Return the crops of a picture at the sizes they are shown at; each has its share of `most` image tokens.

    `seen` is what was shown of it before: the picture itself, or a crop of it. A region may have been widened for the
    family.
    """
    share = None if most is None else max(most // len(regions), 1)
    return [_show_crop(views, picture, region, share, seen) for region in regions]


def _show_crop(views: Views | None, picture: Picture, region: Region, most: int | None, seen: Picture) -> Picture:
    if views is None:
        return picture.crop(region)
    crop = picture.crop(views.crop_region(region, picture.size, most))
    return crop.shown_at(views.show_crop(crop.size, _scale(seen), most))


def enlarges(crop: Picture, seen: Picture) -> bool:
    """Whether a crop shows its part larger than the picture or crop that was seen before.

    Without views it is taken to of a picture, and of a crop where it is a smaller part.
    """
    if crop.shown is None or seen.shown is None:
        return seen.region is None or (crop.region is not None and crop.region.area < seen.region.area)
    return _scale(crop) > _scale(seen)


def shows_all(crop: Picture, image_size: int | None) -> bool:
    """Whether the encoder was shown a crop with all its pixels; `image_size` is that of pictures padded to a square.

    False where the model's own processor says what is shown.
    """
    if crop.shown is not None:
        return math.prod(crop.size) <= math.prod(crop.shown)
    return image_size is not None and max(crop.size) <= image_size


def _scale(picture: Picture) -> float:
    """Return how many pixels the encoder is shown of one of the original's."""
    assert picture.shown is not None
    return math.prod(picture.shown) / math.prod(picture.size)
