"""`--grounder http:URL`: a server of one's own, asked by a JSON protocol of two fields each way."""

from dualfocus_engine import Box
from dualfocus_engine.machine.pool import run_in_image_pool
from PIL import Image
from pydantic import BaseModel, ConfigDict

from dualfocus_server.grounders.bounded_http import GrounderOverHttp, as_data_url, checked_url


class _Answer(BaseModel):
    """What is answered: left, top, right, bottom as shares of the picture; null where there is nothing to look at."""

    model_config = ConfigDict(strict=True)

    box: tuple[float, float, float, float] | None


class HttpGrounder(GrounderOverHttp):
    """Posts `{"image": data URL, "question": text}` to a URL; `{"box": [x1, y1, x2, y2]}` is answered, or null.

    Raises ConfigError where the URL is none.
    """

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = checked_url("http", url)

    async def locate(self, picture: Image.Image, question: str) -> Box | None:
        """Ask where to look. Raises GrounderAnswerError and httpx's errors."""
        body = {"image": await run_in_image_pool(as_data_url, picture), "question": question}
        answer = await self._http.ask(_Answer, "POST", self._url, body)
        return Box(*answer.box) if answer.box is not None else None
