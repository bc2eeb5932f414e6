"""Images that clients name by a uuid, so that they need not send them again.

A uuid is a name within one API key and one `cache_salt`; vLLM, whose caches would go by it alone, never sees it.
"""

from contextlib import suppress
from typing import Protocol

from cachetools import LRUCache

_MAX_BYTES = 256 << 20
_MAX_IMAGES = 1 << 14


class ImageNames(Protocol):
    """What images mean by client, salt and uuid: `NamedImages`, of this process or of several."""

    async def keep(self, client: str, salt: str | None, uuid: str, data: bytes) -> None:
        """Let a uuid mean an image from now on, whatever it meant before."""

    async def find(self, client: str | None, salt: str | None, uuid: str) -> bytes | None:
        """Return the image that a uuid means; None where it means none."""


class NamedImages:
    """Encoded images by client, salt and uuid: what was used last is kept, within `most_bytes` and `most_images`."""

    def __init__(self, most_bytes: int = _MAX_BYTES, most_images: int = _MAX_IMAGES) -> None:
        least = most_bytes // most_images
        self._kept: LRUCache[tuple[str | None, str | None, str], bytes] = LRUCache(
            most_bytes, lambda data: max(len(data), least)
        )

    async def keep(self, client: str, salt: str | None, uuid: str, data: bytes) -> None:
        """Let a uuid mean an image from now on, whatever it meant before; one that is too large is not kept."""
        self._kept.pop((client, salt, uuid), None)
        with suppress(ValueError):
            self._kept[client, salt, uuid] = data

    async def find(self, client: str | None, salt: str | None, uuid: str) -> bytes | None:
        """Return the image that a uuid means; None where it means none."""
        return self._kept.get((client, salt, uuid))
