"""A line before something that one at a time may do."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from matrix.machines._fly_line import Line


class LineTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.line = Line()
        self.at_it: list[str] = []
        self.ends: dict[str, Deferred[None]] = {}

    def come(self, name: str, priority: int = 0) -> Deferred[None]:
        async def work() -> None:
            async with self.line.turn(priority):
                self.at_it.append(name)
                await self.ends.setdefault(name, Deferred())

        return Deferred.fromCoroutine(work())

    def end(self, name: str) -> None:
        self.ends[name].callback(None)

    def test_one_at_a_time_as_they_come(self) -> None:
        for name in "abc":
            self.come(name)
        self.assertEqual(self.at_it, ["a"])
        self.end("a")
        self.assertEqual(self.at_it, ["a", "b"])
        self.end("b")
        self.end("c")
        self.come("d")
        self.assertEqual(self.at_it, ["a", "b", "c", "d"])

    def test_the_urgent_ones_first(self) -> None:
        for name, priority in (("a", 0), ("later", 3), ("sooner", 1), ("sooner too", 1)):
            self.come(name, priority)
        for name in ("a", "sooner", "sooner too", "later"):
            self.assertEqual(self.at_it[-1], name)
            self.end(name)

    def test_who_gives_up_is_passed_over_wherever_they_are(self) -> None:
        first, second = self.come("a"), self.come("b")
        self.come("c")
        second.cancel()
        self.failureResultOf(second, CancelledError)
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.assertEqual(self.at_it, ["a", "c"])
