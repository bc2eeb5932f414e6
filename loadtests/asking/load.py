"""The load generator, a process of its own: `python -m loadtests.asking.load ORDER RESULT`.

Locust's users ask what the order lists, cell by cell. A cell is one side's questions: asked by as many users as its
concurrency says, each asking its next question once it has its answer (a closed loop); or at given moments, a user for
each (an open loop). Locust times every question; the result is JSON, written anew after every round.
"""

import json
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gevent
from dualfocus_engine.families.choosing import profile_of
from dualfocus_engine.families.profiles import Profile
from gevent.event import Event
from locust import FastHttpUser, constant, task
from locust.env import Environment
from locust.exception import StopUser

from loadtests.asking.calls import Cost, Json, ask_chat, ask_focus, ask_in_three_calls
from loadtests.asking.order import Cell, Order, Side
from loadtests.asking.questions import Asked, asked
from loadtests.asking.search_calls import search_in_calls

# Seconds that any request may take; only where a server hangs is it reached.
_PATIENCE = 240.0
# Greenlets that are spawned a second: more than any cell has users, so that all begin at once.
_AT_ONCE = 100.0
# Seconds between looks at whether a cell has begun or ended.
_POLL_INTERVAL_S = 0.005


class Failed(Exception):
    """A request that was not answered with 200."""


class Round:
    """One cell as it is run: its questions, handed out one by one, and what came of them."""

    def __init__(self, side: Side, cell: Cell, profile: Profile, mix: str) -> None:
        self.side, self.cell, self.profile = side, cell, profile
        moments = cell.moments or [0.0] * len(cell.questions)
        # Drawn before time counts.
        self.waiting = deque(zip(moments, [asked(number, mix) for number in cell.questions], strict=True))
        for _, question in self.waiting:
            assert question.url
        self.opened = Event()
        self.began = 0.0
        self.records: list[Json] = []

    def open(self) -> None:
        """Let the users go."""
        self.began = time.perf_counter()
        self.opened.set()

    @property
    def clock(self) -> float:
        """Seconds since the round began."""
        return time.perf_counter() - self.began


class Asker(FastHttpUser):
    """A user: takes the next question, waits until it is due, asks."""

    wait_time = constant(0)
    network_timeout = connection_timeout = _PATIENCE
    host = "http://127.0.0.1"
    round: Round

    @task
    def ask_next(self) -> None:
        """Ask one question and tell locust how long it took."""
        current = self.round
        current.opened.wait()
        if not current.waiting:
            raise StopUser
        due, question = current.waiting.popleft()
        gevent.sleep(max(due - current.clock, 0.0))
        started = current.clock
        cost, error = self._answered(current, question)
        # In an open loop a question waits from the moment it was due, whoever kept it.
        since = due if current.cell.moments else started
        self.environment.events.request.fire(
            request_type="question",
            name=current.side.name,
            response_time=1000 * (current.clock - since),
            response_length=0,
            exception=error,
            context={"began": since, "late": started - due if current.cell.moments else 0.0, "cost": cost},
        )

    def _answered(self, current: Round, question: Asked) -> tuple[Cost | None, Exception | None]:
        try:
            return _ask(self._post, current, question), None
        except Exception as error:  # whatever it is, it is this question's, and is written down
            return None, error

    def _post(self, name: str, body: Json) -> Json:
        started = time.perf_counter()
        with self.client.post("/v1/chat/completions", json=body, name=name, catch_response=True) as response:
            if response.status_code != 200:
                response.failure(f"status {response.status_code}")
                raise Failed(f"{name}: status {response.status_code} {(response.text or response.error or '')!s:.300}")
            answer: Json = response.json()
        return answer | {"seconds": time.perf_counter() - started}


def _ask(post: Callable[[str, Json], Json], current: Round, question: Asked) -> Cost:
    side = current.side
    if side.asks == "calls":
        return ask_in_three_calls(post, _together, current.profile, side.model, question, side.sampling)
    if side.asks == "search-calls":
        return search_in_calls(post, _together, current.profile, side.model, question, side.sampling)
    if side.asks == "chat":
        return ask_chat(post, side.model, question, side.sampling)
    return ask_focus(post, side.model, question, side.asks, side.sampling)


def _together(one: Callable[[], Json], other: Callable[[], Json]) -> tuple[Json, Json]:
    running = [gevent.spawn(one), gevent.spawn(other)]
    gevent.joinall(running, raise_error=True)
    return running[0].value, running[1].value


def run_cell(side: Side, cell: Cell, profile: Profile, mix: str) -> Json:
    """Run one cell to its end; returns its records and locust's statistics of it."""
    current = Round(side, cell, profile, mix)
    Asker.host, Asker.round = side.url, current
    environment = Environment(user_classes=[Asker])
    environment.events.request.add_listener(_recorder(current))  # type: ignore[no-untyped-call]
    runner = environment.create_local_runner()
    runner.start(cell.users, spawn_rate=_AT_ONCE)
    while runner.user_count < cell.users:
        gevent.sleep(_POLL_INTERVAL_S)
    current.open()
    while len(current.records) < len(cell.questions):
        gevent.sleep(_POLL_INTERVAL_S)
    runner.quit()
    return {
        "side": side.name,
        "round": cell.round,
        "users": cell.users,
        "records": current.records,
        "locust": environment.stats.serialize_stats(),
    }


def _recorder(current: Round) -> Callable[..., None]:
    def record(request_type: str, response_time: float, exception: Exception | None, context: Any, **_: Any) -> None:
        if request_type != "question":
            return
        cost = context["cost"]
        current.records.append(
            {
                "began": context["began"],
                "late": context["late"],
                "seconds": response_time / 1000,
                "error": None if exception is None else f"{type(exception).__name__}: {exception}",
                "cost": None if cost is None else asdict(cost),
            }
        )

    return record


def run(order: Order, result: Path) -> None:
    """Run an order round by round; no further round begins once its time is over, but for the least number."""
    profile = profile_of(order.model)
    sides = {side.name: side for side in order.sides}
    for cell in order.warm_up:
        run_cell(sides[cell.side], cell, profile, order.mix)
    cells: list[Json] = []
    began = time.perf_counter()
    for number, one_round in enumerate(order.rounds):
        if number >= order.least_rounds and time.perf_counter() - began > order.seconds:
            break
        cells += [run_cell(sides[cell.side], cell, profile, order.mix) for cell in one_round]
        result.write_text(json.dumps(cells), encoding="utf-8")


if __name__ == "__main__":
    run(Order.model_validate_json(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(sys.argv[2]))
