"""One coarse timer for every deadline of the process: re-arming costs two comparisons."""

from __future__ import annotations

from math import inf

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from matrix.net.interfaces import IWheel, Timed

TICK = 0.25
"""Seconds between two looks at the deadlines: limits are whole seconds, so this is exact
enough, and four wake-ups a second cost nothing."""

HORIZON = 60.0
"""Seconds: how far ahead an item is kept at most. What is disarmed or gone stays in its slot
until that comes up, and must not be held for the hour that a stream may be silent."""

_log = Logger()


@implementer(IWheel)
class Wheel:
    """
    Deadlines in slots of one tick each; none comes early, nor two ticks late.

    An item stays in the slot it was first put in; a deadline that moved later meanwhile is
    noticed when that slot comes up. So moving a deadline later, which connections do on
    every read, is a mere assignment.
    """

    def __init__(self, clock: IReactorTime, tick: float = TICK) -> None:
        self._clock = clock
        self._tick = tick
        self._ahead = int(HORIZON / tick)
        self._slots: dict[int, list[Timed]] = {}
        self._call: IDelayedCall | None = None
        self.now: float = clock.seconds()
        """The time of the last tick, in the clock's seconds: cheap, and good enough here."""
        self._next = self.now + tick
        """The time that deadlines count from, since C{now} may be a tick old."""
        self._current = int(self.now / tick)

    def __len__(self) -> int:
        """How many items are kept, those included that were disarmed since they were put in."""
        return sum(map(len, self._slots.values()))

    def start(self) -> None:
        self._call = self._clock.callLater(self._tick, self._turn)

    def stop(self) -> None:
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._call = None

    def arm(self, item: Timed, seconds: float) -> None:
        """Let C{item} expire after so many seconds from now, and no earlier."""
        item.deadline = deadline = self._next + seconds
        if deadline < item.wheel_due:
            self._put(item, deadline)

    def _put(self, item: Timed, deadline: float) -> None:
        earliest, latest = self._current + 1, self._current + self._ahead
        slot = min(max(int(deadline / self._tick), earliest), latest)
        item.wheel_due = slot * self._tick
        self._slots.setdefault(slot, []).append(item)

    def _turn(self) -> None:
        self._call = self._clock.callLater(self._tick, self._turn)
        self.now = now = self._clock.seconds()
        self._next = now + self._tick
        current = int(now / self._tick)
        while self._current < current:
            self._current += 1
            due = self._current * self._tick
            for item in self._slots.pop(self._current, ()):
                if item.wheel_due == due:
                    self._due(item, now)

    def _due(self, item: Timed, now: float) -> None:
        item.wheel_due = inf
        if item.deadline <= now:
            item.deadline = inf
            try:
                item.expired()
            except Exception:  # noqa: BLE001 -- one item's fault must not stop all deadlines
                _log.failure("deadline of {item!r} failed", item=item)
        elif item.deadline != inf:
            self._put(item, item.deadline)
