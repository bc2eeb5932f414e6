"""Both ends of channels, in one process."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from dualfocus_server.startup.several.channel import Channel


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[Channel, Channel]]:
    """Two ends that read what the other sends; closed at the end."""
    ends = [await Channel.on(end) for end in socket.socketpair()]
    reading = [asyncio.create_task(end.until_closed()) for end in ends]
    try:
        yield ends[0], ends[1]
    finally:
        ends[0].close()
        await asyncio.gather(*reading)
