"""The access log: records are noted while requests run, and written when none waits for it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from matrix.errors import ConfigurationError
from matrix.metrics.interfaces import Counted
from matrix.router.accessline import Record, format_record

__all__ = [
    "AccessLog",
    "FileAccessLog",
    "NoAccessLog",
    "Output",
    "Record",
    "open_access_log",
]

FLUSH_INTERVAL: Final = 0.5
"""Seconds until a record is written: soon enough for somebody who watches the log."""

BATCH: Final = 1000
"""Records written at once."""

BACKLOG: Final = 50_000
"""Records kept while they cannot be written (about 25 MB): a second or two at full load,
minutes at an ordinary one."""

COMPLAINT_INTERVAL: Final = 60.0
"""Seconds between two complaints about a log that cannot be written."""

MODE: Final = 0o640
"""The operator's group may read the log; it says who used what, so nobody else may."""

STDOUT: Final = 1
"""The file descriptor of standard output."""

InThread = Callable[[Callable[[], int]], "Deferred[int]"]
"""Runs a function that blocks in a thread (such as C{deferToThreadPool} bound to a pool)."""

_log = Logger()


@dataclass(frozen=True, slots=True)
class Output:
    """Standard output, as the access log knows it."""

    file: int = STDOUT
    lock: int | None = None
    """A file that is locked (fcntl(2)) during each write where several processes have the same
    standard output: a pipe or socket would mix what they write at once."""


class AccessLog(Protocol):
    """Where records of finished requests go."""

    def add(self, records: Iterable[Record]) -> None:
        """Note records; never blocks, never raises."""

    def start(self) -> None:
        """Begin to write."""

    def reopen(self) -> None:
        """Go on in a new file of the same name: the old one was moved away (SIGHUP)."""

    async def stop(self) -> None:
        """Write what is left and close."""


class NoAccessLog:
    """Keeps no record (C{MATRIX_ACCESS_LOG=off})."""

    def add(self, records: Iterable[Record]) -> None:
        """See L{AccessLog.add}."""

    def start(self) -> None:
        """See L{AccessLog.start}."""

    def reopen(self) -> None:
        """See L{AccessLog.reopen}."""

    async def stop(self) -> None:
        """See L{AccessLog.stop}."""


class FileAccessLog:
    """
    Writes records as lines of JSON, one write at a time, in a thread: a full disk or a
    reader of standard output that has stopped reading holds up no request.
    """

    def __init__(
        self,
        sink: Sink,
        clock: IReactorTime,
        in_thread: InThread,
        dropped: Counted,
        errors: Counted,
        form: Callable[[Record], str] = format_record,
    ) -> None:
        """
        @param dropped: counts records that were never written.
        @param errors: counts writes that failed.
        @param form: makes a record's line, in ASCII.
        """
        self._sink = sink
        self._clock = clock
        self._in_thread = in_thread
        self._dropped = dropped
        self._errors = errors
        self._form = form
        self._pending: list[str] = []
        self._unwritten = b""
        self._writing: Deferred[None] | None = None
        self._tick: IDelayedCall | None = None
        self._reopen = False
        self._failing = False
        self._complain_at = 0.0

    def add(self, records: Iterable[Record]) -> None:
        """See L{AccessLog.add}."""
        before = len(self._pending)
        self._pending.extend(map(self._form, records))
        if before < BATCH <= len(self._pending) and self._tick is not None:
            self._tick.reset(0)

    def start(self) -> None:
        """See L{AccessLog.start}."""
        if self._tick is None:
            self._tick = self._clock.callLater(FLUSH_INTERVAL, self._on_tick)

    def reopen(self) -> None:
        """See L{AccessLog.reopen}."""
        self._reopen = True

    async def stop(self) -> None:
        """See L{AccessLog.stop}."""
        if self._tick is not None:
            self._tick.cancel()
            self._tick = None
        if self._writing is not None:
            await self._writing
        self._failing = False
        while (self._pending or self._unwritten) and not self._failing:
            self._flush()
            if self._writing is not None:
                await self._writing
        self._dropped.value += len(self._pending) + self._unwritten.count(b"\n")
        self._sink.close()

    def _on_tick(self) -> None:
        self._tick = self._clock.callLater(FLUSH_INTERVAL, self._on_tick)
        self._flush()

    def _flush(self) -> None:
        excess = len(self._pending) - BACKLOG
        if excess > 0:
            del self._pending[BACKLOG:]
            self._dropped.value += excess
        if self._writing is not None:
            return
        if not self._unwritten:
            batch, self._pending = self._pending[:BATCH], self._pending[BATCH:]
            self._unwritten = "".join(batch).encode("ascii")
        if self._unwritten or self._reopen:
            reopen, self._reopen = self._reopen, False
            writing = self._in_thread(partial(self._sink.write, self._unwritten, reopen))
            self._writing = writing.addCallbacks(self._wrote, self._failed)
            if writing.called:
                self._writing = None

    def _wrote(self, count: int) -> None:
        self._writing = None
        self._failing = False
        self._unwritten = self._unwritten[count:]
        # What is short of a batch, or did not fit, waits for the next tick.
        if not self._unwritten and len(self._pending) >= BATCH and self._tick is not None:
            self._tick.reset(0)

    def _failed(self, failure: Failure) -> None:
        self._writing = None
        self._failing = True
        self._errors.value += 1
        if self._clock.seconds() >= self._complain_at:
            self._complain_at = self._clock.seconds() + COMPLAINT_INTERVAL
            _log.error(
                "the access log cannot be written: {error}; records wait, then are dropped",
                error=failure.getErrorMessage(),
            )


