"""What turns need of pictures, made once and kept by content: what the encoder is shown, and pixels to crop from."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from operator import attrgetter
from pathlib import Path
from threading import Condition
from typing import TypeAlias

from cachetools import LRUCache, cached
from PIL import Image

from dualfocus_engine.families.boxes import Region, Size
from dualfocus_engine.machine.memory_budget import MemoryBudget
from dualfocus_engine.machine.pool import submit
from dualfocus_engine.pictures.colours import in_srgb
from dualfocus_engine.pictures.fitting import PIXEL_BYTES, Colour, fit, resize, within_aspect
from dualfocus_engine.pictures.formats import MAX_DECODING_BYTES
from dualfocus_engine.pictures.pictures import (
    DEFAULT_LIMITS,
    ImageLimits,
    Picture,
    SourceImage,
    read_source_image,
)

# Pixels; of a picture with a patch its own and the patch's.
EncoderInput: TypeAlias = Image.Image | tuple[Image.Image, Image.Image]
# Whole pictures kept for crops to come; a larger one is kept alone.
_DECODED_CACHE_BYTES = 512 << 20
# Once vLLM has processed what the encoder is shown, it is asked for no more.
_ENCODER_INPUT_CACHE_BYTES = 64 << 20
# Images known to be readable, by their content.
_MAX_KNOWN_IMAGES = 1 << 16
# A JPEG of more pixels, of which nothing will be cropped, is decoded smaller.
_MIN_PIXELS_TO_DOWNSCALE = 2_000_000
# A downscaled JPEG keeps at least this multiple of the encoder's input size.
_MIN_OVERSAMPLING = 2


class PictureCache:
    """Opens pictures and makes what turns need of them, each once; what was used last is kept.

    `pad_color` and `image_size` are the profile's; `memory` is what pictures that are being decoded may take
    together: others wait. Its methods are work for threads, but for `ahead`, `shared_encoder_input` and `counts`.
    """

    def __init__(self, pad_color: Colour | None, image_size: int | None) -> None:
        self._pad_color, self._image_size = pad_color, image_size
        self._min_side = None if image_size is None else _MIN_OVERSAMPLING * image_size
        key = attrgetter("key")
        self._sizes: LRUCache[str, Size] = LRUCache(_MAX_KNOWN_IMAGES)
        self._size = cached(self._sizes, key, condition=Condition(), info=True)(self._check_readable)
        self._wholes: LRUCache[str, Image.Image] = LRUCache(_DECODED_CACHE_BYTES, _size_among_wholes)
        self._decode = cached(self._wholes, key, condition=Condition())(SourceImage.decode)
        self._encoder_inputs: LRUCache[str, Image.Image] = LRUCache(_ENCODER_INPUT_CACHE_BYTES, _size_in_bytes)
        self._encoder_input = cached(self._encoder_inputs, key, condition=Condition())(self._fit)
        self._decode_ahead_hits = {True: 0, False: 0}  # by whether they found their picture decoded
        self._bytes_ahead = 0
        self._being_made: dict[str, Future[Image.Image]] = {}
        self.memory = MemoryBudget(MAX_DECODING_BYTES)

    def open(
        self,
        source: bytes | str | Path | Image.Image,
        limits: ImageLimits = DEFAULT_LIMITS,
        salt: str | None = None,
        *,
        for_crops: bool = True,
    ) -> Picture:
        """Open an image as `open_picture` does; one whose content is known is not decoded. Raises BadPicture.

        Under another `salt` it is another image, and so is a large JPEG that is not `for_crops`: it is decoded smaller,
        which takes less where its own pixels are not needed, and more where they are needed too.
        """
        original = read_source_image(source, limits, salt)
        if not for_crops and self._scaled_size(original) is not None:
            original = original.scaled()
        with self._room_for(original, is_made=original.key in self._sizes):
            return Picture(original, self._size(original))

    def encoder_input(self, picture: Picture) -> Image.Image:
        """Return what the encoder is shown of a picture. Raises BadPicture."""
        with self._room_for(picture.original, picture.region, is_made=picture.key in self._encoder_inputs):
            return self._encoder_input(picture)

    async def shared_encoder_input(self, picture: Picture) -> EncoderInput:
        """Return what a thread makes for all who wait for the same picture. Raises BadPicture.

        A question's turns go on side by side then: with a thread each, the second's would wait behind other questions'
        pictures, and by the time it got to the engine the encoder's output might be gone.
        """
        if picture.patch is None:
            return await self._shared_pixels(picture)
        return await self._shared_pixels(picture.with_patch(None)), await self._shared_pixels(picture.patch)

    async def _shared_pixels(self, picture: Picture) -> Image.Image:
        if picture.key in self._encoder_inputs:  # made already: no thread is waited for
            return self._encoder_input(picture)
        work = self._being_made.get(picture.key)
        if work is None:
            work = self._being_made[picture.key] = submit(self.encoder_input, picture)
            work.add_done_callback(lambda _: self._being_made.pop(picture.key))
        return await asyncio.shield(asyncio.wrap_future(work))

    def crop(self, original: SourceImage, region: Region, longest: int) -> Image.Image:
        """Return a part of an image, at its own resolution or of `longest` pixels a side. Raises BadPicture."""
        with self._room_for(original, region):
            part = in_srgb(self._decode_once(original).crop(region))
            part.thumbnail((longest, longest))
            return part

    def within_aspect(self, original: SourceImage) -> Image.Image:
        """Return the whole of an image, such that no processor makes gigabytes of it. Raises BadPicture."""
        with self._room_for(original):
            return within_aspect(in_srgb(self._decode_once(original)))

    def within_side(self, original: SourceImage, longest: int) -> Image.Image:
        """Return the whole of an image, upright, of at most `longest` pixels a side. Raises BadPicture."""
        with self._room_for(original):
            whole = self._decode_once(original)
            scale = min(longest / max(whole.size), 1.0)
            size = (max(round(whole.width * scale), 1), max(round(whole.height * scale), 1))
            return in_srgb(resize(whole, size))

    @contextmanager
    def _room_for(self, original: SourceImage, region: Region | None = None, is_made: bool = False) -> Iterator[None]:
        """Hold the memory that decoding an image takes, and where it is decoded already the copy of a region of it.

        It is held before any cache is asked, so that nobody waits for memory while others wait for what he makes.
        """
        copied = 0 if region is None else region.area * PIXEL_BYTES
        amount = copied if original.key in self._wholes else original.decoding_bytes
        with self.memory.hold(0 if is_made else amount):
            yield

    def _decode_once(self, original: SourceImage) -> Image.Image:
        # Pillow's pixels are decoded, and are the caller's to keep.
        return original.data if isinstance(original.data, Image.Image) else self._decode(original)

    @contextmanager
    def ahead(self, picture: Picture) -> Iterator[None]:
        """Decode a picture whole while its box is written, so that the crop need not wait for it.

        What is decoded ahead is bounded as what is kept is: where there is no room, the crop waits.
        """
        size = picture.size[0] * picture.size[1] * PIXEL_BYTES
        is_known = picture.original.key in self._wholes
        self._decode_ahead_hits[is_known] += 1
        if is_known or self._bytes_ahead + size > _DECODED_CACHE_BYTES:
            yield
            return
        self._bytes_ahead += size
        decoding = asyncio.ensure_future(self._decode_ahead(picture.original))
        decoding.add_done_callback(lambda _: self._release_ahead(size))
        try:
            yield
        finally:
            decoding.cancel()

    async def _decode_ahead(self, original: SourceImage) -> None:
        work = submit(self._decode_with_room, original)
        try:
            await asyncio.wrap_future(work)
        except asyncio.CancelledError:
            if not work.cancel():  # a thread that has begun goes on, and its pixels count until it has done
                await asyncio.wrap_future(work)
            raise

    def _decode_with_room(self, original: SourceImage) -> None:
        with self._room_for(original):
            self._decode_once(original)

    def _release_ahead(self, size: int) -> None:
        self._bytes_ahead -= size

    def counts(self) -> dict[str, tuple[int, int]]:
        """Return hits and misses.

        `opened`: images whose content was known to be readable; `decoded`: second looks that found theirs so.
        """
        opened = self._size.cache_info()
        return {
            "opened": (opened.hits, opened.misses),
            "decoded": (self._decode_ahead_hits[True], self._decode_ahead_hits[False]),
        }

    def _check_readable(self, original: SourceImage) -> Size:
        """Decode an image, for what the encoder is shown where that has one size; return its upright size."""
        scaled_size = self._scaled_size(original) if original.is_scaled else None
        size = scaled_size or self._decode_once(original).size
        if self._image_size is not None:
            self._encoder_input(Picture(original, size))
        return size

    def _fit(self, picture: Picture) -> Image.Image:
        pixels = self._pixels(picture)
        if picture.shown is not None:
            return in_srgb(resize(pixels, picture.shown))
        return fit(in_srgb(pixels, self._min_side), self._pad_color, self._image_size)

    def _pixels(self, picture: Picture) -> Image.Image:
        """Return the pixels to fit: deterministic per key, so that cached entries agree."""
        if picture.region is not None:
            return self._decode_once(picture.original).crop(picture.region)
        if picture.original.is_scaled:
            return picture.original.decode(self._min_side)
        return self._decode_once(picture.original)

    def _scaled_size(self, original: SourceImage) -> Size | None:
        """Return the upright size of a large JPEG that may be decoded smaller for the encoder; None of others."""
        size = None if self._min_side is None else original.scaled_size(self._min_side)
        return size if size and size[0] * size[1] > _MIN_PIXELS_TO_DOWNSCALE else None


def _size_in_bytes(image: Image.Image) -> int:
    return image.width * image.height * PIXEL_BYTES


def _size_among_wholes(image: Image.Image) -> int:
    """Return an image's bytes; of one that is larger than the cache as many as that has, so that it is kept alone."""
    return min(_size_in_bytes(image), _DECODED_CACHE_BYTES)
