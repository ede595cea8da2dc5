"""Hands out the objects to count with, and renders them all for a scrape."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from twisted.logger import Logger

from matrix.metrics import series as table
from matrix.metrics._instruments import Counter, Gauge, Histogram
from matrix.metrics.series import CounterSeries, GaugeSeries, HistogramSeries, Series

FAMILY_LIMIT = 200
"""Label combinations kept per family. The widest, C{matrix_refused}, has some dozens of
rules; beyond the limit a client's input must have reached a label, and it must not cost
memory: the rest is counted under C{other}."""

OTHER = "other"

Sample = tuple[str, dict[str, str], float]
"""Its name, its labels, its value."""

Snapshot = list[tuple[str, str, str, list[Sample]]]
"""Name, type and help of each family, and its samples; it may pass through JSON."""

_log = Logger()
_Child = TypeVar("_Child", Counter, Gauge, Histogram)


class _Family(Generic[_Child]):
    """The children of one series, by label values."""

    def __init__(self, series: Series, make: Callable[[], _Child]) -> None:
        self.series = series
        self.children: dict[tuple[str, ...], _Child] = {}
        self._make: Callable[[], _Child] = make

    def child(self, values: tuple[str, ...]) -> _Child:
        found = self.children.get(values)
        if found is not None:
            return found
        if len(values) != len(self.series.labels):
            raise ValueError(f"{self.series.name} has labels {self.series.labels}, not {values}")
        if len(self.children) >= FAMILY_LIMIT and values:
            values = (OTHER,) * len(values)
        return self.children.setdefault(values, self._make())


class Registry(Collector):
    """
    Every series of a table, its children made on first use.

    Resolve a child once (C{held = registry.gauge(series.HELD_REQUESTS)}), then add to it.
    A child without labels exists, at zero, from the start. One thread only.
    """

    def __init__(self, series: Sequence[Series] = table.TABLE) -> None:
        self._counters: dict[str, _Family[Counter]] = {}
        self._gauges: dict[str, _Family[Gauge]] = {}
        self._histograms: dict[str, _Family[Histogram]] = {}
        for one in series:
            self._add(one)
        self._before: list[Callable[[], None]] = []
        self._exposed = CollectorRegistry(auto_describe=True)
        self._exposed.register(self)

    def _add(self, one: Series) -> None:
        if one.name in {**self._counters, **self._gauges, **self._histograms}:
            raise ValueError(f"two series are named {one.name}")
        match one:
            case CounterSeries():
                self._counters[one.name] = counters = _Family(one, Counter)
                if not one.labels:
                    counters.child(())
            case GaugeSeries():
                self._gauges[one.name] = gauges = _Family(one, Gauge)
                if not one.labels:
                    gauges.child(())
            case HistogramSeries(bounds=bounds):
                self._histograms[one.name] = histograms = _Family(one, lambda: Histogram(bounds))
                if not one.labels:
                    histograms.child(())

    def counter(self, series: CounterSeries, *values: str) -> Counter:
        """
        The counter with these label values.

        @raise ValueError: the number of values is not the number of the series' labels.
        """
        return self._counters[series.name].child(values)

    def gauge(self, series: GaugeSeries, *values: str) -> Gauge:
        """
        The gauge with these label values.

        @raise ValueError: the number of values is not the number of the series' labels.
        """
        return self._gauges[series.name].child(values)

    def watch(
        self, series: CounterSeries | GaugeSeries, read: Callable[[], float], *values: str
    ) -> None:
        """
        Let C{read} be asked for the number at each scrape; it must not block.

        @raise ValueError: the number of values is not the number of the series' labels.
        """
        if isinstance(series, CounterSeries):
            self.counter(series, *values).read = read
        else:
            self.gauge(series, *values).read = read

    def histogram(self, series: HistogramSeries, *values: str) -> Histogram:
        """
        The histogram with these label values.

        @raise ValueError: the number of values is not the number of the series' labels.
        """
        return self._histograms[series.name].child(values)

    def before_scrape(self, work: Callable[[], None]) -> None:
        """Have C{work} bring the numbers up to date before each scrape; it must not block."""
        self._before.append(work)

    def include(self, collector: Collector) -> None:
        """Expose what another collector knows, after our own series."""
        self._exposed.register(collector)

    def collect(self) -> Iterable[Metric]:
        """The state of all series, as the exposition library wants it."""
        for work in self._before:
            work()
        for counters in self._counters.values():
            yield _counter_metric(counters)
        for gauges in self._gauges.values():
            yield _gauge_metric(gauges)
        for histograms in self._histograms.values():
            yield _histogram_metric(histograms)

    def number(self, one: GaugeSeries, *values: str) -> float:
        """What the gauge with these label values reads now."""
        return self.gauge(one, *values).current()

    def snapshot(self) -> Snapshot:
        """Everything as it is now, for another process."""
        return [
            (
                metric.name,
                metric.type,
                metric.documentation,
                [(one.name, dict(one.labels), float(one.value)) for one in metric.samples],
            )
            for metric in self._exposed.collect()
        ]

    def render(self, accept: str = "") -> tuple[str, bytes]:
        """
        Everything, in the format that the C{Accept} field of the scrape asks for.

        @return: the content type and the text.
        """
        return render(self._exposed, accept)


def render(exposed: Any, accept: str) -> tuple[str, bytes]:
    """
    What is collected, in the format that an C{Accept} field asks for.

    @return: the content type and the text.
    """
    try:
        encode, content_type = choose_encoder(accept)
    except (TypeError, ValueError):  # the library chokes on a version that is no number
        encode, content_type = choose_encoder("")
    return content_type, encode(exposed)


def _counter_metric(family: _Family[Counter]) -> Metric:
    series = family.series
    metric = CounterMetricFamily(series.name, series.help, labels=series.labels)
    for values, value in _numbers(family):
        metric.add_metric(values, value)
    return metric


def _gauge_metric(family: _Family[Gauge]) -> Metric:
    series = family.series
    metric = GaugeMetricFamily(series.name, series.help, labels=series.labels)
    for values, value in _numbers(family):
        metric.add_metric(values, value)
    return metric


def _numbers(family: _Family[Counter] | _Family[Gauge]) -> Iterator[tuple[Sequence[str], float]]:
    for values, number in family.children.items():
        try:
            yield values, number.current()
        except Exception:  # noqa: BLE001 - one broken source must not hide all other series
            _log.failure("cannot read the series {name}", name=family.series.name)


def _histogram_metric(family: _Family[Histogram]) -> Metric:
    series = family.series
    assert isinstance(series, HistogramSeries)
    bounds = [*map(str, series.bounds), "+Inf"]
    metric = HistogramMetricFamily(series.name, series.help, labels=series.labels)
    for values, histogram in family.children.items():
        buckets, so_far = [], 0
        for bound, count in zip(bounds, histogram.counts, strict=True):
            so_far += count
            buckets.append((bound, float(so_far)))
        metric.add_metric(values, buckets, histogram.total)
    return metric
