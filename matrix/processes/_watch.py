"""Learning at once that a process ended, whether or not it is our child."""

from __future__ import annotations

import os
from collections.abc import Callable

from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from matrix.processes._proc import Process, is_alive


@implementer(IReadDescriptor)
class ExitWatch:
    """A pidfd in the reactor: readable once its process has ended (pidfd_open(2))."""

    _log = Logger()

    def __init__(self, descriptor: int, reactor: IReactorFDSet, ended: Callable[[], None]) -> None:
        self._descriptor = descriptor
        self._reactor = reactor
        self._ended = ended

    def fileno(self) -> int:
        """The descriptor to wait on; -1 after L{cancel}."""
        return self._descriptor

    def logPrefix(self) -> str:
        """The name under which the reactor logs failures of ours."""
        return "exit-watch"

    def doRead(self) -> None:
        """The process ended."""
        self.cancel()
        try:
            self._ended()
        except Exception:  # noqa: BLE001 - logged; not ours
            self._log.failure("a watch on a process's exit failed")

    def connectionLost(self, reason: Failure) -> None:
        """The reactor is shutting down."""
        self.cancel()

    def cancel(self) -> None:
        """Call nobody any more. May be called at any time, also twice."""
        if self._descriptor >= 0:
            self._reactor.removeReader(self)
            os.close(self._descriptor)
            self._descriptor = -1


def watch_exit(
    process: Process, reactor: IReactorFDSet, ended: Callable[[], None]
) -> ExitWatch | None:
    """
    Call C{ended} in the reactor once C{process} has ended. Must be called in the reactor's
    thread; takes microseconds.

    @return: the watch, to cancel it; C{None} if the process is dead already, and then
        C{ended} is never called.
    """
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return None
    if not is_alive(process):
        os.close(descriptor)
        return None
    watch = ExitWatch(descriptor, reactor, ended)
    reactor.addReader(watch)
    return watch
