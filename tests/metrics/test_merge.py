"""Counts of several processes become one exposition, and none ever goes back."""

from __future__ import annotations

import json

from prometheus_client.parser import text_string_to_metric_families
from twisted.trial.unittest import SynchronousTestCase

from matrix.metrics import Merged, Merger, Registry, process_registry
from matrix.metrics.series import CounterSeries, GaugeSeries, HistogramSeries

COUNT = CounterSeries("test_count", "Things.", ("kind",))
OPEN = GaugeSeries("test_open", "Open things.", ("side",))
STALE = GaugeSeries("test_stale", "Seconds.", merge="max")
FIRST = GaugeSeries("test_first", "When.", merge="min")
TOOK = HistogramSeries("test_seconds", "Seconds.", (1.0, 2.0))
TABLE = (COUNT, OPEN, STALE, FIRST, TOOK)


def samples(merged: Merged) -> dict[str, float]:
    """Everything, as a scraper reads it."""
    _, text = merged.render()
    return {
        f"{one.name}{sorted(one.labels.items())}": one.value
        for family in text_string_to_metric_families(text.decode())
        for one in family.samples
    }


class MergerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.own = Registry(TABLE)
        self.workers = [Registry(TABLE), Registry(TABLE)]
        self.merger = Merger(TABLE)

    def tell(self, number: int) -> None:
        """A worker says what it counted; the words go through a socket."""
        snapshot = json.loads(json.dumps(self.workers[number].snapshot()))
        self.merger.heard(number, snapshot)

    def merged(self) -> dict[str, float]:
        return samples(self.merger.merged(self.own.snapshot()))

    def test_counters_add_up(self) -> None:
        self.own.counter(COUNT, "a").value = 1
        for number in (0, 1):
            self.workers[number].counter(COUNT, "a").value = 10
            self.workers[number].counter(COUNT, "b").value = number
            self.tell(number)
        merged = self.merged()
        self.assertEqual(merged["test_count_total[('kind', 'a')]"], 21)
        self.assertEqual(merged["test_count_total[('kind', 'b')]"], 1)

    def test_histograms_add_up_bucket_by_bucket(self) -> None:
        for number, value in enumerate((0.5, 1.5)):
            self.workers[number].histogram(TOOK).observe(value)
            self.tell(number)
        merged = self.merged()
        self.assertEqual(merged["test_seconds_bucket[('le', '1.0')]"], 1)
        self.assertEqual(merged["test_seconds_bucket[('le', '2.0')]"], 2)
        self.assertEqual(merged["test_seconds_count[]"], 2)
        self.assertEqual(merged["test_seconds_sum[]"], 2.0)

    def test_gauges_are_merged_as_their_series_says(self) -> None:
        self.own.gauge(STALE).value = 3
        self.own.gauge(FIRST).value = 9
        for number, value in enumerate((5, 7)):
            worker = self.workers[number]
            for series in (STALE, FIRST):
                worker.gauge(series).value = value
            worker.gauge(OPEN, "client").value = value
            self.tell(number)
        merged = self.merged()
        self.assertEqual(merged["test_open[('side', 'client')]"], 12)
        self.assertEqual((merged["test_stale[]"], merged["test_first[]"]), (7, 5))

    def test_the_newest_word_of_a_worker_counts(self) -> None:
        for value in (1, 5):
            self.workers[0].counter(COUNT, "a").value = value
            self.tell(0)
        self.assertEqual(self.merged()["test_count_total[('kind', 'a')]"], 5)

    def test_what_a_dead_worker_counted_stays(self) -> None:
        worker = self.workers[0]
        worker.counter(COUNT, "a").value = 5
        worker.histogram(TOOK).observe(0.5)
        worker.gauge(OPEN, "client").value = 5
        self.tell(0)
        self.merger.ended(0)
        merged = self.merged()
        self.assertEqual(merged["test_count_total[('kind', 'a')]"], 5)
        self.assertEqual(merged["test_seconds_count[]"], 1)
        self.assertNotIn("test_open[('side', 'client')]", merged, "its connections are gone")

    def test_and_its_successor_counts_from_there(self) -> None:
        for _ in range(3):
            self.workers[0] = Registry(TABLE)
            self.workers[0].counter(COUNT, "a").value = 5
            self.tell(0)
            self.merger.ended(0)
        self.workers[0] = Registry(TABLE)
        self.tell(0)
        self.assertEqual(self.merged()["test_count_total[('kind', 'a')]"], 15)

    def test_one_that_ends_unheard_changes_nothing(self) -> None:
        self.merger.ended(0)
        self.assertEqual(self.merged()["test_seconds_count[]"], 0)

    def test_a_number_can_be_asked_for(self) -> None:
        self.workers[0].gauge(OPEN, "client").value = 4
        self.tell(0)
        merged = self.merger.merged(self.own.snapshot())
        self.assertEqual(merged.number(OPEN, "client"), 4)
        self.assertEqual(merged.number(OPEN, "machine"), 0)
        self.assertEqual(Merged({}).number(OPEN, "client"), 0)


class RealTests(SynchronousTestCase):
    """The registry that a router really has, the interpreter's series included."""

    def test_everything_of_one_is_there_in_the_merger_of_one(self) -> None:
        registry = process_registry()
        snapshot = registry.snapshot()
        alone = samples(Merger().merged(snapshot))
        told = {
            f"{name}{sorted(labels.items())}"
            for _, _, _, family in snapshot
            for name, labels, _ in family
        }
        self.assertEqual(set(alone), told)

    def test_what_must_not_be_added_is_not(self) -> None:
        registry, merger = process_registry(), Merger()
        alone = samples(merger.merged(registry.snapshot()))
        merger.heard(1, registry.snapshot())
        both = samples(merger.merged(registry.snapshot()))
        for name in ("process_start_time_seconds[]", "process_max_fds[]"):
            self.assertEqual(both[name], alone[name])
        for name, value in both.items():
            if name.startswith(("matrix_build_info", "python_info")):
                self.assertEqual(value, 1)
        memory = "process_resident_memory_bytes[]"
        self.assertGreater(both[memory], 1.5 * alone[memory])

    def test_open_metrics_if_asked_for(self) -> None:
        merged = Merger().merged(process_registry().snapshot())
        content_type, text = merged.render("application/openmetrics-text; version=1.0.0")
        self.assertTrue(content_type.startswith("application/openmetrics-text"))
        self.assertTrue(text.endswith(b"# EOF\n"))
