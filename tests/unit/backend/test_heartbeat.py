"""When the engine last made a step, as one process knows it and as several do."""

from dualfocus_engine.backend.heartbeat import Heartbeat, shared_time


def test_a_step_that_one_process_sees_is_known_to_all() -> None:
    """vLLM tells a process of its own outputs only: to the others an engine at work would look stopped."""
    shared = shared_time()
    one, other = Heartbeat(shared), Heartbeat(shared)
    before = other.last_step
    one.logger(None).record()  # type: ignore[arg-type]
    assert other.last_step == one.last_step > before


def test_by_itself_a_process_has_its_own() -> None:
    one, other = Heartbeat(), Heartbeat()
    before = other.last_step
    one.note_step()
    assert other.last_step == before < one.last_step
