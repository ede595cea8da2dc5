"""What was counted is exposed as Prometheus' own library reads it."""

from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as openmetrics_families,
)
from prometheus_client.parser import text_string_to_metric_families
from twisted.trial.unittest import SynchronousTestCase

from matrix.metrics import Registry, series
from matrix.metrics._registry import FAMILY_LIMIT, OTHER
from matrix.metrics.series import CounterSeries, GaugeSeries, HistogramSeries

HITS = CounterSeries("hits", "Hits.", ("who", "how"))
PLAIN = CounterSeries("plain", "Without labels.")
LEVEL = GaugeSeries("level", "A level.", ("of",))
DEPTH = GaugeSeries("depth", "A depth.")
TOOK = HistogramSeries("took_seconds", "Duration.", (0.1, 1.0), ("phase",))
SUFFIX = {CounterSeries: "_total", GaugeSeries: "", HistogramSeries: "_count"}
TABLE = (HITS, PLAIN, LEVEL, DEPTH, TOOK)


def samples(registry: Registry) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample of the text format, by name and labels."""
    _, text = registry.render()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


class RegistryTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.registry = Registry(TABLE)

    def test_same_labels_same_child(self) -> None:
        first = self.registry.counter(HITS, "alice", "tls")
        self.assertIs(self.registry.counter(HITS, "alice", "tls"), first)
        self.assertIsNot(self.registry.counter(HITS, "bob", "tls"), first)

    def test_counter_is_exposed_with_its_labels(self) -> None:
        self.registry.counter(HITS, "alice", 'quo"te\\\n').value += 2
        self.assertEqual(
            samples(self.registry)["hits_total", (("how", 'quo"te\\\n'), ("who", "alice"))], 2
        )

    def test_series_without_labels_are_there_from_the_start(self) -> None:
        found = samples(self.registry)
        self.assertEqual(found["plain_total", ()], 0)
        self.assertEqual(found["depth", ()], 0)

    def test_gauge_is_read_at_each_scrape(self) -> None:
        answers = iter((1.5, 2.5))
        self.registry.watch(DEPTH, lambda: next(answers))
        self.assertEqual(samples(self.registry)["depth", ()], 1.5)
        self.assertEqual(samples(self.registry)["depth", ()], 2.5)

    def test_counter_of_another_room_is_read_at_each_scrape(self) -> None:
        self.registry.watch(HITS, lambda: 41, "a", "b")
        self.assertEqual(samples(self.registry)["hits_total", (("how", "b"), ("who", "a"))], 41)

    def test_histogram_is_exposed_cumulatively(self) -> None:
        took = self.registry.histogram(TOOK, "auth")
        for seconds in (0.05, 0.5, 5.0):
            took.observe(seconds)
        found = samples(self.registry)
        phase = ("phase", "auth")
        self.assertEqual(found["took_seconds_bucket", (("le", "0.1"), phase)], 1)
        self.assertEqual(found["took_seconds_bucket", (("le", "1.0"), phase)], 2)
        self.assertEqual(found["took_seconds_bucket", (("le", "+Inf"), phase)], 3)
        self.assertEqual(found["took_seconds_count", (phase,)], 3)
        self.assertAlmostEqual(found["took_seconds_sum", (phase,)], 5.55)

    def test_wrong_number_of_labels_is_refused(self) -> None:
        with self.assertRaisesRegex(ValueError, "hits has labels"):
            self.registry.counter(HITS, "alice")

    def test_two_series_of_one_name_are_refused(self) -> None:
        with self.assertRaisesRegex(ValueError, "two series are named plain"):
            Registry((PLAIN, GaugeSeries("plain", "Again.")))

    def test_labels_beyond_the_limit_are_counted_together(self) -> None:
        for number in range(FAMILY_LIMIT + 50):
            self.registry.counter(HITS, str(number), "x").value += 1
        found = samples(self.registry)
        self.assertEqual(found["hits_total", (("how", OTHER), ("who", OTHER))], 50)
        self.assertEqual(sum(name == "hits_total" for name, _ in found), FAMILY_LIMIT + 1)

    def test_a_broken_gauge_hides_only_itself(self) -> None:
        self.registry.watch(DEPTH, lambda: 1 / 0)
        self.registry.gauge(LEVEL, "water").value = 3
        found = samples(self.registry)
        self.assertNotIn(("depth", ()), found)
        self.assertEqual(found["level", (("of", "water"),)], 3)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class NegotiationTests(SynchronousTestCase):
    def test_plain_text_unless_asked(self) -> None:
        content_type, text = Registry(TABLE).render()
        self.assertTrue(content_type.startswith("text/plain; version=0.0.4"), content_type)
        self.assertNotIn(b"# EOF", text)

    def test_openmetrics_when_asked(self) -> None:
        registry = Registry(TABLE)
        registry.counter(HITS, "a", "b").value = 4
        content_type, text = registry.render("application/openmetrics-text;version=1.0.0,*/*")
        self.assertTrue(content_type.startswith("application/openmetrics-text"), content_type)
        hits = next(f for f in openmetrics_families(text.decode()) if f.name == "hits")
        self.assertEqual((hits.type, hits.samples[0].value), ("counter", 4))

    def test_nonsense_gets_plain_text(self) -> None:
        for accept in ("text/plain;version=zz", ";;;", "application/openmetrics-text;version=x.y"):
            content_type, text = Registry(TABLE).render(accept)
            self.assertIn("text", content_type)
            self.assertIn(b"# HELP plain", text)


class TableTests(SynchronousTestCase):
    def test_every_series_can_be_counted_and_is_exposed(self) -> None:
        registry = Registry()
        for one in series.TABLE:
            values = ("x",) * len(one.labels)
            match one:
                case CounterSeries():
                    registry.counter(one, *values).value += 1
                case GaugeSeries():
                    registry.gauge(one, *values).value += 1
                case HistogramSeries():
                    registry.histogram(one, *values).observe(1)
        found = {name for name, _ in samples(registry)}
        for one in series.TABLE:
            suffix = {CounterSeries: "_total", GaugeSeries: "", HistogramSeries: "_count"}[
                type(one)
            ]
            self.assertIn(one.name + suffix, found)

    def test_names_carry_prefix_and_unit(self) -> None:
        for one in series.TABLE:
            self.assertTrue(one.name.startswith("matrix_"), one.name)
            self.assertFalse(one.name.endswith("_total"), one.name)
            self.assertTrue(one.help.endswith("."), one.name)
            if isinstance(one, HistogramSeries):
                self.assertTrue(one.name.endswith("_seconds"), one.name)
                self.assertEqual(list(one.bounds), sorted(set(one.bounds)))

    def test_every_constant_is_in_the_table(self) -> None:
        named = {
            value
            for name, value in vars(series).items()
            if name.isupper() and isinstance(value, CounterSeries | GaugeSeries | HistogramSeries)
        }
        self.assertEqual(named, set(series.TABLE))
