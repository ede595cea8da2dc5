"""The thread that waits for changes and hands them to the event loop, a few at a time."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable, Sequence

from twisted.logger import Logger

from matrix.daemon.changes import Change
from matrix.daemon.watch import Watch

_log = Logger()

WINDOW = 0.02
"""Seconds in which changes are gathered and merged. A change is promised to be told within
50 ms; this leaves 30 for busy moments, and bounds a file that is written without pause to
50 events a second."""

RECOVERY = 1.0
"""Seconds before watching starts over after an error."""


class Watcher:
    """Runs a L{Watch}."""

    def __init__(
        self,
        watch: Watch,
        publish: Callable[[Sequence[Change]], None],
        in_loop: Callable[..., object],
        window: float = WINDOW,
    ) -> None:
        """
        @param publish: called with changes, in the event loop.
        @param in_loop: C{in_loop(function, *args)} calls a function in the event loop
            (C{reactor.callFromThread}).
        """
        self._watch = watch
        self._publish = publish
        self._in_loop = in_loop
        self._window = window
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="matrix-watcher", daemon=True)
        self.failures = 0
        """How often watching had to start over."""

    @property
    def state(self) -> str:
        """C{ok}, C{partial} (some folders are not watched) or C{failed} (starting over)."""
        if self._failed:
            return "failed"
        return "partial" if self._watch.partial else "ok"

    _failed = False

    def start(self) -> None:
        """Begin to watch; what is there already is not told."""
        self._thread.start()

    def stop(self) -> None:
        """Watch no more. Returns when the thread has ended, after some 20 ms at most."""
        self._stopping.set()
        os.eventfd_write(self._watch.wake_descriptor, 1)
        self._thread.join()
        self._watch.close()

    def _run(self) -> None:
        step = self._watch.begin
        while not self._stopping.is_set():
            try:
                step()
                self._failed = False
                step = self._deliver
            except Exception:  # noqa: BLE001 -- the thread must outlive any fault of the disk
                self.failures += 1
                self._failed = True
                _log.failure("watching files failed; starting over")
                self._stopping.wait(RECOVERY)
                step = self._watch.start_over

    def _deliver(self) -> None:
        if not self._watch.has_news():
            self._wait()
            return
        self._stopping.wait(self._window)
        changes = self._watch.take()
        if changes:
            self._in_loop(self._publish, changes)

    def _wait(self) -> None:
        """Sleep until there is news."""
        poll = select.poll()
        for descriptor in (self._watch.descriptor, self._watch.wake_descriptor):
            poll.register(descriptor, select.POLLIN)
        for descriptor, _ in poll.poll():
            if descriptor == self._watch.wake_descriptor:
                os.eventfd_read(descriptor)
