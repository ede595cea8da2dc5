"""One exposition of several processes: counts added up, and never going back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from matrix.metrics import series as table
from matrix.metrics._registry import Snapshot, render
from matrix.metrics.series import GaugeSeries, Merge, Series

GROWING = frozenset({"counter", "histogram"})
"""Types of families whose numbers only grow: they outlive the process that counted."""

_OF_PROCESSES: Mapping[str, Merge] = {
    "process_start_time_seconds": "min",
    "process_max_fds": "min",
    "python_info": "max",
}
"""Gauges of the exposition library's own that must not be added up."""

_Key = tuple[str, tuple[tuple[str, str], ...]]


@dataclass(slots=True)
class _Family:
    type: str
    help: str
    samples: dict[_Key, float] = field(default_factory=dict)


class Merger:
    """
    Knows what each process counted last.

    The numbers of one that ended stay: what it counted after it was last heard is lost, and
    nothing else.
    """

    def __init__(self, series: Sequence[Series] = table.TABLE) -> None:
        self._rules: dict[str, Merge] = dict(_OF_PROCESSES)
        for one in series:
            if isinstance(one, GaugeSeries):
                self._rules[one.name] = one.merge
        self._last: dict[int, Snapshot] = {}
        self._ended: dict[str, _Family] = {}

    def heard(self, source: int, snapshot: Snapshot) -> None:
        """What a process counted up to now."""
        self._last[source] = snapshot

    def ended(self, source: int) -> None:
        """A process is gone; another may take its name."""
        self._add(self._ended, self._last.pop(source, []), growing=True)

    def merged(self, own: Snapshot) -> Merged:
        """
        All of it together.

        @param own: what this process counted.
        """
        families: dict[str, _Family] = {}
        for snapshot in (own, *self._last.values()):
            self._add(families, snapshot)
        for name, family in self._ended.items():
            known = families.setdefault(name, _Family(family.type, family.help))
            for key, value in family.samples.items():
                known.samples[key] = known.samples.get(key, 0.0) + value
        return Merged(families)

    def _add(self, families: dict[str, _Family], snapshot: Snapshot, growing: bool = False) -> None:
        for name, kind, text, samples in snapshot:
            if growing and kind not in GROWING:
                continue
            known = families.setdefault(name, _Family(kind, text)).samples
            rule = "sum" if kind in GROWING else self._rules.get(name, "sum")
            for sample, labels, value in samples:
                key = (sample, tuple(labels.items()))
                known[key] = _combined(rule, known[key], value) if key in known else value


def _combined(rule: Merge, one: float, other: float) -> float:
    return {"sum": one + other, "max": max(one, other), "min": min(one, other)}[rule]


class Merged(Collector):
    """The series of several processes, as of one."""

    def __init__(self, families: Mapping[str, _Family]) -> None:
        self._families = families

    def number(self, one: GaugeSeries, *values: str) -> float:
        """A gauge's number; 0 if nobody has it."""
        family = self._families.get(one.name)
        key = (one.name, tuple(zip(one.labels, values, strict=True)))
        return 0.0 if family is None else family.samples.get(key, 0.0)

    def collect(self) -> Iterable[Metric]:
        """The families, as the exposition library wants them."""
        for name, family in self._families.items():
            metric = Metric(name, family.help, family.type)
            for (sample, labels), value in family.samples.items():
                metric.add_sample(sample, dict(labels), value)
            yield metric

    def render(self, accept: str = "") -> tuple[str, bytes]:
        """
        Everything, in the format that the C{Accept} field of the scrape asks for.

        @return: the content type and the text.
        """
        exposed = CollectorRegistry(auto_describe=False)
        exposed.register(self)
        return render(exposed, accept)
