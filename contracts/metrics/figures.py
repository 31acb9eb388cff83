"""One process's figures: what it counts as it goes, and what is read at the moment somebody asks.

Reading happens on the event loop, so that what is read belongs together; writing it out, which takes longer the more
rooms there are, happens beside it.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from contracts.jetstream.connection import Bus
from contracts.metrics import declared
from contracts.metrics.declared import Declared

MEDIA_TYPE: Final = CONTENT_TYPE_LATEST


class Reading(NamedTuple):
    """A value of a metric, with the values of its labels in their order."""

    metric: Declared
    value: float
    labels: tuple[str, ...] = ()


Read: TypeAlias = Callable[[], Iterable[Reading]]


class Figures:
    """Everything that one process exports."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # prometheus_client does not annotate it
        self._registry = CollectorRegistry(auto_describe=False)
        self._reads: list[Read] = []
        ProcessCollector(registry=self._registry)

    def counter(self, metric: Declared) -> Counter:
        """A counter of this process; used once per metric."""
        return Counter(metric.name, metric.help, metric.labels, registry=self._registry)

    def histogram(self, metric: Declared) -> Histogram:
        """A histogram of this process; used once per metric."""
        return Histogram(metric.name, metric.help, metric.labels, buckets=metric.buckets, registry=self._registry)

    def read(self, read: Read) -> None:
        """Call this for readings whenever somebody asks; it must not block."""
        self._reads.append(read)

    async def text(self) -> bytes:
        """All of it as it is now, in Prometheus' text format."""
        readings = [reading for read in self._reads for reading in read()]
        return await asyncio.to_thread(self._write, readings)

    def _write(self, readings: list[Reading]) -> bytes:
        return generate_latest(_Collected([*self._registry.collect(), *_families(readings)]))


def connection_readings(bus: Bus, places: dict[str, Path]) -> Read:
    """What every process says: how it stands with NATS, and how much is free on its disks, by the place's name."""

    def read() -> Iterator[Reading]:
        yield Reading(declared.NATS_CONNECTED, bus.connected)
        yield Reading(declared.NATS_RECONNECTS, bus.client.stats["reconnects"])
        yield Reading(declared.NATS_DENIED, bus.denied is not None)
        for name, path in places.items():
            with contextlib.suppress(OSError):  # a place that is not there yet has no reading
                yield Reading(declared.DISK_FREE, shutil.disk_usage(path).free, (name,))

    return read


class _Collected(Collector):
    """What was collected already."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        return self._families


def _families(readings: Iterable[Reading]) -> Iterable[Metric]:
    """Readings as prometheus_client's families."""
    families: dict[str, Metric] = {}
    for metric, value, labels in readings:
        family = families.get(metric.name)
        if family is None:
            base = metric.name.removesuffix("_total") if metric.kind == "counter" else metric.name
            family = families[metric.name] = Metric(base, metric.help, metric.kind)
        family.add_sample(metric.name, dict(zip(metric.labels, labels, strict=True)), value)
    return families.values()
