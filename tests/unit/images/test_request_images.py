"""How many images a request may have and how large together; one that is refused fetches nothing any more."""

import asyncio
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from dualfocus_engine import BadPicture, BadQuestion, open_picture
from dualfocus_engine.method.stages import Stages
from dualfocus_engine.pictures.pictures import ImageLimits
from dualfocus_server.images import request_images
from dualfocus_server.images.hosts import HostRules
from dualfocus_server.images.image_fetcher import FetchBudget, ImageFetcher
from dualfocus_server.images.memory_budget import AsyncMemoryBudget
from dualfocus_server.images.request_images import RequestImages, SentImage
from PIL import Image

from ..builders import data_url, encoded
from ..fake_engine import WAIT
from ..local_web import respond, serving

SMALL = SentImage(data_url(encoded(Image.new("1", (10, 10)))))
WIDE = SentImage(data_url(encoded(Image.new("1", (30, 10)))))


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


async def test_header_of_one_by_itself_is_read_as_it_is_opened_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[bytes] = []

    @contextmanager
    def noted(data: bytes, formats: tuple[str, ...]) -> Iterator[Image.Image]:
        read.append(data)
        yield Image.new("1", (1, 1))

    monkeypatch.setattr(request_images, "opened", noted)
    images = RequestImages(ImageFetcher())
    await images.opened([WIDE], Stages(), open_picture)
    assert read == []
    await images.opened([WIDE, SMALL], Stages(), open_picture)
    assert len(read) == 2


async def test_one_that_is_too_large_alone_is_named_by_its_size() -> None:
    with pytest.raises(BadPicture, match="is 30x10"):
        await RequestImages(ImageFetcher(), limits=ImageLimits(299)).opened([WIDE], Stages(), open_picture)


async def test_once_one_is_refused_the_others_are_not_fetched_on() -> None:
    fetching, left = asyncio.Event(), asyncio.Event()

    class Source(ImageFetcher):
        async def read(self, url: str, budget: FetchBudget | None = None) -> bytes:
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
            await RequestImages(Source()).opened([SentImage("slow"), SentImage("bad")], Stages(), open_picture)
    assert left.is_set()


async def test_what_one_request_has_fetched_is_limited_together() -> None:
    with serving({"/a": respond(body=b"x" * 60)}) as web:
        images = RequestImages(ImageFetcher(HostRules(["*"], public=lambda address: True)), max_fetched=100)
        one = SentImage(f"{web.address}/a")
        assert await images.opened([one], Stages(), lambda data, limits: len(data)) == [60]
        with pytest.raises(BadPicture, match=r"larger than 100 bytes together, .* \(--max-body-bytes\)"):
            await images.opened([one, one], Stages(), lambda data, limits: len(data))


async def test_a_uuid_means_the_image_that_a_client_sent_last_by_it() -> None:
    images = RequestImages(ImageFetcher()).of("one")
    named = SentImage(None, "sign")
    for sent in (WIDE, SMALL):
        await images.opened([SentImage(sent.url, "sign")], Stages(), open_picture)
        assert await _sizes(images, named) == await _sizes(images, sent)
    assert await _sizes(images, WIDE, named, WIDE) == [(30, 10), (10, 10), (30, 10)]


@pytest.mark.parametrize(("client", "salt"), [("other", None), ("one", "salt")])
async def test_a_uuid_is_a_name_within_one_client_and_salt(client: str, salt: str | None) -> None:
    images = RequestImages(ImageFetcher())
    await images.of("one").opened([SentImage(WIDE.url, "sign")], Stages(), open_picture)
    with pytest.raises(BadPicture, match="no image of the uuid 'sign'"):
        await images.of(client).opened([SentImage(None, "sign")], Stages(), open_picture, salt)
    await images.of(client).opened([SentImage(SMALL.url, "sign")], Stages(), open_picture, salt)
    assert await _sizes(images.of("one"), SentImage(None, "sign")) == [(30, 10)]


async def test_where_it_is_not_known_whose_they_are_images_have_no_names() -> None:
    images = RequestImages(ImageFetcher())
    await images.opened([SentImage(WIDE.url, "sign")], Stages(), open_picture)
    for unbound in (images, images.of("")):
        with pytest.raises(BadPicture, match="no image of the uuid"):
            await unbound.opened([SentImage(None, "sign")], Stages(), open_picture)


async def test_what_could_not_be_opened_is_not_kept() -> None:
    images = RequestImages(ImageFetcher()).of("one")
    with pytest.raises(BadPicture):
        await images.opened([SentImage("data:,nothing", "sign")], Stages(), open_picture)
    with pytest.raises(BadPicture, match="no image of the uuid"):
        await images.opened([SentImage(None, "sign")], Stages(), open_picture)


async def _sizes(images: RequestImages, *sent: SentImage) -> list[tuple[int, int]]:
    return [picture.size for picture in await images.opened(sent, Stages(), open_picture)]


async def test_what_is_kept_holds_memory_and_no_file() -> None:
    memory = AsyncMemoryBudget(30 * 20 * 4)
    images = RequestImages(ImageFetcher(), limits=ImageLimits(700, ("PNG",)), memory=memory)
    async with images.kept([WIDE, SMALL], lambda data, limits: data) as (files, give_back):
        assert memory._free == (30 * 20 - 30 * 10 - 10 * 10) * 4
        holding = [found for found in gc.get_referrers(files[0]) if isinstance(found, list) and found is not files]
        assert not holding
        give_back()
        assert memory._free == 30 * 20 * 4
    assert memory._free == 30 * 20 * 4


async def test_what_will_be_refused_waits_for_no_memory() -> None:
    memory = AsyncMemoryBudget(1)
    images = RequestImages(ImageFetcher(), limits=ImageLimits(299), memory=memory)
    async with memory.hold(1), asyncio.timeout(WAIT):
        for refused in (WIDE, SentImage("data:,nothing")):
            with pytest.raises(BadPicture):
                async with images.kept([refused], open_picture):
                    raise AssertionError("it was opened")
