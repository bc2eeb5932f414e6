"""`--grounder model:URL`: another model behind OpenAI's chat completions, asked in a profile's words."""

from typing import Any

from dualfocus_engine import Box, ConfigError, Profile
from dualfocus_engine.machine.pool import run_in_image_pool
from PIL import Image
from pydantic import BaseModel

from dualfocus_server.grounders.bounded_http import GrounderAnswerError, GrounderOverHttp, as_data_url, checked_url


class _Model(BaseModel):
    id: str


class _Models(BaseModel):
    data: list[_Model]


class _Message(BaseModel):
    content: str


class _Choice(BaseModel):
    message: _Message


class _Completion(BaseModel):
    choices: list[_Choice]


class ModelGrounder(GrounderOverHttp):
    """Asks the first model that a server lists; `url` is what OpenAI's clients call the base URL (`…/v1`).

    Raises ConfigError where the URL is none, or the profile's boxes can't be read here.
    """

    def __init__(self, url: str, profile: Profile) -> None:
        super().__init__()
        self._url = checked_url("model", url).rstrip("/")
        self._profile = profile
        self._model: str | None = None
        _check(profile)

    async def locate(self, picture: Image.Image, question: str) -> Box | None:
        """Ask where to look; None where no box is written. Raises what `HttpGrounder` does."""
        if self._model is None:
            self._model = await self._first_model()
        body = self._request(self._model, await run_in_image_pool(as_data_url, picture), question)
        try:
            answer = await self._http.ask(_Completion, "POST", f"{self._url}/chat/completions", body)
        except GrounderAnswerError:
            self._model = None  # another may be served since
            raise
        if not answer.choices:
            raise GrounderAnswerError(f"{self._url} answered no choice")
        written = answer.choices[0].message.content
        box_format = self._profile.box_format
        # The opening can't be put in the model's mouth over HTTP: it writes it, or goes on as if it had.
        return box_format.read(written) or box_format.read(box_format.opening + written)

    async def _first_model(self) -> str:
        models = await self._http.ask(_Models, "GET", f"{self._url}/models")
        if not models.data:
            raise GrounderAnswerError(f"{self._url}/models lists no model")
        return models.data[0].id

    def _request(self, model: str, image: str, question: str) -> dict[str, Any]:
        profile = self._profile
        asked = [
            {"type": "image_url", "image_url": {"url": image}},
            {"type": "text", "text": profile.grounding_text(question)},
        ]
        system = [{"role": "system", "content": profile.system}] if profile.system is not None else []
        body = {
            "model": model,
            "messages": [*system, {"role": "user", "content": asked}],
            "temperature": 0,
            "max_tokens": profile.max_box_tokens,
        }
        # vLLM's own fields: sent only where the profile needs them.
        if told := profile.chat_template_kwargs | profile.grounding_template_kwargs:
            body["chat_template_kwargs"] = told
        if profile.box_format.keep_special_tokens:
            body["skip_special_tokens"] = False
        return body


def _check(profile: Profile) -> None:
    """Raise ConfigError where a profile's model can't be asked for boxes over HTTP."""
    if not profile.grounds:
        why = "its model can't say where something is"
    elif profile.box_format.scale == "pixels":
        why = "its boxes are pixels of the picture as the model is shown it, whose size is not known here"
    else:
        return
    raise ConfigError(f"--grounder model: the profile {profile.name!r} can't be used ({why}): see --grounder-profile.")
