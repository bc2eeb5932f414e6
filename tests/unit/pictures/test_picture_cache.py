"""What is made of pictures: once each, kept while there is room, and of large JPEGs no more than is needed."""

import asyncio
import io
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import pytest
from dualfocus_engine import BadPicture, Picture, Region, open_picture
from dualfocus_engine.pictures import picture_cache
from dualfocus_engine.pictures.fitting import fit
from dualfocus_engine.pictures.picture_cache import PictureCache
from dualfocus_engine.pictures.pictures import ImageLimits
from PIL import Image, ImageFile

from ..builders import encoded, oriented, plain
from ..fake_engine import WAIT

PAD, SIDE = (122, 116, 104), 112
BYTES = SIDE * SIDE * 4
REGION = Region(1000, 500, 1400, 900)


@pytest.fixture
def cache() -> PictureCache:
    return PictureCache(PAD, SIDE)


@pytest.fixture
def decodes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The size of every file that Pillow decoded, at its decoder: smaller than the picture where it was scaled."""
    sizes: list[tuple[int, int]] = []
    prepare = ImageFile.ImageFile.load_prepare

    def noted(file: ImageFile.ImageFile) -> None:
        sizes.append(file.size)
        prepare(file)

    monkeypatch.setattr(ImageFile.ImageFile, "load_prepare", noted)
    return sizes


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was fitted, in order."""
    made: list[Any] = []

    def noted(image: Image.Image, *how: Any) -> Image.Image:
        made.append(image)
        return fit(image, *how)

    monkeypatch.setattr(picture_cache, "fit", noted)
    return made


