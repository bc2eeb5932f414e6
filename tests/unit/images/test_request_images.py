"""How many images a request may have and how large together; one that is refused fetches nothing any more."""

import asyncio
from typing import Any

import pytest
from dualfocus_engine import BadPicture, BadQuestion, open_picture
from dualfocus_engine.method.stages import Stages
from dualfocus_engine.pictures.pictures import ImageLimits
from dualfocus_server.images.image_fetcher import ImageFetcher
from dualfocus_server.images.request_images import RequestImages
from PIL import Image

from ..builders import data_url, encoded
from ..fake_engine import WAIT

SMALL = data_url(encoded(Image.new("1", (10, 10))))
WIDE = data_url(encoded(Image.new("1", (30, 10))))


def test_a_number_of_images_is_taken_and_one_more_is_not() -> None:
    images = RequestImages(ImageFetcher(), max_images=2)
    images.check_number(2)
    with pytest.raises(BadQuestion, match=r"has 3 images; this server takes 2 in one \(--max-images\)"):
        images.check_number(3)


async def test_images_come_in_their_order() -> None:
    pictures = await RequestImages(ImageFetcher(), limits=ImageLimits(700)).opened(
        [WIDE, SMALL, WIDE], Stages(), open_picture
    )
    assert [picture.size for picture in pictures] == [(30, 10), (10, 10), (30, 10)]


async def test_all_of_them_are_judged_before_any_is_decoded() -> None:
    def decoded(*given: Any) -> Any:
        raise AssertionError("an image was decoded")

    with pytest.raises(
        BadPicture, match=r"3 images have 700 pixels together; those of one request may have 699 \(--max-image-pixels"
    ):
        await RequestImages(ImageFetcher(), limits=ImageLimits(699)).opened([WIDE, SMALL, WIDE], Stages(), decoded)


async def test_one_that_is_too_large_alone_is_named_by_its_size() -> None:
    with pytest.raises(BadPicture, match="is 30x10"):
        await RequestImages(ImageFetcher(), limits=ImageLimits(299)).opened([WIDE], Stages(), open_picture)


async def test_once_one_is_refused_the_others_are_not_fetched_on() -> None:
    fetching, left = asyncio.Event(), asyncio.Event()

    class Source(ImageFetcher):
        async def read(self, url: str) -> bytes:
            if url == "bad":
                await fetching.wait()
                raise BadPicture("No image.")
            try:
                fetching.set()
                await asyncio.Event().wait()
            finally:
                left.set()
            raise AssertionError("unreachable")

    async with asyncio.timeout(WAIT):
        with pytest.raises(BadPicture, match="No image"):
            await RequestImages(Source()).opened(["slow", "bad"], Stages(), open_picture)
    assert left.is_set()
