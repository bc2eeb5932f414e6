"""What turns need of pictures, made once and kept by content: what the encoder is shown, and pixels to crop from."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from operator import attrgetter
from pathlib import Path
from threading import Condition

from cachetools import LRUCache, cached
from PIL import Image

from dualfocus_engine.machine.pool import begin
from dualfocus_engine.pictures.pictures import MAX_PIXELS, Colour, Original, Picture, Size, fit, read_original

# Bytes of whole pictures kept for crops to come; the largest that the server takes by default has 200 MB.
_DECODED = 256 << 20
# Bytes of what the encoder is shown; once vLLM has processed it, it is asked for no more.
_SHOWN = 64 << 20
# Contents known to be readable.
_KNOWN = 1 << 16
# Pillow's for a pixel in RGB.
_PIXEL_BYTES = 4
# A JPEG of more pixels is decoded smaller for the encoder, and whole for crops only; one of fewer once, for both.
_LARGE = 2_000_000
# How many times the encoder's side it has left then, at least.
_FINER = 2


class PictureCache:
    """Opens pictures and makes what turns need of them, each once; what was used last is kept.

    `pad` and `side` are the profile's. Its methods are work for threads, but for `ahead` and `counts`.
    """

    def __init__(self, pad: Colour | None, side: int | None) -> None:
        self._pad, self._side = pad, side
        self._least = None if side is None else _FINER * side
        key = attrgetter("key")
        self._size = cached(LRUCache(_KNOWN), key, condition=Condition(), info=True)(self._judged)
        self._wholes: LRUCache[str, Image.Image] = LRUCache(_DECODED, _bytes)
        self._decoded = cached(self._wholes, key, condition=Condition())(Original.decoded)
        self._shown = cached(LRUCache(_SHOWN, _bytes), key, condition=Condition())(self._fitted)
        self._looks = {True: 0, False: 0}  # by whether they found their picture decoded
        self._bytes_ahead = 0

    def open(self, source: bytes | str | Path | Image.Image, max_pixels: int = MAX_PIXELS) -> Picture:
        """Open an image as `open_picture` does; one whose content is known is not decoded. Raises BadPicture."""
        original = read_original(source, max_pixels)
        return Picture(original, original.key, self._size(original))

    def shown(self, picture: Picture) -> Image.Image:
        """Return what the encoder is shown of a picture. Raises BadPicture."""
        return self._shown(picture)

    def decoded(self, original: Original) -> Image.Image:
        """Return the whole of an image, upright in RGB. Raises BadPicture."""
        # Pillow's pixels are decoded, and are the caller's to keep.
        return original.data if isinstance(original.data, Image.Image) else self._decoded(original)

    @contextmanager
    def ahead(self, picture: Picture) -> Iterator[None]:
        """Decode a picture whole while its box is written, so that the crop need not wait for it.

        What is decoded ahead is bounded as what is kept is: where there is no room, the crop waits.
        """
        size = picture.size[0] * picture.size[1] * _PIXEL_BYTES
        is_known = picture.original.key in self._wholes
        self._looks[is_known] += 1
        if is_known or self._bytes_ahead + size > _DECODED:
            yield
            return
        self._bytes_ahead += size
        decoding = asyncio.ensure_future(self._decode_ahead(picture.original))
        decoding.add_done_callback(lambda _: self._is_decoded(size))
        try:
            yield
        finally:
            decoding.cancel()

    async def _decode_ahead(self, original: Original) -> None:
        work = begin(self.decoded, original)
        try:
            await asyncio.wrap_future(work)
        except asyncio.CancelledError:
            if not work.cancel():  # a thread that has begun goes on, and its pixels count until it has done
                await asyncio.wrap_future(work)
            raise

    def _is_decoded(self, size: int) -> None:
        self._bytes_ahead -= size

    def counts(self) -> dict[str, tuple[int, int]]:
        """Return hits and misses.

        `opened`: images whose content was known to be readable; `decoded`: second looks that found theirs decoded.
        """
        opened = self._size.cache_info()
        return {"opened": (opened.hits, opened.misses), "decoded": (self._looks[True], self._looks[False])}

    def _judged(self, original: Original) -> Size:
        """Make what the encoder is shown, which tells whether the image is damaged; return its upright size."""
        size = self._scaled_size(original) or self.decoded(original).size
        self.shown(Picture(original, original.key, size))
        return size

    def _fitted(self, picture: Picture) -> Image.Image:
        return fit(self._pixels(picture), self._pad, self._side)

    def _pixels(self, picture: Picture) -> Image.Image:
        """Return what is fitted; whoever asks, it is the same for a key: a JPEG is scaled down by its decoder."""
        if picture.region is not None:
            return self.decoded(picture.original).crop(picture.region)
        if self._scaled_size(picture.original) is None:
            return self.decoded(picture.original)
        return picture.original.decoded(self._least)

    def _scaled_size(self, original: Original) -> Size | None:
        """Return the upright size of a large JPEG that need not be decoded whole for the encoder; None of others."""
        size = None if self._least is None else original.scaled_size(self._least)
        return size if size and size[0] * size[1] > _LARGE else None


def _bytes(image: Image.Image) -> int:
    return image.width * image.height * _PIXEL_BYTES
