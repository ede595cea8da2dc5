"""A body on its way between a client and a file: constant memory, back-pressure both ways."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.python.failure import Failure
from zope.interface import implementer

from matrix.errors import InternalError, MatrixError
from matrix.http.interfaces import Exchange

CHUNK = 512 * 1024
"""Bytes read or written per hop to a thread. A hop costs about 0.1 ms of the event loop, as
much as sending 128 KiB; from 512 KiB on, a longer chunk was measured to gain nothing more. A
transfer holds at most two of them."""


class Upload:
    """
    A body sink (L{matrix.http.interfaces.BodySink}) that writes chunk after chunk. While
    one is being written the next is gathered; when that is whole too, the client is paused.
    """

    def __init__(
        self, exchange: Exchange, write: Callable[[Sequence[bytes]], Deferred[None]]
    ) -> None:
        """
        @param write: appends to the file; not called again before its result.
        """
        self._exchange = exchange
        self._write = write
        self._waiting: list[bytes] = []
        self._size = 0
        self._writing = False
        self._paused = False
        self._ended = False
        self.done: Deferred[None] = Deferred()
        """Fires when the whole body is written, or with why it will not be."""

    def body_data(self, data: bytes) -> None:
        if self.done.called:
            return
        self._waiting.append(data)
        self._size += len(data)
        if self._size < CHUNK:
            return
        if not self._writing:
            self._start()
        elif not self._paused:
            self._paused = True
            self._exchange.pause_body()

    def body_end(self) -> None:
        self._ended = True
        if not self._writing:
            self._go_on()

    def body_lost(self, error: MatrixError) -> None:
        self._fail(Failure(error))  # type: ignore[no-untyped-call]

    def _start(self) -> None:
        chunks, self._waiting, self._size = self._waiting, [], 0
        self._writing = True
        self._write(chunks).addCallbacks(self._written, self._fail)

    def _written(self, _: None) -> None:
        self._writing = False
        if self.done.called:
            return
        self._go_on()
        if self._paused:
            self._paused = False
            self._exchange.resume_body()

    def _go_on(self) -> None:
        if self._size >= CHUNK or (self._ended and self._waiting):
            self._start()
        elif self._ended and not self.done.called:
            self.done.callback(None)

    def _fail(self, failure: Failure) -> None:
        self._waiting.clear()
        if not self.done.called:
            self.done.errback(failure)


@implementer(IPushProducer)
class Gate:
    """Makes a coroutine wait while its reader is slow."""

    def __init__(self) -> None:
        self._paused = False
        self._waiter: Deferred[None] | None = None

    async def passable(self) -> None:
        """Returns once the reader wants more."""
        if self._paused:
            self._waiter = Deferred()
            await self._waiter

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.called:
            waiter.callback(None)

    def stopProducing(self) -> None:
        """The exchange cancels the coroutine."""


async def download(
    exchange: Exchange,
    wanted: range,
    read: Callable[[int, int], Deferred[bytes]],
) -> None:
    """
    Send bytes of a file as the begun answer's body. The next chunk is read while the
    present one is being sent.

    @param read: the bytes at an offset, at most so many, from a thread.
    @raise InternalError: the file became shorter meanwhile; what was promised cannot be kept.
    """
    gate = Gate()
    exchange.register_producer(gate)
    position, stop = wanted.start, wanted.stop
    ahead = read(position, min(CHUNK, stop - position))
    while True:
        chunk = await ahead
        if not chunk:
            raise InternalError(f"the file lost its bytes from {position} on while it was sent")
        position += len(chunk)
        if position < stop:
            ahead = read(position, min(CHUNK, stop - position))
        exchange.write(chunk)
        if position >= stop:
            exchange.end()
            return
        await gate.passable()
