"""The images of one request: how many there may be and how large together, judged before any is decoded."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from copy import copy
from typing import Any, NamedTuple, TypeVar

from dualfocus_engine import BadPicture, BadQuestion
from dualfocus_engine.families.boxes import Size
from dualfocus_engine.machine.pool import run_in_image_pool
from dualfocus_engine.method.stages import Stages
from dualfocus_engine.method.tasks import unwrap_exception_group
from dualfocus_engine.pictures.fitting import bytes_within_aspect
from dualfocus_engine.pictures.formats import MAX_DECODING_BYTES, opened
from dualfocus_engine.pictures.pictures import DEFAULT_LIMITS, ImageLimits

from dualfocus_server.images.image_fetcher import FetchBudget, ImageFetcher
from dualfocus_server.images.memory_budget import AsyncMemoryBudget
from dualfocus_server.images.named_images import ImageNames, NamedImages

T = TypeVar("T")


class SentImage(NamedTuple):
    """An image of a request: where it is (None: it was sent before), and what the client names it by."""

    url: str | None
    uuid: str | None = None


class RequestImages:
    """Opens a request's images: at most `max_images`; the limit of pixels is for all of them together as well.

    Of those behind URLs at most `max_fetched` bytes are read for one request. `memory` is for what vLLM keeps.
    """

    def __init__(
        self,
        source: ImageFetcher,
        max_images: int = 16,
        limits: ImageLimits = DEFAULT_LIMITS,
        named: ImageNames | None = None,
        max_fetched: int = 64 << 20,
        memory: AsyncMemoryBudget | None = None,
    ) -> None:
        self._source = source
        self._max_images = max_images
        self._limits = limits
        self._named = named or NamedImages()
        self._max_fetched = max_fetched
        self._memory = memory or AsyncMemoryBudget(MAX_DECODING_BYTES)
        self._client: str | None = None

    def of(self, client: str) -> "RequestImages":
        """Return the same for the requests of one client, who may name images by a uuid."""
        bound = copy(self)
        bound._client = client
        return bound

    def check_number(self, images: int) -> None:
        """Judge how many images a request has. Raises BadQuestion."""
        if images > self._max_images:
            raise BadQuestion(
                f"The request has {images} images; this server takes {self._max_images} in one (--max-images)."
            )

    async def opened(
        self,
        images: Sequence[SentImage],
        stages: Stages,
        opening: Callable[[bytes, ImageLimits], T],
        salt: str | None = None,
    ) -> list[T]:
        """Return a request's images, in their order, opened in threads; counts the stages fetch and decode.

        `opening` is given the bytes of one, and what it may be. What a uuid means is kept by client and `salt`.

        Raises BadPicture; then nothing is fetched any more.
        """
        if not images:
            return []
        with stages.time("fetch"):
            encoded = await self._all_encoded(images, salt)
        with stages.time("decode"):
            if len(encoded) > 1:  # one by itself is judged as it is opened
                await run_in_image_pool(self._check_pixels, encoded)
            return await self._made(images, encoded, opening, salt)

    @asynccontextmanager
    async def kept(
        self, images: Sequence[SentImage], opening: Callable[[bytes, ImageLimits], T], salt: str | None = None
    ) -> AsyncIterator[tuple[list[T], Callable[[], None]]]:
        """Open a request's images as `opened` does, with memory held for them; yield what gives it back early too."""
        if not images:
            yield [], lambda: None
            return
        encoded = await self._all_encoded(images, salt)
        sizes = await run_in_image_pool(self._check_pixels, encoded)
        async with self._memory.hold(sum(map(bytes_within_aspect, sizes))) as let_go:
            made = await self._made(images, encoded, opening, salt)
            encoded.clear()
            yield made, let_go

    async def _all_encoded(self, images: Sequence[SentImage], salt: str | None) -> list[bytes]:
        budget = FetchBudget(self._max_fetched)
        return await _gather([self._encoded(image, salt, budget) for image in images])

    async def _made(
        self,
        images: Sequence[SentImage],
        encoded: Sequence[bytes],
        opening: Callable[[bytes, ImageLimits], T],
        salt: str | None,
    ) -> list[T]:
        made = await _gather([run_in_image_pool(opening, data, self._limits) for data in encoded])
        for image, data in zip(images, encoded, strict=True):
            if image.uuid is not None and self._client is not None:
                await self._named.keep(self._client, salt, image.uuid, data)
        return made

    async def _encoded(self, image: SentImage, salt: str | None, budget: FetchBudget) -> bytes:
        if image.url is not None:
            return await self._source.read(image.url, budget)
        found = await self._named.find(self._client, salt, str(image.uuid))
        if found is None:
            raise BadPicture(
                f"There is no image of the uuid {image.uuid!r}: send it once with its image_url, under the same API "
                "key and cache_salt. What was not asked about for long is forgotten."
            )
        return found

    def _check_pixels(self, encoded: Sequence[bytes]) -> list[Size]:
        """Return the images' sizes by their headers, of those that will be opened: opening the others tells why not."""
        found = [self._size(data) for data in encoded]
        sizes = [size for size in found if size is not None and size[0] * size[1] <= self._limits.pixels]
        pixels = sum(width * height for width, height in filter(None, found))
        if len(encoded) > 1 and pixels > self._limits.pixels:
            raise BadPicture(
                f"The {len(encoded)} images have {pixels:,} pixels together; "
                f"those of one request may have {self._limits.pixels:,} (--max-image-pixels)."
            )
        return sizes

    def _size(self, data: bytes) -> Size | None:
        try:
            with opened(data, self._limits.formats) as image:
                return image.size
        except BadPicture:
            return None


async def _gather(calls: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """Run calls at once; the first error cancels the rest and is raised by itself."""
    with unwrap_exception_group():
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(call) for call in calls]
    return [task.result() for task in tasks]
