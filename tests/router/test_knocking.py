"""Knocking at a machine that comes up: flat, hedged, and as often as time and others allow."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from matrix.router.knocking import (
    CONNECT_SECONDS,
    INTERVAL,
    PER_SECOND,
    RESTORING_AGAIN,
    SELDOM,
    Knocking,
    Knocks,
    RoundTrips,
)
from matrix.testing.relayed import Relayed

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
RESTORING = (
    b"HTTP/1.1 503 Busy\r\nMatrix-Machine: restoring; done=1; total=2\r\nContent-Length: 0\r\n\r\n"
)


class RoundTripsTests(SynchronousTestCase):
    def test_nothing_is_known_at_first(self) -> None:
        self.assertEqual(RoundTrips().limit("fra"), RoundTrips.UNKNOWN)

    def test_places_are_told_apart(self) -> None:
        trips = RoundTrips()
        for _ in range(50):
            trips.note("fra", 0.02)
            trips.note("syd", 0.3)
        self.assertApproximates(trips.limit("fra"), RoundTrips.LEAST, 0.001)
        self.assertApproximates(trips.limit("syd"), 0.3, 0.01)
        self.assertEqual(trips.limit("ams"), RoundTrips.UNKNOWN)

    def test_a_way_that_varies_is_waited_for_longer(self) -> None:
        steady, unsteady = RoundTrips(), RoundTrips()
        for number in range(50):
            steady.note("fra", 0.1)
            unsteady.note("fra", 0.05 if number % 2 else 0.15)
        self.assertGreater(unsteady.limit("fra"), steady.limit("fra") + 0.1)

    @given(st.lists(st.floats(0, 100), min_size=1))
    def test_it_is_never_absurd(self, seconds: list[float]) -> None:
        trips = RoundTrips()
        for one in seconds:
            trips.note("fra", one)
        self.assertTrue(RoundTrips.LEAST <= trips.limit("fra") <= CONNECT_SECONDS)


class KnockingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.relayed = Relayed()
        self.clock = self.relayed.clock
        self.endpoint = self.relayed.endpoint
        self.knocks = Knocks(self.clock)
        self.told: list[bytes] = []

    def knock(self) -> Knocking:
        return Knocking(self.knocks, self.relayed.backend, "fra", self.told.append)

    def pass_time(self, seconds: float, step: float = 0.001) -> list[float]:
        """The times at which it was tried meanwhile."""
        times = []
        for _ in range(round(seconds / step)):
            before = self.endpoint.attempts
            self.clock.advance(step)
            times += [self.clock.seconds()] * (self.endpoint.attempts - before)
        return times

    def refuse(self) -> None:
        self.endpoint.refuse = ConnectionRefusedError()

    def test_the_first_answer_ends_it(self) -> None:
        knocking = self.knock()
        self.assertNoResult(knocking.answered)
        self.relayed.machine.receive(OK)
        self.successResultOf(knocking.answered)
        self.assertEqual(self.pass_time(5.0), [])
        self.assertEqual(self.knocks.under_way, 0)
        self.assertIsNotNone(self.relayed.backend.take(), "kept for the first request")

    def test_refusals_are_followed_flatly(self) -> None:
        self.refuse()
        knocking = self.knock()
        gaps = [after - before for before, after in pairwise(self.pass_time(1.0))]
        self.assertApproximates(min(gaps), INTERVAL, 0.0015)
        self.assertApproximates(max(gaps), INTERVAL, 0.0015)
        knocking.answered.addErrback(lambda _: None)
        knocking.answered.cancel()
        self.assertEqual(self.pass_time(1.0), [])

    def test_a_crowd_leaves_time_for_all_else(self) -> None:
        self.refuse()
        for number in (100, 100_000):
            self.knocks.under_way = number
            self.assertEqual(self.knocks.interval, min(number / PER_SECOND, SELDOM))

    def test_a_packet_that_is_lost_costs_no_second(self) -> None:
        for _ in range(20):
            self.knocks.trips.note("fra", 0.02)
        self.endpoint.hold = True
        knocking = self.knock()
        self.assertLess(self.pass_time(0.2)[0], 0.05)
        self.endpoint.waiting.pop(0)  # lost
        self.endpoint.accept().receive(OK)
        self.successResultOf(knocking.answered)

    def test_packets_that_are_not_answered_are_not_kept_for_ever(self) -> None:
        self.endpoint.hold = True
        self.knock()
        self.pass_time(30.0, step=0.01)
        waiting = [attempt for attempt, _ in self.endpoint.waiting if not attempt.called]
        self.assertLess(len(waiting), CONNECT_SECONDS / RoundTrips.LEAST)
        self.assertGreater(self.endpoint.attempts, 30)

    def test_who_accepts_and_is_silent_is_asked_again_but_seldom(self) -> None:
        knocking = self.knock()
        self.assertLess(len(self.pass_time(3.0)), 8)
        self.assertGreater(len(self.endpoint.made), 2)
        former, latest = self.endpoint.made[-2:]
        latest.receive(OK)
        self.successResultOf(knocking.answered)
        self.assertTrue(former.aborted, "nobody waits for its answer any more")

    def test_a_nudge_asks_at_once(self) -> None:
        self.refuse()
        self.knocks.under_way = 10_000
        knocking = self.knock()
        self.pass_time(0.1)
        self.endpoint.refuse = None
        knocking.nudge()
        self.relayed.machine.receive(OK)
        self.successResultOf(knocking.answered)
        knocking.nudge()  # too late, and no harm

    def test_one_that_is_asked_already_needs_no_nudge(self) -> None:
        knocking = self.knock()
        knocking.nudge()
        self.assertEqual(self.endpoint.attempts, 1)

    def test_one_that_restores_is_heard_and_asked_again(self) -> None:
        knocking = self.knock()
        self.relayed.machine.receive(RESTORING)
        self.assertEqual(self.told, [b"restoring; done=1; total=2"])
        self.assertEqual(len(self.pass_time(RESTORING_AGAIN + 0.01)), 1)
        self.relayed.machine.receive(OK)
        self.successResultOf(knocking.answered)

    def test_an_error_of_ours_ends_it(self) -> None:
        self.endpoint.refuse = RuntimeError("a mistake")
        knocking = self.knock()
        self.failureResultOf(knocking.answered, RuntimeError)  # type: ignore[no-untyped-call]
        self.assertEqual(self.knocks.under_way, 0)
