"""A daemon that starts whole or not at all: no listener fails unnoticed."""

from __future__ import annotations

import atexit
import gc
import os
import sys
from typing import Any, NoReturn

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from matrix.errors import ConfigurationError
from matrix.net._files import allow_many_files

COLLECT_AFTER = 10_000
"""Objects made and not yet freed that let the collector look for cycles: requests leave none, so
it is for what goes wrong and for connections, and a look every few thousand of those is enough."""

_log = Logger()


class Daemon(Service):
    """
    Runs C{start} when the service starts and C{stop} when it stops.

    If C{start} fails the process ends with one clear line and status 1, after C{stop} has
    put away what had been started.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._starting: Deferred[None] | None = None

    async def start(self) -> None:
        """Start everything; raises L{ConfigurationError} if it cannot."""
        raise NotImplementedError

    async def stop(self) -> None:
        """Stop whatever had been started."""
        raise NotImplementedError

    def startService(self) -> None:
        super().startService()  # type: ignore[no-untyped-call]
        allow_many_files()
        self._starting = Deferred.fromCoroutine(self.start())
        self._starting.addCallbacks(_settle_down, self._could_not)

    def stopService(self) -> Deferred[None]:
        super().stopService()  # type: ignore[no-untyped-call]
        if self._starting is not None:
            self._starting.cancel()
        return Deferred.fromCoroutine(self.stop())

    def _could_not(self, failure: Failure) -> None:
        error = failure.value
        if isinstance(error, CancelledError):
            return
        if isinstance(error, ConfigurationError):
            text = str(error)
        else:
            _log.failure("could not start", failure=failure)
            text = f"could not start: {failure.getErrorMessage()}"
        _log.critical("{text}", text=text)
        self._reactor.addSystemEventTrigger("after", "shutdown", _end_failed, text)
        # Services start before the reactor runs, and it cannot be stopped before.
        self._reactor.callWhenRunning(self._reactor.stop)


def _settle_down(_: None) -> None:
    """Spare the garbage collector what was made at the start and stays until the end: it would
    look through all of that again and again, while the event loop waits."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, *gc.get_threshold()[1:])


def _end_failed(text: str) -> None:
    """
    Let this process end with one line and status 1. twistd has C{sys.stderr} go to the log,
    prints whatever ends its reactor, a C{SystemExit} included, and then returns status 0: so
    the status is set behind its back, when everything else is done.
    """
    if sys.__stderr__ is not None:
        sys.__stderr__.write(f"matrix: {text}\n")
    atexit.register(_exit_failed)


def _exit_failed() -> NoReturn:
    for stream in (sys.__stdout__, sys.__stderr__):
        if stream is not None:
            stream.flush()
    os._exit(1)
