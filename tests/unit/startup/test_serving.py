"""How serving ends."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from dualfocus_server.startup import serving


async def test_error_that_ends_the_server_is_not_lost() -> None:
    async def serve(sockets: Any) -> None:
        raise OSError("the listener is gone")

    failing = asyncio.create_task(asyncio.Event().wait())
    nothing: Any = None
    with pytest.raises(OSError, match="the listener is gone"):
        await serving._serve_until(failing, SimpleNamespace(serve=serve), nothing, nothing, nothing)  # type: ignore[arg-type]
    assert failing.cancelling()
