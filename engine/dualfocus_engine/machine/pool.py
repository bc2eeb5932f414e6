"""Threads for pictures: decoding, fitting and cropping never hold the event loop or each other's queue."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from dualfocus_engine.machine.cores import usable_cores

P = ParamSpec("P")
T = TypeVar("T")

_threads = ThreadPoolExecutor(max_workers=usable_cores(), thread_name_prefix="picture")


def submit(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
    """Give picture work to its own pool."""
    return _threads.submit(work, *args, **kwargs)


async def run_in_image_pool(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run picture work on its own pool and return its result."""
    return await asyncio.wrap_future(submit(work, *args, **kwargs))
