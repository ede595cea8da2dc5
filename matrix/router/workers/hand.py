"""One worker process, as the supervisor has it: started, spoken with, ended."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from matrix.processes import find, watch_exit
from matrix.router.workers.brief import Brief
from matrix.router.workers.channel import Channel, Message, read_lines, send_letter
from matrix.router.workers.logs import Retelling

PROGRAM = "matrix.router.workers.tap"

LAST_WORDS = 1.0
"""Seconds, at most, to read what a worker said before its end."""


class Hand:
    """
    A worker process.

    It has a session of its own: an interrupt typed at the terminal reaches the supervisor
    alone. It ends by itself once our end of its channel is closed, by whatever cause.
    """

    def __init__(
        self,
        reactor: Any,
        brief: Brief,
        heard: Callable[[Message], None],
        ended: Callable[[int], None],
    ) -> None:
        """
        Start it. Takes milliseconds.

        @param heard: called with each message.
        @param ended: called once, with the exit status, negative for a signal.
        @raise OSError: no process can be started.
        """
        ours, theirs = socket.socketpair()
        out, said = socket.socketpair()
        with theirs, said:
            send_letter(ours, brief.dump())
            self._process: subprocess.Popen[bytes] = subprocess.Popen(
                [sys.executable, "-P", "-m", PROGRAM, str(theirs.fileno())],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(_modules())},
                stdin=subprocess.DEVNULL,
                stdout=said.fileno(),
                stderr=said.fileno(),
                pass_fds=[
                    theirs.fileno(),
                    *(queue for queues in brief.public for queue in queues),
                    brief.output,
                    brief.lock,
                ],
                start_new_session=True,
            )
        self._ended = ended
        self._told = False
        self._reactor = reactor
        read_lines(reactor, out, Retelling(brief.number))
        self._channel = Channel(reactor, ours, heard, self._finish)
        self._status: int | None = None
        self._watch = None
        process = find(self.pid)
        if process is not None:
            self._watch = watch_exit(process, reactor, self._reap)
        if self._watch is None:
            reactor.callLater(0, self._reap)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def send(self, kind: str, **fields: object) -> None:
        """Say something to it."""
        self._channel.send(kind, **fields)

    def dump(self) -> None:
        """Have it write its stack to the log, even if it hangs."""
        self._signal(signal.SIGUSR1)

    def kill(self) -> None:
        """End it at once."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        self._process.send_signal(number)  # not once it was reaped: its id may be another's

    def _reap(self) -> None:
        self._status = self._process.wait()
        if self._channel.open:  # what it said at last is on its way
            self._reactor.callLater(LAST_WORDS, self._finish)
        else:
            self._finish()

    def _finish(self) -> None:
        """Its end is told of once, after all that it said."""
        if self._status is not None and not self._told:
            self._told = True
            self._channel.close()
            self._ended(self._status)


def _modules() -> list[str]:
    """Where modules are found: a worker runs the same code, wherever it was started."""
    return [os.path.abspath(place) for place in sys.path]
