"""What the load generator is told to do, as JSON between two processes."""

from typing import Any, Literal

from dualfocus_eval.scenes.mixes import STANDARD
from pydantic import BaseModel, ConfigDict

Asks = Literal["macro", "adaptive", "dual", "off", "chat", "calls", "search", "search-calls"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Side(_Strict):
    """One of the things that are compared: a server, and how it is asked.

    `chat` is a plain call of vLLM's own server, `calls` the three calls of a client, `search-calls` those
    of one that looks on, the others are modes.
    """

    name: str
    url: str
    model: str
    asks: Asks
    sampling: dict[str, Any]


class Cell(_Strict):
    """One side's questions in one round; `moments` are the seconds at which they are due, in an open loop."""

    side: str
    round: int
    users: int
    questions: list[int]
    moments: list[float] | None = None


class Order(_Strict):
    """Rounds, each of a cell a side; `model` is the folder whose profile the client's calls are worded by; `mix` the
    scenes that are asked about.
    """

    model: str
    sides: list[Side]
    warm_up: list[Cell]
    rounds: list[list[Cell]]
    seconds: float
    least_rounds: int = 1
    mix: str = STANDARD
