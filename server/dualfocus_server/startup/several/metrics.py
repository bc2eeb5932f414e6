"""The metrics of all processes as one, whichever of them is asked.

Ordinary counters and histograms are kept in files (Prometheus's multiprocess mode), where each process can add them up.
What is read at each scrape is asked of every process.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from prometheus_client import GC_COLLECTOR, PLATFORM_COLLECTOR, PROCESS_COLLECTOR, CollectorRegistry, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from dualfocus_server.startup.several.channel import Channel
from dualfocus_server.telemetry.metrics import LIVE

# Each about one process: they are told apart by a label.
_OF_A_PROCESS = ("process_", "python_")
# A time for each set of adapters, which the multiprocess mode adds up to one that never was.
_LEFT_OUT = "vllm:lora_requests_info"

Families: TypeAlias = Sequence[Metric]


def live_families() -> list[Metric]:
    """Return what this process reads at each scrape."""
    return [*LIVE.collect(), *PROCESS_COLLECTOR.collect(), *GC_COLLECTOR.collect()]


def merged(by_process: Mapping[str, Families]) -> list[Metric]:
    """Return the families of several processes as one: values are added up, those of a process by itself labelled."""
    whole: dict[str, Metric] = {}
    values: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
    for process, families in by_process.items():
        for family in families:
            whole.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            added = values.setdefault(family.name, {})
            own = {"process": process} if family.name.startswith(_OF_A_PROCESS) else {}
            for sample in family.samples:
                key = (sample.name, tuple(sorted({**sample.labels, **own}.items())))
                added[key] = added.get(key, 0.0) + sample.value
    for name, added in values.items():
        whole[name].samples = [Sample(sample, dict(labels), value) for (sample, labels), value in added.items()]
    return list(whole.values())


class _All(Collector):
    def __init__(self, live: Families) -> None:
        self._live = live

    def collect(self) -> Iterator[Metric]:
        collector: Any = MultiProcessCollector  # it has no types
        counted = collector(None).collect()
        yield from (family for family in counted if family.name != _LEFT_OUT)
        yield from self._live
        yield from PLATFORM_COLLECTOR.collect()


async def shared_metrics(channel: Channel) -> bytes:
    """Return the metrics of all processes in Prometheus's text format; the parent asks each for its own."""
    registry = CollectorRegistry()
    registry.register(_All(merged(await channel.ask("live"))))
    return generate_latest(registry)
