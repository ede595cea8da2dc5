"""Waiting for what cannot be cancelled itself: with a time limit, or without holding on to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from matrix.directory.interfaces import DirectoryUnavailable

T = TypeVar("T")


def within(
    clock: IReactorTime, seconds: float, work: Deferred[T], abort: Callable[[], None]
) -> Deferred[T]:
    """
    The result of C{work}, or L{DirectoryUnavailable} and a call of C{abort} if it takes
    longer. Cancelling calls C{abort} too. (txpostgres's own cancelling blocks.)
    """
    abandoned = False

    def give_up(_: object = None) -> None:
        nonlocal abandoned
        abandoned = True
        if timer.active():
            timer.cancel()
        abort()

    def late() -> None:
        give_up()
        result.errback(DirectoryUnavailable(f"the database did not answer within {seconds:g} s"))

    def pass_on(outcome: T | Failure) -> None:
        if abandoned:
            return
        timer.cancel()
        if isinstance(outcome, Failure):
            result.errback(outcome)
        else:
            result.callback(outcome)

    result: Deferred[T] = Deferred(give_up)
    timer = clock.callLater(seconds, late)
    work.addBoth(pass_on)
    return result


def shielded(work: Deferred[T]) -> Deferred[T]:
    """The result of C{work}, which goes on to its end though the one who waits is cancelled."""
    result: Deferred[T] = Deferred()
    work.addCallbacks(result.callback, result.errback)
    return result
