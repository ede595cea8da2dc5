"""What retention keeps: what restic would, and what a machine cannot talk away."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from matrix.snapshots.retention import Rules, Taken, keep, span, surplus

RULES = Rules(timedelta(days=2), timedelta(days=30), timedelta(days=366))
NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def ago(**spans: float) -> datetime:
    return NOW - timedelta(**spans)


def named(*times: datetime) -> dict[str, datetime]:
    return {str(number): at for number, at in enumerate(times)}


TIMES = st.lists(st.integers(-800 * 86400, 3 * 86400), max_size=60).map(
    lambda offsets: named(*(NOW + timedelta(seconds=one) for one in offsets))
)


class KeepTests(SynchronousTestCase):
    def test_the_last_of_each_hour_for_two_days(self) -> None:
        times = named(*(ago(minutes=5 * step) for step in range(12 * 49)))
        kept = keep(times, RULES, NOW)
        hours = {times[id].replace(minute=0) for id in kept}
        self.assertEqual(len(hours), 49)
        self.assertEqual(len(kept), 49)
        self.assertEqual({times[id].minute for id in kept}, {0, 55})

    def test_then_of_each_day_then_of_each_week(self) -> None:
        times = named(*(ago(hours=6 * step) for step in range(4 * 400)))
        kept = sorted(times[id] for id in keep(times, RULES, NOW))
        month = [at for at in kept if ago(days=30) < at < ago(days=3)]
        self.assertEqual({at.hour for at in month}, {18})
        self.assertEqual(len(month), 27)
        year = [at for at in kept if at < ago(days=40)]
        self.assertEqual({at.isoweekday() for at in year}, {7})
        self.assertGreater(year[0], ago(days=367))

    def test_who_was_away_keeps_what_there_was(self) -> None:
        times = named(ago(days=900), ago(days=901), ago(days=905))
        self.assertEqual(keep(times, RULES, NOW), {"0", "1", "2"})

    @settings(deadline=None)
    @given(TIMES)
    def test_the_newest_stays_and_the_future_too(self, times: dict[str, datetime]) -> None:
        kept = keep(times, RULES, NOW)
        past = [at for at in times.values() if at <= NOW]
        self.assertTrue(not past or max(past) in {times[id] for id in kept})
        self.assertLessEqual({id for id, at in times.items() if at > NOW}, kept)

    @settings(deadline=None)
    @given(TIMES)
    def test_twice_is_as_good_as_once(self, times: dict[str, datetime]) -> None:
        kept = keep(times, RULES, NOW)
        left = {id: at for id, at in times.items() if id in kept}
        self.assertEqual(keep(left, RULES, NOW), kept)

    @settings(deadline=None)
    @given(TIMES, TIMES)
    def test_nothing_that_is_said_takes_away_what_was_noted(
        self, said: dict[str, datetime], forged: dict[str, datetime]
    ) -> None:
        true = [Taken(id, at, at) for id, at in said.items()]
        lies = [Taken(f"forged-{id}", at) for id, at in forged.items()]
        alone = surplus(true, RULES, NOW)
        together = surplus([*true, *lies], RULES, NOW)
        self.assertEqual([id for id in together if not id.startswith("forged")], alone)

    def test_a_machine_that_lies_about_the_time_keeps_more_not_less(self) -> None:
        taken = [Taken(str(n), ago(days=n), ago(minutes=n)) for n in range(5)]
        self.assertEqual(surplus(taken, RULES, NOW), [])


class SpanTests(SynchronousTestCase):
    def test_units(self) -> None:
        for text, days in (("36h", 1.5), ("2d", 2), ("6m", 186), ("1y6m", 552)):
            self.assertEqual(span(text), timedelta(days=days))

    def test_what_is_none(self) -> None:
        for text in ("", "2", "d", "2w", "1d x"):
            with self.assertRaises(ValueError):
                span(text)
