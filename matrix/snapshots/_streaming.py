"""Bodies on their way through us: a bounded part of each in memory, however slow either side."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from matrix.errors import MatrixError
from matrix.http.interfaces import Exchange
from matrix.snapshots.interfaces import Reading, StoreUnavailable, Writing

CHUNK = 512 * 1024
"""Bytes per hop to a thread: from here on a longer chunk gains nothing more. A transfer holds
two at most, one being written or read and one that waits."""


class Body:
    """
    A body sink (L{matrix.http.interfaces.BodySink}) to be read chunk by chunk. While one
    is being dealt with the next is gathered; then the client is paused.
    """

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._gathered: list[bytes] = []
        self._size = 0
        self._paused = False
        self._ended = False
        self._error: MatrixError | None = None
        self._waiter: Deferred[None] | None = None

    def body_data(self, data: bytes) -> None:
        self._gathered.append(data)
        self._size += len(data)
        if self._size < CHUNK:
            return
        if self._waiter is None and not self._paused:
            self._paused = True
            self._exchange.pause_body()
        self._wake()

    def body_end(self) -> None:
        self._ended = True
        self._wake()

    def body_lost(self, error: MatrixError) -> None:
        self._error = error
        self._gathered.clear()
        self._wake()

    async def take(self) -> Sequence[bytes]:
        """
        The next bytes; none at the end.

        @raise MatrixError: there will be no more, and the body is not whole.
        """
        while self._error is None and not self._ended and self._size < CHUNK:
            self._waiter = Deferred()
            await self._waiter
        if self._error is not None:
            raise self._error
        taken, self._gathered, self._size = self._gathered, [], 0
        if self._paused:
            self._paused = False
            self._exchange.resume_body()
        return taken

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.called:
            waiter.callback(None)


async def receive(exchange: Exchange, writing: Writing) -> None:
    """
    Pass a request's body on, as fast as the slower of the two sides.

    @raise MatrixError: the body never came to its end, or could not be written.
    """
    body = Body(exchange)
    exchange.receive(body)
    while chunks := await body.take():
        await writing.write(chunks)


@implementer(IPushProducer)
class Pace:
    """Makes a coroutine wait while its reader is slow."""

    def __init__(self, exchange: Exchange) -> None:
        self._paused = False
        self._waiter: Deferred[None] | None = None
        exchange.register_producer(self)

    async def kept(self) -> None:
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


async def send(exchange: Exchange, reading: Reading) -> None:
    """
    Send what is read as the begun answer's body. The next chunk is fetched while the
    present one is being sent.

    @raise StoreUnavailable: there is less than was promised.
    """
    pace = Pace(exchange)
    left = len(reading.wanted)
    ahead = reading.read(CHUNK) if left else None
    try:
        while ahead is not None:
            chunk = await ahead
            if not chunk:
                raise StoreUnavailable("the store sent less than it said")
            left -= len(chunk)
            ahead = reading.read(CHUNK) if left else None
            exchange.write(chunk)
            await pace.kept()
    finally:
        if ahead is not None:
            ahead.addErrback(lambda _: None)  # nobody waits for it any more
            ahead.cancel()
    exchange.end()
