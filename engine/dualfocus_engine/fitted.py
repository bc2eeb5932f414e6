"""Pictures as the encoder is shown them, made once for all turns that need them."""

import asyncio

from cachetools import LRUCache
from PIL import Image

from dualfocus_engine.pictures import Picture, fit
from dualfocus_engine.pool import in_thread
from dualfocus_engine.profiles import Profile

# Bytes of pixels kept for the turns to come; the largest picture that `fit` makes takes 192 MB of them.
_KEPT = 256 << 20


class FittedPictures:
    """Fits pictures by a profile, each once; those used last are kept."""

    def __init__(self, profile: Profile, kept: int = _KEPT) -> None:
        self._profile = profile
        self._done: LRUCache[str, Image.Image] = LRUCache(kept, getsizeof=_bytes)
        self._making: dict[str, asyncio.Task[Image.Image]] = {}

    async def of(self, picture: Picture) -> Image.Image:
        """Return the picture fitted to the encoder; the work is done off the event loop."""
        done = self._done.get(picture.key)
        if done is not None:
            return done
        making = self._making.get(picture.key)
        if making is None:
            making = self._making[picture.key] = asyncio.create_task(self._make(picture))
        # Whoever leaves does not take it from those who wait for the same picture.
        return await asyncio.shield(making)

    async def _make(self, picture: Picture) -> Image.Image:
        try:
            made = await in_thread(fit, picture.image, self._profile.pad, self._profile.side)
        finally:
            del self._making[picture.key]
        if _bytes(made) <= self._done.maxsize:
            self._done[picture.key] = made
        return made


def _bytes(image: Image.Image) -> int:
    return image.width * image.height * len(image.getbands())
