"""Work on machines that goes on by itself: nobody waits for it, and it can be given up."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from matrix.directory import DirectoryUnavailable, StaleRow

_log = Logger()


class Works:
    """All that is under way."""

    def __init__(self) -> None:
        self._running: set[Deferred[None]] = set()

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Begin it. What comes of it is logged, unless it is what happens in ordinary life."""
        running = Deferred.fromCoroutine(work)
        if not running.called:
            self._running.add(running)
            running.addBoth(self._ended, running)
        running.addErrback(_failed)

    def give_up(self) -> None:
        """End all of it."""
        for running in list(self._running):
            running.cancel()

    def _ended(self, result: Any, running: Deferred[None]) -> Any:
        self._running.discard(running)
        return result


def _failed(failure: Failure) -> None:
    if failure.check(DirectoryUnavailable):  # type: ignore[no-untyped-call]
        _log.warn("work on a machine is put off: {error}", error=failure.value)
    elif not failure.check(CancelledError, StaleRow):  # type: ignore[no-untyped-call]
        _log.failure("work on a machine failed", failure=failure)
