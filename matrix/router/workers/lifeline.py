"""The end of a process whose supervisor is gone, even if it can do nothing about it itself."""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from threading import Thread


def die_with(end: socket.socket, seconds: float) -> None:
    """
    Have this process killed so many seconds after the other end of a socket is gone. A loop
    that hangs does not learn of that; it would hold the port against the next supervisor.
    """
    copy = end.dup()  # polled, never read
    look = select.poll()
    look.register(copy, select.POLLRDHUP)

    def watch() -> None:
        with copy:
            look.poll()
            time.sleep(seconds)
            os.kill(os.getpid(), signal.SIGKILL)

    Thread(target=watch, name="die-with-supervisor", daemon=True).start()
