"""How long a question's stages take."""

import pytest
from dualfocus_engine.method.stages import Stages


def test_a_stage_counts_all_it_took_also_where_it_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([1.0, 3.0, 10.0, 14.0, 20.0, 21.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(times))
    stages = Stages()
    with stages.time("fetch"):
        pass
    with pytest.raises(ValueError, match="broken"), stages.time("decode"):
        raise ValueError("broken")
    with stages.time("fetch"):
        pass
    assert stages == {"fetch": 3.0, "decode": 4.0}
