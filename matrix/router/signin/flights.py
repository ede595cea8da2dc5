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
        self._waiting: dict[str, list[Deferred[T]]] = {}
        self._under_way: dict[str, Deferred[None]] = {}

    def join(self, name: str, start: Callable[[], Coroutine[Any, Any, T]]) -> Deferred[T]:
        """
        The outcome of the attempt of this name; it is begun if none is under way. Whoever
        cancels stops waiting; the attempt goes on for the others, and to its end.
        """
        waiter: Deferred[T] = Deferred(lambda left: self._forget(name, left))
        self._waiting.setdefault(name, []).append(waiter)
        if len(self._waiting[name]) == 1 and name not in self._under_way:
            attempt = Deferred.fromCoroutine(start())
            landed: Deferred[None] = attempt.addBoth(self._land, name)
            if not landed.called:
                self._under_way[name] = landed
        return waiter

    def stop(self) -> None:
        """Give up all that is under way; whoever waits is told."""
        for attempt in list(self._under_way.values()):
            attempt.cancel()

    def _forget(self, name: str, left: Deferred[T]) -> None:
        waiting = self._waiting.get(name, [])
        if left in waiting:
            waiting.remove(left)

    def _land(self, outcome: T | Failure, name: str) -> None:
        self._under_way.pop(name, None)
        for waiter in self._waiting.pop(name, []):
            if isinstance(outcome, Failure):
                waiter.errback(outcome)
            else:
                waiter.callback(outcome)
