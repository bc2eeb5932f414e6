"""Images that clients name by a uuid, so that they need not send them again.

A uuid is a name within one API key and one `cache_salt`; vLLM, whose caches would go by it alone, never sees it.
"""

from contextlib import suppress

from cachetools import LRUCache
from dualfocus_engine import BadPicture

_MAX_BYTES = 256 << 20
_MAX_IMAGES = 1 << 14


class NamedImages:
    """Encoded images by client, salt and uuid: what was used last is kept, within `most_bytes` and `most_images`."""

    def __init__(self, most_bytes: int = _MAX_BYTES, most_images: int = _MAX_IMAGES) -> None:
        least = most_bytes // most_images
        self._kept: LRUCache[tuple[str | None, str | None, str], bytes] = LRUCache(
            most_bytes, lambda data: max(len(data), least)
        )

    def keep(self, client: str, salt: str | None, uuid: str, data: bytes) -> None:
        """Let a uuid mean an image from now on, whatever it meant before; one that is too large is not kept."""
        self._kept.pop((client, salt, uuid), None)
        with suppress(ValueError):
            self._kept[client, salt, uuid] = data

    def find(self, client: str | None, salt: str | None, uuid: str) -> bytes:
        """Return the image that a uuid means. Raises BadPicture."""
        data = self._kept.get((client, salt, uuid))
        if data is None:
            raise BadPicture(
                f"There is no image of the uuid {uuid!r}: send it once with its image_url, under the same API key and "
                "cache_salt. What was not asked about for long is forgotten."
            )
        return data
