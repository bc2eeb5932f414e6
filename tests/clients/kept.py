"""What libraries show nobody: the field of an answer that OpenAI does not know."""

import json
from typing import Any

import httpx


class Kept:
    """Keeps the `dualfocus` field of each answer: libraries show nothing that OpenAI does not know."""

    def __init__(self) -> None:
        self.fields: list[dict[str, Any]] = []
        self.client = httpx.Client(timeout=300, event_hooks={"response": [self._read]})
        self.asynchronous = httpx.AsyncClient(timeout=300, event_hooks={"response": [self._aread]})

    def _read(self, response: httpx.Response) -> None:
        self._keep(response.read())

    async def _aread(self, response: httpx.Response) -> None:
        self._keep(await response.aread())

    def _keep(self, body: bytes) -> None:
        lines = [line.removeprefix("data: ") for line in body.decode().splitlines()]
        told = [json.loads(line) for line in lines if line.startswith("{")]
        self.fields += [part["dualfocus"] for part in told if part.get("dualfocus")]
