"""The wheel: no deadline comes early, none much late, and none stops another."""

import gc
import weakref
from math import inf

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from matrix.net import IWheel, Wheel
from matrix.net._wheel import HORIZON, TICK


class Item:
    """Notes when it expired."""

    def __init__(self, clock: Clock) -> None:
        self.deadline = inf
        self.wheel_due = inf
        self.fired: list[float] = []
        self._clock = clock

    def expired(self) -> None:
        self.fired.append(self._clock.seconds())


class Failing(Item):
    def expired(self) -> None:
        super().expired()
        raise ZeroDivisionError


def turn(clock: Clock, seconds: float, step: float = TICK / 5) -> None:
    for _ in range(round(seconds / step)):
        clock.advance(step)


class WheelCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000.1)
        self.wheel = Wheel(self.clock)
        self.wheel.start()

    def item(self, seconds: float | None = None) -> Item:
        item = Item(self.clock)
        if seconds is not None:
            self.wheel.arm(item, seconds)
        return item


class WheelTests(WheelCase):
    def test_tells_how_many_it_keeps(self) -> None:
        clock = Clock()
        wheel = Wheel(clock)
        wheel.start()
        items = [Item(clock) for _ in range(3)]
        for item in items:
            wheel.arm(item, 2)
        items[0].deadline = inf
        self.assertEqual(len(wheel), 3)
        turn(clock, 3)
        self.assertEqual(len(wheel), 0)

    def test_is_one(self) -> None:
        verifyObject(IWheel, self.wheel)

    def test_fires_once(self) -> None:
        item = self.item(1)
        turn(self.clock, 5)
        self.assertEqual(len(item.fired), 1)
        self.assertEqual(item.deadline, inf)

    def test_disarmed(self) -> None:
        item = self.item(1)
        item.deadline = inf
        turn(self.clock, 5)
        self.assertEqual(item.fired, [])

    def test_armed_anew_after_that(self) -> None:
        item = self.item(1)
        item.deadline = inf
        turn(self.clock, 0.5)
        self.wheel.arm(item, 1)
        turn(self.clock, 5)
        self.assertEqual(len(item.fired), 1)

    def test_later(self) -> None:
        item = self.item(1)
        turn(self.clock, 0.9)
        self.wheel.arm(item, 3)
        turn(self.clock, 2.9)
        self.assertEqual(item.fired, [])
        turn(self.clock, 1)
        self.assertEqual(len(item.fired), 1)

    def test_earlier(self) -> None:
        item = self.item(100)
        self.wheel.arm(item, 1)
        turn(self.clock, 2)
        self.assertEqual(len(item.fired), 1)
        turn(self.clock, 120)
        self.assertEqual(len(item.fired), 1)

    def test_beyond_the_horizon(self) -> None:
        item = self.item(HORIZON * 2.5)
        turn(self.clock, HORIZON * 2.5 - 1)
        self.assertEqual(item.fired, [])
        turn(self.clock, 2)
        self.assertEqual(len(item.fired), 1)

    def test_failing_item_stops_no_other(self) -> None:
        failing = Failing(self.clock)
        self.wheel.arm(failing, 1)
        same_tick, later = self.item(1), self.item(3)
        turn(self.clock, 5)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual([len(one.fired) for one in (failing, same_tick, later)], [1, 1, 1])

    def test_may_arm_itself_anew(self) -> None:
        wheel = self.wheel

        class Again(Item):
            def expired(self) -> None:
                super().expired()
                wheel.arm(self, 0)

        item = Again(self.clock)
        wheel.arm(item, 0)
        turn(self.clock, 5)
        self.assertGreater(len(item.fired), 5)

    def test_all_that_was_due_comes_when_the_loop_was_blocked(self) -> None:
        items = [self.item(seconds) for seconds in (1, 5, 9)]
        self.clock.advance(10)
        self.assertEqual([len(item.fired) for item in items], [1, 1, 1])

    def test_now_is_the_last_tick(self) -> None:
        before = self.wheel.now
        self.clock.advance(TICK / 2)
        self.assertEqual(self.wheel.now, before)
        self.clock.advance(TICK / 2)
        self.assertEqual(self.wheel.now, self.clock.seconds())

    def test_stops(self) -> None:
        item = self.item(1)
        self.wheel.stop()
        self.wheel.stop()
        turn(self.clock, 5)
        self.assertEqual((item.fired, self.clock.getDelayedCalls()), ([], []))

    def test_holds_nothing_that_is_gone_for_long(self) -> None:
        """A stream may be silent for an hour; one that ended must not be kept for it."""
        item = self.item(3600)
        gone = weakref.ref(item)
        item.deadline = inf
        del item
        turn(self.clock, HORIZON + 1)
        gc.collect()
        self.assertIsNone(gone())


TIMES = st.floats(min_value=0, max_value=90, allow_nan=False)


class AnyTimesTests(SynchronousTestCase):
    @settings(max_examples=300, deadline=None)
    @given(
        st.lists(st.tuples(st.floats(0, 3), TIMES), min_size=1, max_size=8),
        st.sampled_from([0.25, 0.1, 0.03]),
        st.floats(0, 10000),
    )
    def test_never_early_and_never_two_ticks_late(
        self, arms: list[tuple[float, float]], tick: float, start: float
    ) -> None:
        """However often it is armed anew, the last time counts."""
        clock = Clock()
        clock.advance(start)
        wheel = Wheel(clock, tick)
        wheel.start()
        item, step, due = Item(clock), tick / 3, start
        for pause, seconds in arms:
            turn(clock, pause, step)
            wheel.arm(item, seconds)
            item.fired.clear()
            due = clock.seconds() + seconds
        turn(clock, due - clock.seconds() + 3 * tick, step)
        self.assertEqual(len(item.fired), 1)
        self.assertGreaterEqual(item.fired[0], due - 1e-6)
        self.assertLess(item.fired[0], due + 2 * tick + step)