class Sink:
    """
    A file descriptor that records are appended to; used by one thread at a time.

    Several processes may append to one file: each write is of whole lines, and C{O_APPEND}
    keeps it in one piece.
    """

    def __init__(self, path: Path | None, output: Output = Output()) -> None:
        """
        @param path: C{None} for standard output.
        @raise OSError: the file cannot be opened.
        """
        self._path = path
        self._file = os.dup(output.file) if path is None else _open(path)
        self._lock = output.lock if path is None else None

    def write(self, data: bytes, reopen: bool = False) -> int:
        """
        Append C{data}. Blocks.

        @param reopen: go on in a new file of the same name first.
        @return: how many bytes were written; fewer than all of them if the rest failed.
        @raise OSError: nothing could be written, or the file could not be reopened.
        """
        if reopen and self._path is not None:
            fresh = _open(self._path)
            os.close(self._file)
            self._file = fresh
        with self._alone():
            return self._append(data)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other processes from writing meanwhile; one that dies lets go of the lock."""
        if self._lock is None:
            yield
            return
        fcntl.lockf(self._lock, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._lock, fcntl.LOCK_UN)

    def _append(self, data: bytes) -> int:
        done = 0
        while done < len(data):
            try:
                done += os.write(self._file, data[done:])
            except OSError:
                if not done:
                    raise
                break
        return done

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)


def open_access_log(
    target: str,
    clock: IReactorTime,
    in_thread: InThread,
    dropped: Counted,
    errors: Counted,
    form: Callable[[Record], str] = format_record,
    output: Output = Output(),
) -> AccessLog:
    """
    The access log that C{MATRIX_ACCESS_LOG} asks for.

    @param target: a file's path, C{-} for standard output, C{off} for none.
    @param dropped: see L{FileAccessLog}.
    @param output: what standard output is.
    @raise ConfigurationError: the file cannot be opened.
    """
    if target == "off":
        return NoAccessLog()
    try:
        sink = Sink(None if target == "-" else Path(target), output)
    except OSError as error:
        raise ConfigurationError(
            f"MATRIX_ACCESS_LOG: cannot open {target}: {error.strerror}"
        ) from None
    return FileAccessLog(sink, clock, in_thread, dropped, errors, form)


def _open(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, MODE)
