"""The program of a worker: C{python -m matrix.router.workers.tap}; the supervisor alone runs it."""

from __future__ import annotations

import faulthandler
import signal
import socket
import sys

import uvloop
from twisted.internet import asyncioreactor
from twisted.logger import globalLogBeginner


def main(end: socket.socket) -> None:
    """
    Be a worker until the supervisor, or its end, says otherwise.

    @param end: of the channel; a letter lies in it.
    """
    # Where the stack goes when the supervisor finds that we hang.
    faulthandler.register(signal.SIGUSR1)
    asyncioreactor.install(uvloop.new_event_loop())  # type: ignore[no-untyped-call]
    from twisted.internet import reactor

    from matrix.router.workers.brief import Brief
    from matrix.router.workers.channel import read_letter
    from matrix.router.workers.logs import telling
    from matrix.router.workers.worker import Worker

    globalLogBeginner.beginLoggingTo([telling(sys.stdout)])
    worker = Worker(reactor, Brief.load(read_letter(end)), end)
    before_shutdown = ("before", "shutdown", worker.stopService)
    reactor.addSystemEventTrigger(*before_shutdown)
    reactor.callWhenRunning(worker.startService)
    reactor.run()


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
