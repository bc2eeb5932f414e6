"""Memory that threads hold at once: never more than there is, in the order of coming."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from dualfocus_engine.machine.memory_budget import MemoryBudget

from ..fake_engine import WAIT


def test_no_more_is_held_at_once_than_there_is() -> None:
    budget, lock, held, most = MemoryBudget(100), threading.Lock(), [0], [0]
    amounts = np.random.default_rng(3).integers(0, 101, 300)

    def work(amount: int) -> None:
        with budget.hold(amount):
            with lock:
                held[0] += amount
                most[0] = max(most[0], held[0])
            with lock:
                held[0] -= amount

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(work, map(int, amounts)))
    assert 0 < most[0] <= 100
    with budget.hold(100):
        pass


def test_who_needs_much_is_not_passed_by_those_who_need_little() -> None:
    budget, came = MemoryBudget(100), []

    def work(name: str, amount: int) -> None:
        with budget.hold(amount):
            came.append(name)

    with ThreadPoolExecutor(2) as threads:
        with budget.hold(50):
            much = threads.submit(work, "much", 100)
            while len(budget._waiting) < 1:
                pass
            little = threads.submit(work, "little", 10)
            while len(budget._waiting) < 2:
                pass
            assert came == []
        much.result(WAIT)
        little.result(WAIT)
    assert came == ["much", "little"]


def test_what_needs_more_than_there_is_gets_all_of_it_alone() -> None:
    budget = MemoryBudget(100)
    with budget.hold(1000):
        assert budget._free == 0
    assert budget._free == 100


def test_nothing_is_held_after_an_error() -> None:
    budget = MemoryBudget(100)
    try:
        with budget.hold(60):
            raise ValueError
    except ValueError:
        assert budget._free == 100
