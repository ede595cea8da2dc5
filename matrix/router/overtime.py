"""A time limit that may move while the work goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

_T = TypeVar("_T")


def bounded(work: Deferred[_T], clock: IReactorTime, deadline: Callable[[], float]) -> Deferred[_T]:
    """
    The same C{work}, cancelled when C{deadline()}, by the clock, has passed; it fails with a
    L{TimeoutError} then.
    """
    late = False
    timer: IDelayedCall | None = None

    def look() -> None:
        nonlocal late, timer
        left = deadline() - clock.seconds()
        if left > 0:
            timer = clock.callLater(left, look)
        else:
            timer, late = None, True
            work.cancel()

    def over(result: Any) -> Any:
        if timer is not None and timer.active():
            timer.cancel()
        if late and isinstance(result, Failure) and result.check(CancelledError):  # type: ignore[no-untyped-call]
            raise TimeoutError("it did not end in time")
        return result

    look()
    return work.addBoth(over)
