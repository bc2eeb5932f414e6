"""Asks a running server about scenes, many questions at a time."""

import base64
import io
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from random import Random

from dualfocus_client.client import ask
from PIL import Image
from tqdm import tqdm

from dualfocus_eval.boxes import Box
from dualfocus_eval.outcomes import Outcome, chosen_of, outcome_of
from dualfocus_eval.scenes.held_out import Asked, held_out

# Table 5: pixels of the picture that boxes are shifted by.
SHIFTS = (10, 25, 150)


@dataclass(frozen=True)
class Server:
    """Where questions go, and how many at a time."""

    base_url: str
    api_key: str | None = None
    concurrency: int = 16
    timeout: float = 120.0


def ask_all(server: Server, seed: int, count: int) -> list[Outcome]:
    """Ask about `count` scenes, a bar on stderr showing how far it is. Raises AskError."""
    asked = list(held_out(seed, count))
    with ThreadPoolExecutor(server.concurrency) as threads:
        answers = threads.map(lambda one: look(server, one), asked)
        return list(tqdm(answers, total=len(asked), unit="question", smoothing=0.05))


def look(server: Server, asked: Asked) -> Outcome:
    """Ask one question: as it is, then, where a box was found, under one prompt, and with the box shifted (Table 5)."""
    url = _url(asked.picture)

    def answered(box: Box | None = None, scoring: str = "own") -> dict[str, object]:
        where = (server.base_url, server.api_key, server.timeout)
        corners = box.as_tuple() if box else None
        return ask(url, asked.question.question, *where, mode="dual", box=corners, scoring=scoring)

    outcome = outcome_of(asked.question, answered())
    if outcome.box is None or not outcome.box.area:
        return outcome
    shared = chosen_of(answered(outcome.box, scoring="shared"))
    shifted = {pixels: chosen_of(answered(_shifted(outcome.box, pixels, asked))) for pixels in SHIFTS}
    return replace(outcome, shared=shared, shifted=shifted)


def _shifted(box: Box, pixels: int, asked: Asked) -> Box:
    """The box moved by so many pixels in a direction drawn by the question's number, kept within the picture."""
    angle = Random(f"shift/{asked.number}").uniform(0, 2 * math.pi)
    wide, high = asked.picture.size
    across = _within(pixels * math.cos(angle) / wide, box.x1, box.x2)
    down = _within(pixels * math.sin(angle) / high, box.y1, box.y2)
    return Box(max(0.0, box.x1 + across), max(0.0, box.y1 + down), min(1.0, box.x2 + across), min(1.0, box.y2 + down))


def _within(move: float, low: float, high: float) -> float:
    return min(max(move, -low), 1.0 - high)


def _url(picture: Image.Image) -> str:
    png = io.BytesIO()
    picture.save(png, "PNG", compress_level=1)
    return f"data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}"
