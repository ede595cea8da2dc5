"""Counters, gauges and histograms hold what was added to them."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from matrix.metrics import Counter, Gauge, Histogram

finite = st.floats(allow_nan=False, allow_infinity=False, width=32)


class CounterTests(SynchronousTestCase):
    def test_starts_at_zero_and_grows(self) -> None:
        counter = Counter()
        self.assertEqual(counter.value, 0)
        counter.value += 3
        counter.value += 1
        self.assertEqual(counter.value, 4)

    def test_has_no_room_for_a_misspelt_attribute(self) -> None:
        with self.assertRaises(AttributeError):
            Counter().values = 1  # type: ignore[attr-defined]


class GaugeTests(SynchronousTestCase):
    def test_set_value(self) -> None:
        gauge = Gauge()
        gauge.value += 2
        gauge.value -= 1
        self.assertEqual(gauge.current(), 1)

    def test_read_wins_over_set(self) -> None:
        gauge = Gauge()
        gauge.value = 5
        gauge.read = lambda: 7.5
        self.assertEqual(gauge.current(), 7.5)


class HistogramTests(SynchronousTestCase):
    def test_a_bound_belongs_to_its_bucket(self) -> None:
        histogram = Histogram((1.0, 2.0))
        for value in (0.5, 1.0, 1.5, 2.0, 2.5):
            histogram.observe(value)
        self.assertEqual(histogram.counts, [2, 2, 1])
        self.assertEqual(histogram.total, 7.5)

    @given(st.lists(finite), st.lists(finite, unique=True).map(sorted))
    def test_every_measurement_is_in_exactly_one_bucket(
        self, values: list[float], bounds: list[float]
    ) -> None:
        histogram = Histogram(bounds)
        for value in values:
            histogram.observe(value)
        self.assertEqual(sum(histogram.counts), len(values))
        for index, bound in enumerate(bounds):
            self.assertEqual(
                sum(histogram.counts[: index + 1]), sum(value <= bound for value in values)
            )

    @given(st.lists(finite), st.lists(finite, unique=True).map(sorted))
    def test_many_at_once_are_counted_as_one_by_one(
        self, values: list[float], bounds: list[float]
    ) -> None:
        singly, together = Histogram(bounds), Histogram(bounds)
        for value in sorted(values):
            singly.observe(value)
        together.observe_all(values[:])
        self.assertEqual(together.counts, singly.counts)
        self.assertAlmostEqual(together.total, singly.total)
