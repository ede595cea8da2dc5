"""Many callers, one attempt: each hears its outcome, and none spoils it for the others."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from matrix.flights import Flights


class FlightTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.flights: Flights[str] = Flights()
        self.begun: list[Deferred[str]] = []

    def join(self, name: str = "a") -> Deferred[str]:
        async def attempt() -> str:
            outcome: Deferred[str] = Deferred()
            self.begun.append(outcome)
            return await outcome

        return self.flights.join(name, attempt)

    def test_all_get_the_outcome_of_one(self) -> None:
        waiting = [self.join() for _ in range(5)]
        self.assertEqual(len(self.begun), 1)
        self.begun[0].callback("done")
        self.assertEqual([self.successResultOf(each) for each in waiting], ["done"] * 5)

    def test_or_its_failure(self) -> None:
        waiting = [self.join() for _ in range(5)]
        self.begun[0].errback(ValueError("no"))
        for each in waiting:
            self.failureResultOf(each, ValueError)

    def test_of_another_name_there_is_another(self) -> None:
        self.join("a")
        self.join("b")
        self.assertEqual(len(self.begun), 2)

    def test_who_comes_afterwards_begins_anew(self) -> None:
        self.join()
        self.begun[0].callback("done")
        again = self.join()
        self.assertNoResult(again)
        self.assertEqual(len(self.begun), 2)

    def test_who_leaves_leaves_alone(self) -> None:
        first, second = self.join(), self.join()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.begun[0].callback("done")
        self.assertEqual(self.successResultOf(second), "done")

    def test_it_goes_on_although_all_have_left(self) -> None:
        first = self.join()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        late = self.join()
        self.assertEqual(len(self.begun), 1, "and is joined by who comes now")
        self.begun[0].callback("done")
        self.assertEqual(self.successResultOf(late), "done")

    def test_who_comes_too_late_begins_another(self) -> None:
        first = self.join()
        self.flights.close("a")
        late, last = self.join(), self.join()
        self.assertEqual(len(self.begun), 2)
        self.begun[1].callback("second")
        self.assertEqual([self.successResultOf(each) for each in (late, last)], ["second"] * 2)
        self.assertNoResult(first)
        again = self.join()
        self.begun[0].callback("first")
        self.assertEqual(self.successResultOf(first), "first")
        self.assertNoResult(again)
        self.begun[2].callback("third")
        self.assertEqual(self.successResultOf(again), "third")

    def test_what_is_done_at_once_is_no_trouble(self) -> None:
        async def attempt() -> str:
            return "at once"

        for _ in range(2):
            self.assertEqual(self.successResultOf(self.flights.join("a", attempt)), "at once")

    def test_stopping_tells_who_waits(self) -> None:
        waiting = [self.join()]
        self.flights.close("a")
        waiting += [self.join(), self.join()]
        self.flights.stop()
        for each in waiting:
            self.failureResultOf(each, CancelledError)
