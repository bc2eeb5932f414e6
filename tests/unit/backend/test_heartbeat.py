"""When each rank of the engine last made a step, as one process knows it and as several do."""

from dualfocus_engine.backend.heartbeat import Heartbeat, shared_times


def test_a_step_that_one_process_sees_is_known_to_all() -> None:
    """vLLM tells a process of its own outputs only: to the others an engine at work would look stopped."""
    shared = shared_times(1)
    one, other = Heartbeat(shared), Heartbeat(shared)
    before = other.last_step(0)
    one.logger(None).record()  # type: ignore[arg-type]
    assert other.last_step(0) == one.last_step(0) > before


def test_a_step_is_one_ranks() -> None:
    heartbeat = Heartbeat(shared_times(2))
    before = heartbeat.last_step(0)
    heartbeat.logger(None, 1).record()  # type: ignore[arg-type]
    assert heartbeat.last_step(1) > heartbeat.last_step(0) == before


def test_by_itself_a_process_has_its_own() -> None:
    one, other = Heartbeat(), Heartbeat()
    before = other.last_step(0)
    one.note_step(0)
    assert other.last_step(0) == before < one.last_step(0)


def test_a_rank_that_is_not_known_ends_nothing() -> None:
    """vLLM reads an engine's outputs no further where a logger raises."""
    Heartbeat().logger(None, 1).record()  # type: ignore[arg-type]
