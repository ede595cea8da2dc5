"""Many callers, one attempt: who asks for what is under way already waits for that. Pure."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

T = TypeVar("T")


class Flights(Generic[T]):
    """Attempts under way, each with those who wait for its outcome."""

    def __init__(self) -> None:
        self._boarding: dict[str, list[Deferred[T]]] = {}
        """Who waits for the outcome of an attempt that may still be joined."""
        self._under_way: dict[int, Deferred[None]] = {}

    def join(self, name: str, start: Callable[[], Coroutine[Any, Any, T]]) -> Deferred[T]:
        """
        The outcome of the attempt of this name; it is begun if there is none to join. Whoever
        cancels stops waiting; the attempt goes on for the others, and to its end.
        """
        aboard = self._boarding.get(name)
        if aboard is not None:
            return _waiter(aboard)
        aboard = self._boarding[name] = []
        waiter = _waiter(aboard)
        attempt = Deferred.fromCoroutine(start())
        landed: Deferred[None] = attempt.addBoth(self._land, name, aboard)
        if not landed.called:
            self._under_way[id(aboard)] = landed
        return waiter

    def close(self, name: str) -> None:
        """From now on who comes begins another attempt: this one is too far on to serve them."""
        self._boarding.pop(name, None)

    def stop(self) -> None:
        """Give up all that is under way; whoever waits is told."""
        for attempt in list(self._under_way.values()):
            attempt.cancel()

    def _land(self, outcome: T | Failure, name: str, aboard: list[Deferred[T]]) -> None:
        self._under_way.pop(id(aboard), None)
        if self._boarding.get(name) is aboard:
            del self._boarding[name]
        for waiter in list(aboard):
            if isinstance(outcome, Failure):
                waiter.errback(outcome)
            else:
                waiter.callback(outcome)


def _waiter(aboard: list[Deferred[T]]) -> Deferred[T]:
    def leave(left: Deferred[T]) -> None:
        if left in aboard:
            aboard.remove(left)

    waiter: Deferred[T] = Deferred(leave)
    aboard.append(waiter)
    return waiter