@pytest.fixture(scope="module")
def large() -> Image.Image:
    """A photo of 3.8 million pixels."""
    from sklearn.datasets import load_sample_image

    return Image.fromarray(load_sample_image("china.jpg")).resize((2400, 1600), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def large_jpeg(large: Image.Image) -> bytes:
    return encoded(large, "JPEG", quality=95)


def test_picture_that_is_known_is_not_decoded_again(
    cache: PictureCache, chelsea: Image.Image, decodes: list[Any], fits: list[Any]
) -> None:
    data = encoded(chelsea)
    first, again = cache.open(data), cache.open(bytes(bytearray(data)))
    assert (first.key, first.size) == (again.key, again.size) == (open_picture(data).key, chelsea.size)
    decodes.clear()
    assert cache.encoder_input(again) is cache.encoder_input(first)
    cache.encoder_input(again.crop(Region(0, 0, 50, 50)))
    assert decodes == []
    assert len(fits) == 2, "the picture and its crop"
    assert cache.counts()["opened"] == (1, 1)


def test_one_changed_byte_is_another_picture(cache: PictureCache, chelsea: Image.Image) -> None:
    assert cache.open(encoded(chelsea)).key != cache.open(encoded(chelsea, compress_level=1)).key
    assert cache.counts()["opened"] == (0, 2)


def test_picture_is_made_once_also_for_those_who_ask_at_once(cache: PictureCache, fits: list[Any]) -> None:
    picture = plain()
    with ThreadPoolExecutor(4) as threads:
        made = list(threads.map(cache.encoder_input, [picture] * 8))
    assert {id(image) for image in made} == {id(made[0])}
    assert made[0].size == (SIDE, SIDE)
    assert len(fits) == 1


async def test_who_waits_for_the_same_picture_waits_for_one_thread(
    cache: PictureCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The turn of one question that asks last goes on before another question's picture is made."""
    threads = ThreadPoolExecutor(max_workers=1)
    monkeypatch.setattr(picture_cache, "submit", threads.submit)
    first, second = plain(), plain((0, 0, 255))
    done: list[str] = []

    async def ask(name: str, picture: Picture) -> None:
        await cache.shared_encoder_input(picture)
        done.append(name)

    left = asyncio.ensure_future(ask("left", first))
    asked = [ask("grounding", first), ask("other's", second), ask("macro", first)]
    tasks = [asyncio.ensure_future(each) for each in asked]
    await asyncio.sleep(0)
    left.cancel()
    await asyncio.gather(*tasks)
    assert done == ["grounding", "macro", "other's"]


async def test_what_is_made_already_waits_for_no_thread(cache: PictureCache, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = plain()
    made = await cache.shared_encoder_input(picture)
    monkeypatch.setattr(picture_cache, "submit", None)
    assert await cache.shared_encoder_input(picture) is made


async def test_a_picture_with_a_patch_is_both_each_made_once(cache: PictureCache) -> None:
    picture = plain()
    crop = picture.crop(Region(0, 0, 10, 10))
    whole, patch = await cache.shared_encoder_input(picture.with_patch(crop))
    assert whole is await cache.shared_encoder_input(picture)
    assert patch is await cache.shared_encoder_input(crop)


def test_what_is_kept_is_bounded_by_its_bytes(monkeypatch: pytest.MonkeyPatch, fits: list[Any]) -> None:
    monkeypatch.setattr(picture_cache, "_ENCODER_INPUT_CACHE_BYTES", 2 * BYTES)
    cache = PictureCache(PAD, SIDE)
    one, other, third = (plain((shade, 0, 0)) for shade in (1, 2, 3))
    for picture in (one, other, third, other, one):
        cache.encoder_input(picture)
    assert len(fits) == 4, "the one used longest ago makes room, and is made again"


def test_picture_larger_than_all_that_is_kept_is_decoded_once_and_kept_alone(
    monkeypatch: pytest.MonkeyPatch, chelsea: Image.Image, decodes: list[Any]
) -> None:
    monkeypatch.setattr(picture_cache, "_ENCODER_INPUT_CACHE_BYTES", BYTES - 1)
    monkeypatch.setattr(picture_cache, "_DECODED_CACHE_BYTES", chelsea.width * chelsea.height * 4 - 1)
    cache = PictureCache(PAD, SIDE)
    picture = cache.open(encoded(chelsea))
    for _ in range(2):
        assert cache.encoder_input(picture).size == (SIDE, SIDE)
        assert cache.crop(picture.original, Region(0, 0, *chelsea.size), 10_000).size == chelsea.size
    assert len(decodes) == 1
    cache.open(encoded(chelsea.rotate(90)))
    cache.crop(picture.original, Region(0, 0, 9, 9), 10_000)
    assert len(decodes) == 3


def test_what_failed_is_tried_again(monkeypatch: pytest.MonkeyPatch, cache: PictureCache) -> None:
    def fails(*given: Any) -> Any:
        raise MemoryError

    picture = plain()
    with monkeypatch.context() as patched:
        patched.setattr(picture_cache, "fit", fails)
        with pytest.raises(MemoryError):
            cache.encoder_input(picture)
    assert cache.encoder_input(picture).size == (SIDE, SIDE)


def test_pixels_of_the_callers_are_not_kept(cache: PictureCache) -> None:
    cache.encoder_input(plain().crop(Region(0, 0, 10, 10)))
    assert not cache._wholes


@pytest.mark.parametrize("pad", [PAD, None])
def test_without_a_side_the_picture_is_decoded_whole(
    large_jpeg: bytes, large: Image.Image, decodes: list[Any], pad: Any
) -> None:
    cache = PictureCache(pad, None)
    assert max(cache.encoder_input(cache.open(large_jpeg)).size) == large.width
    assert decodes == [large.size]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_large_jpeg_of_which_nothing_is_cropped_is_decoded_smaller_and_upright(
    cache: PictureCache, large: Image.Image, decodes: list[Any], orientation: int
) -> None:
    picture = cache.open(oriented(large, orientation, "JPEG"), for_crops=False)
    encoder_input = cache.encoder_input(picture)
    stored = large.size if orientation < 5 else large.size[::-1]
    assert picture.size == large.size
    assert decodes == [tuple(side // 4 for side in stored)]
    difference = np.abs(np.asarray(encoder_input, int) - np.asarray(fit(large, PAD, SIDE), int))
    assert difference.mean() < 1.5, "not the upright photo, within what scaling costs"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_crop_of_a_large_jpeg_has_the_originals_pixels(
    cache: PictureCache, large: Image.Image, decodes: list[Any], orientation: int
) -> None:
    data = oriented(large, orientation, "JPEG")
    picture = cache.open(data)
    crop = picture.crop(REGION)
    cache.encoder_input(picture)
    encoder_input = cache.encoder_input(crop)
    assert len(decodes) == 1, "the encoder's picture and the crop have one decoding between them"
    whole = open_picture(data)
    assert (crop.key, crop.size) == (whole.crop(REGION).key, (400, 400))
    assert np.array_equal(np.asarray(encoder_input), np.asarray(fit(whole.decode().crop(REGION), PAD, SIDE)))
    decodes.clear()
    cache.encoder_input(cache.open(data).crop(Region(0, 0, 300, 200)))
    assert decodes == [], "another question's crop of the same picture"


def test_picture_that_is_decoded_smaller_is_another_to_every_cache(cache: PictureCache, large_jpeg: bytes) -> None:
    """Its pixels differ by a level here and there; a picture that is decoded whole either way is the same one."""
    small = encoded(plain().decode(), "JPEG")
    keys = [cache.open(data, for_crops=crops).key for data in (large_jpeg, small) for crops in (True, False)]
    assert keys == [keys[0], f"{keys[0]}-scaled", keys[2], keys[2]]


def test_one_key_has_one_content_whoever_asks_first(large_jpeg: bytes) -> None:
    encoder_input = []
    for first in ("opened", "decoded", "by itself"):
        cache = PictureCache(PAD, SIDE)
        picture = open_picture(large_jpeg)
        if first == "opened":
            picture = cache.open(large_jpeg)
        elif first == "decoded":
            cache.crop(picture.original, REGION, 10_000)
        encoder_input.append(np.asarray(cache.encoder_input(picture)))
    assert np.array_equal(encoder_input[0], encoder_input[1])
    assert np.array_equal(encoder_input[0], encoder_input[2])


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_large_jpeg_of_another_mode_is_shown_in_its_colours(
    cache: PictureCache, large: Image.Image, decodes: list[Any], mode: str
) -> None:
    data = encoded(large.convert(mode), "JPEG", quality=95)
    encoder_input = cache.encoder_input(cache.open(data, for_crops=False))
    assert len(decodes) == 1
    assert decodes[0] != large.size
    whole = fit(open_picture(data).decode(), PAD, SIDE)
    assert np.abs(np.asarray(encoder_input, int) - np.asarray(whole, int)).mean() < 1.5


def test_first_of_several_pictures_in_a_jpeg_is_shown(
    cache: PictureCache, large: Image.Image, coffee: Image.Image, decodes: list[Any]
) -> None:
    """Phones write a preview or a depth map behind the photo."""
    data = encoded(large, "MPO", save_all=True, append_images=[coffee], quality=95)
    with Image.open(io.BytesIO(data), formats=["JPEG"]) as file:
        assert getattr(file, "n_frames", 1) == 2, "no file with two pictures: no test"
    encoder_input = cache.encoder_input(cache.open(data, for_crops=False))
    assert decodes == [(600, 400)]
    assert np.abs(np.asarray(encoder_input, int) - np.asarray(fit(large, PAD, SIDE), int)).mean() < 1.5


@pytest.mark.parametrize("share", [0.001, 0.01, 0.1, 0.5])
@pytest.mark.parametrize("progressive", [False, True])
def test_large_jpeg_cut_short_is_refused_when_it_is_opened(
    cache: PictureCache, large: Image.Image, share: float, progressive: bool
) -> None:
    data = encoded(large, "JPEG", progressive=progressive)
    with pytest.raises(BadPicture):
        cache.open(data[: int(len(data) * share)], for_crops=False)
    assert cache.counts()["opened"][0] == 0


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_damaged_file_is_refused_as_it_is_where_it_is_decoded_whole(
    monkeypatch: pytest.MonkeyPatch, chelsea: Image.Image, kind: str
) -> None:
    monkeypatch.setattr(picture_cache, "_MIN_PIXELS_TO_DOWNSCALE", 0)
    whole, rng, cache = encoded(chelsea.resize((96, 64)), kind), np.random.default_rng(7), PictureCache(PAD, 16)
    outcomes, opening_scaled = [], partial(cache.open, for_crops=False)
    for _ in range(200):
        damaged = bytearray(whole)
        for _ in range(rng.integers(1, 6)):
            damaged[rng.integers(min(len(damaged), rng.choice([64, 300, len(damaged)])))] = rng.integers(256)
        opened = [_outcome(opening, bytes(damaged)) for opening in (opening_scaled, open_picture)]
        assert opened[0] == opened[1]
        outcomes.append(opened[0])
    assert len(set(outcomes)) > 1, "nothing was refused, or everything"


def _outcome(opening: Any, data: bytes) -> Any:
    """The picture's key and size, or why there is none (how many bytes are left is the decoder's own business)."""
    try:
        picture: Picture = opening(data)
    except BadPicture as error:
        return str(error).partition("(")[0]
    return picture.key.removesuffix("-scaled"), picture.size


def test_known_picture_is_still_judged_by_its_size(cache: PictureCache, chelsea: Image.Image) -> None:
    data = encoded(chelsea)
    cache.open(data)
    with pytest.raises(BadPicture, match="451x300: more than 1,000 pixels"):
        cache.open(data, ImageLimits(1000))


def _opened_before_others(cache: PictureCache, data: bytes) -> Picture:
    """A picture that is known, whose pixels have made room for others' since."""
    picture = cache.open(data)
    cache._wholes.clear()
    return picture


async def _decoded_in_the_meantime(cache: PictureCache, picture: Picture) -> None:
    async with asyncio.timeout(WAIT):
        while picture.original.key not in cache._wholes:  # noqa: ASYNC110 (it is a thread's)
            await asyncio.sleep(0.001)


async def _nothing_ahead(cache: PictureCache) -> None:
    async with asyncio.timeout(WAIT):
        while cache._bytes_ahead:  # noqa: ASYNC110 (it is a thread's)
            await asyncio.sleep(0.001)


async def test_picture_that_is_not_kept_is_decoded_while_its_box_is_written(
    cache: PictureCache, large_jpeg: bytes, decodes: list[Any]
) -> None:
    picture = _opened_before_others(cache, large_jpeg)
    decodes.clear()
    for _ in range(2):
        with cache.ahead(picture):
            await _decoded_in_the_meantime(cache, picture)
    cache.encoder_input(picture.crop(REGION))
    assert decodes == [picture.size]
    assert cache.counts()["decoded"] == (1, 1)


async def test_no_more_is_decoded_ahead_than_is_kept(
    monkeypatch: pytest.MonkeyPatch, large_jpeg: bytes, chelsea: Image.Image, decodes: list[Any]
) -> None:
    monkeypatch.setattr(picture_cache, "_DECODED_CACHE_BYTES", 5_000_000 * 4)
    cache = PictureCache(PAD, SIDE)
    one, other = (_opened_before_others(cache, data) for data in (large_jpeg, large_jpeg + b"\0"))
    assert one.key != other.key
    decodes.clear()
    with cache.ahead(one), cache.ahead(other):
        await _decoded_in_the_meantime(cache, one)
        cache.crop(other.original, REGION, 10_000)
    assert decodes == [one.size, other.size], "the second had to wait until it was asked for"
    await _nothing_ahead(cache)
    with cache.ahead(one):
        await _decoded_in_the_meantime(cache, one)


async def test_picture_that_nobody_waits_for_any_more_is_not_decoded(
    cache: PictureCache, large_jpeg: bytes, decodes: list[Any]
) -> None:
    picture = _opened_before_others(cache, large_jpeg)
    decodes.clear()
    with cache.ahead(picture):
        pass
    await asyncio.sleep(0)
    assert decodes == []


async def test_pixels_count_until_they_are_decoded(
    monkeypatch: pytest.MonkeyPatch, cache: PictureCache, large_jpeg: bytes
) -> None:
    """A thread that has begun goes on when nobody waits any more: its memory is in use."""
    picture, begun, go_on = _opened_before_others(cache, large_jpeg), threading.Event(), threading.Event()

    def slowly(original: Any) -> Image.Image:
        begun.set()
        assert go_on.wait(WAIT)
        return plain()

    monkeypatch.setattr(cache, "_decode", slowly)
    with cache.ahead(picture):
        await asyncio.to_thread(begun.wait, WAIT)
    await asyncio.sleep(0.01)
    assert cache._bytes_ahead == picture.size[0] * picture.size[1] * 4
    go_on.set()
    await _nothing_ahead(cache)
