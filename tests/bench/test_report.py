"""What the bench makes of its rounds."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from bench.measure import Effort
from bench.processes import BenchError
from bench.report import details, document, judged, summary
from bench.runner import Outcome
from bench.scenarios import SCENARIOS, Bar, Scenario


def outcome(bars: tuple[Bar, ...], **rounds: list[float]) -> Outcome:
    """Of a scenario with one figure, C{ms}."""

    def measure(*_: object) -> dict[str, float]:
        raise BenchError("not to be measured")

    scenario = Scenario("name", "A title", tuple(rounds), measure, bars)
    figures = {peer: [{"ms": value} for value in values] for peer, values in rounds.items()}
    return Outcome(scenario, figures, busy=[0.0, 0.5])


class BarTests(SynchronousTestCase):
    """Which figure a bar is about, and whether it is met."""

    def test_a_median_is_judged(self) -> None:
        """One bad round of three does not count."""
        bar = Bar("ms", "<=", 2.0, unit="ms")
        found = judged(outcome((bar,), matrix=[1.0, 1.5, 99.0]), bar)
        assert found is not None
        self.assertEqual(found[0], 1.5)
        self.assertTrue(bar.met(found[0]))

    def test_a_ratio_is_ours_by_theirs(self) -> None:
        """At least 1.2 times Envoy's."""
        bar = Bar("ms", ">=", 1.2, "envoy")
        found = judged(outcome((bar,), matrix=[11.0], envoy=[10.0]), bar)
        assert found is not None
        self.assertAlmostEqual(found[0], 1.1)
        self.assertFalse(bar.met(found[0]))

    def test_ratios_are_taken_within_rounds(self) -> None:
        """A machine that is twice as slow in one round is so for both."""
        bar = Bar("ms", ">=", 1.2, "envoy")
        found = judged(outcome((bar,), matrix=[10.0, 20.0, 90.0], envoy=[5.0, 10.0, 30.0]), bar)
        assert found is not None
        self.assertEqual(found[0], 2.0)

    def test_what_the_load_generator_measures_alone_is_taken_off(self) -> None:
        """Latency over direct."""
        bar = Bar("ms", "<=", 0.3, over="direct", unit="ms")
        found = judged(outcome((bar,), matrix=[1.0], direct=[0.75]), bar)
        assert found is not None
        self.assertEqual(found[0], 0.25)

    def test_a_bar_without_its_peer_is_left_out(self) -> None:
        """Not judged, rather than judged by something else."""
        bar = Bar("ms", ">=", 1.2, "envoy")
        measured = outcome((bar,), matrix=[1.0])
        self.assertIsNone(judged(measured, bar))
        self.assertNotIn("envoy", summary([measured]))


class TextTests(SynchronousTestCase):
    """RESULTS.md."""

    def test_a_missed_bar_stands_out(self) -> None:
        """It is written in bold."""
        bar = Bar("ms", "<=", 0.5, unit="ms")
        text = summary([outcome((bar,), matrix=[1.0])])
        self.assertIn("| A title | ms | ≤ 0.5 ms | 1 | **no** |", text)

    def test_a_failed_peer_is_named_with_its_reason(self) -> None:
        """It is not silently missing."""
        measured = outcome((), matrix=[1.0])
        measured.failures["caddy"] = "12 errors"
        self.assertIn("- caddy failed: 12 errors", details(measured))
        measured.rounds.clear()
        self.assertIn("- caddy failed: 12 errors", details(measured))

    def test_noise_is_told(self) -> None:
        """The reader learns that others used the machine."""
        text = document([outcome((), direct=[1.0])], 1, Effort(), ["--only", "name"])
        self.assertIn("Before 1 of 2 rounds others used more than 10% of the machine", text)
        self.assertIn("`script/bench --only name`", text)


class TableTests(SynchronousTestCase):
    """The scenarios as they are."""

    def test_bars_are_about_peers_that_take_part(self) -> None:
        """A bar with another peer would never be judged."""
        for scenario in SCENARIOS.values():
            for bar in scenario.bars:
                others = {bar.peer, bar.over} - {None}
                self.assertLessEqual(others, set(scenario.peers), scenario.name)
