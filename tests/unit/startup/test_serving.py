"""How serving ends, and what it does all along."""

import asyncio
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock

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


async def test_vllm_is_let_tell_its_statistics_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_LOG_STATS_INTERVAL", "0.001")
    llm = SimpleNamespace(do_log_stats=AsyncMock(side_effect=[None, None, InterruptedError]))
    with pytest.raises(InterruptedError):
        await serving._tell_statistics(llm)
    assert llm.do_log_stats.await_count == 3
