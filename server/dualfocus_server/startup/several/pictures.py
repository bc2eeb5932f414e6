"""Pictures that clients name by a uuid, where several processes answer requests: each name is one process's to know."""

import zlib
from collections.abc import Awaitable
from typing import cast

from dualfocus_server.images.named_images import NamedImages
from dualfocus_server.startup.several.channel import Channel


class SharedNames:
    """Keeps the images whose names are this process's (`index` of `count`), and asks the others for theirs."""

    def __init__(self, channel: Channel, index: int, count: int) -> None:
        self._channel = channel
        self._index, self._count = index, count
        self._own = NamedImages()
        channel.answers |= {"keep": self._own.keep, "find": self._own.find}

    async def keep(self, client: str, salt: str | None, uuid: str, data: bytes) -> None:
        """Let a uuid mean an image from now on, whichever process is asked about it."""
        await self._ask("keep", client, salt, uuid, data)

    async def find(self, client: str | None, salt: str | None, uuid: str) -> bytes | None:
        """Return the image that a uuid means; None where it means none."""
        return cast("bytes | None", await self._ask("find", client, salt, uuid))

    def owner(self, client: str | None, salt: str | None, uuid: str) -> int:
        """Return the process that knows what a uuid means."""
        return zlib.crc32(repr((client, salt, uuid)).encode()) % self._count

    def _ask(self, name: str, client: str | None, salt: str | None, uuid: str, *data: bytes) -> Awaitable[object]:
        owner = self.owner(client, salt, uuid)
        if owner == self._index:
            return cast("Awaitable[object]", self._channel.answers[name](client, salt, uuid, *data))
        return self._channel.ask("pass_on", owner, name, client, salt, uuid, *data)
