"""One `/metrics` for all processes."""

import os
import subprocess
import sys
from pathlib import Path

from dualfocus_server.startup.several.metrics import merged
from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily


def families(turns: float, found: float, memory: float) -> list[Metric]:
    """What one process reads at a scrape."""
    hits = CounterMetricFamily("hits", "Found.", labels=["kind"])
    hits.add_metric(["opened"], found)
    memories = GaugeMetricFamily("process_resident_memory_bytes", "Memory.", memory)
    return [GaugeMetricFamily("turns", "Turns.", turns), hits, memories]


def test_values_are_added_up_and_those_of_a_process_told_apart() -> None:
    parents = [GaugeMetricFamily("places", "Places.", 5)]
    whole = merged({"parent": parents, "0": families(1, 2, 100), "1": families(3, 4, 200)})
    assert [(family.name, family.type, family.documentation) for family in whole[:2]] == [
        ("places", "gauge", "Places."),
        ("turns", "gauge", "Turns."),
    ]
    samples = {(sample.name, *sample.labels.values()): sample.value for family in whole for sample in family.samples}
    assert samples == {
        ("places",): 5,
        ("turns",): 4,
        ("hits_total", "opened"): 6,
        ("process_resident_memory_bytes", "0"): 100,
        ("process_resident_memory_bytes", "1"): 200,
    }


# A process of the multiprocess mode: what it counted, then what a scrape of it shows of all.
_COUNTING = """
import asyncio, sys
from dualfocus_server.startup.several.metrics import live_families, merged, shared_metrics
from dualfocus_server.telemetry.metrics import record_failure, watch_engine
record_failure(504)
watch_engine(lambda: 7, dict)
class Channel:
    async def ask(self, name):
        return {"parent": [], "0": live_families()}
print(asyncio.run(shared_metrics(Channel())).decode())
"""


def test_what_each_process_counted_is_one_sum_and_what_is_read_is_there_once(tmp_path: Path) -> None:
    environment = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    for times in (1, 2):
        command = [sys.executable, "-c", _COUNTING]
        told = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.splitlines()
        assert f'dualfocus_questions_total{{outcome="timeout_error"}} {times}.0' in told
        assert [line for line in told if line.startswith("dualfocus_unfinished_turns")] == [
            "dualfocus_unfinished_turns 7.0"
        ]
