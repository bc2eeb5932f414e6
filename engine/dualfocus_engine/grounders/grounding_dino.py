"""GroundingDINO as the grounder ("DualFocus-DINO", Table 11), in a process of its own.

The paper says neither which size it was, nor what it was asked, nor what became of several boxes or of none: the
phrases (`phrases`), the thresholds and the union of what is found (`detector`) are this project's choice.
"""

import asyncio
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import ParamSpec, Self, TypeVar

from PIL import Image

from dualfocus_engine.errors import ConfigError
from dualfocus_engine.families.boxes import Box
from dualfocus_engine.grounders import detector
from dualfocus_engine.grounders.phrases import caption_of

DEFAULT_MODEL = "IDEA-Research/grounding-dino-tiny"

P = ParamSpec("P")
T = TypeVar("T")


class GroundingDino:
    """Finds what a question names. One picture is looked at at a time; others wait.

    `model` is a folder or a name on the hub, `device` one of torch's (`cpu`, `cuda:1`). A call that is
    cancelled while it waits is never run; one that runs goes on to its end, and what it finds is dropped.
    """

    def __init__(self, model: str = DEFAULT_MODEL, device: str = "cpu") -> None:
        self._model, self._device = model, device
        self._process = _start()
        self._turn = asyncio.Lock()

    async def __aenter__(self) -> Self:
        """Load the model. Raises ConfigError."""
        try:
            await self._run(detector.load, self._model, self._device)
        except Exception as error:
            await self._stop()
            raise ConfigError(
                f"--grounder grounding-dino: {self._model!r} can't be loaded on {self._device}: {error}"
            ) from error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the process, once it has looked at what it is looking at."""
        await self._stop()

    async def locate(self, picture: Image.Image, question: str) -> Box | None:
        """Return what holds all that is found of the question's phrases. Raises BrokenProcessPool, torch's errors."""
        async with self._turn:
            return await self._run(detector.locate, self._model, self._device, picture, caption_of(question))

    async def _run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        process = self._process
        try:
            return await asyncio.wrap_future(process.submit(work, *args, **kwargs))
        except BrokenProcessPool:
            if process is self._process:  # the next question finds a new one, and loads the model again
                self._process = _start()
            raise

    async def _stop(self) -> None:
        await asyncio.to_thread(self._process.shutdown, cancel_futures=True)


def _start() -> ProcessPoolExecutor:
    """Return a process, started with the first work it is given; none is forked from the server's threads."""
    spawn = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(1, spawn, initializer=detector.end_with_parent)
