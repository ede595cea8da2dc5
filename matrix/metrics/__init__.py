"""Counting what happens: series that cost nanoseconds, exposed in Prometheus' formats."""

from __future__ import annotations

import platform

from prometheus_client import GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.registry import CollectorRegistry

import matrix
from matrix.metrics import series
from matrix.metrics._instruments import Counter, Gauge, Histogram
from matrix.metrics._lag import LoopLag
from matrix.metrics._merge import Merged, Merger
from matrix.metrics._registry import Registry, Snapshot
from matrix.metrics._requests import RequestMeter

__all__ = [
    "Counter",
    "Gauge",
    "Histogram",
    "LoopLag",
    "Merged",
    "Merger",
    "Registry",
    "RequestMeter",
    "Snapshot",
    "process_registry",
    "series",
]


def process_registry() -> Registry:
    """All of Matrix's series, those of this process and its interpreter, and build info."""
    registry = Registry()
    registry.gauge(series.BUILD_INFO, matrix.__version__, platform.python_version()).value = 1
    # The collectors register themselves with the registry they are given, but ours wants
    # to be the one who is asked: a registry apart keeps them from the global default.
    apart = CollectorRegistry()
    for collector in (ProcessCollector(registry=apart), PlatformCollector(registry=apart)):
        registry.include(collector)
    registry.include(GCCollector(apart))
    return registry
