"""`--grounder http:URL`: a server of one's own, asked by a JSON protocol of two fields each way."""

from types import TracebackType
from typing import Self

from dualfocus_engine import Box
from dualfocus_engine.machine.pool import run_in_image_pool
from PIL import Image
from pydantic import BaseModel, ConfigDict

from dualfocus_server.grounders.bounded_http import BoundedHttp, as_data_url, checked_url


class _Answer(BaseModel):
    """What is answered: left, top, right, bottom as shares of the picture; null where there is nothing to look at."""

    model_config = ConfigDict(strict=True)

    box: tuple[float, float, float, float] | None


class HttpGrounder:
    """Posts `{"image": data URL, "question": text}` to a URL; `{"box": [x1, y1, x2, y2]}` is answered, or null.

    Raises ConfigError where the URL is none.
    """

    def __init__(self, url: str) -> None:
        self._url = checked_url("http", url)
        self._http = BoundedHttp()

    async def __aenter__(self) -> Self:
        """Return it: nothing is asked yet."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close all connections."""
        await self._http.close()

    async def locate(self, picture: Image.Image, question: str) -> Box | None:
        """Ask where to look. Raises GrounderAnswerError and httpx's errors."""
        body = {"image": await run_in_image_pool(as_data_url, picture), "question": question}
        answer = await self._http.ask(_Answer, "POST", self._url, body)
        return Box(*answer.box) if answer.box is not None else None
