"""A connection in memory: what a protocol's unit test stands in for the peer with."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import (
    IProtocol,
    IProtocolFactory,
    IPushProducer,
    IStreamClientEndpoint,
    ITransport,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from matrix.errors import MatrixError
from matrix.net import Presence


@implementer(ITransport, IPushProducer)
class FakeTransport:
    """
    Behaves as L{matrix.net.NativeTransport}, with the test in the peer's place.

    What the protocol writes gathers in C{sent}. A closed connection is lost only when the
    test says so (L{lose}), as the real one is lost in a later turn of the loop.
    """

    def __init__(
        self,
        peer: Any = ("192.0.2.7", 50000),
        tls: str = "",
        refusal: MatrixError | None = None,
    ) -> None:
        self.sent = b""
        self.paused = False
        self.disconnecting = False
        self.aborted = False
        self.ended = False
        """Whether nothing more is to be written."""
        self.lost = False
        self.producer: Any = None
        self.protocol: Any = None
        self.full = False
        self.refusal = refusal
        self.there = Presence.HERE
        """What the kernel would say of the peer."""
        self._peer = peer
        self._tls = tls

    # what the protocol calls

    def write(self, data: bytes) -> None:
        if not self.disconnecting:
            self.sent += data

    def writeSequence(self, data: Iterable[bytes]) -> None:
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        self.disconnecting = True

    def loseWriteConnection(self) -> None:
        self.ended = True

    def abortConnection(self) -> None:
        self.disconnecting = self.aborted = True

    def getPeer(self) -> Any:
        return self._peer

    def getHost(self) -> Any:
        return ("192.0.2.1", 443)

    def tls_version(self) -> str:
        return self._tls

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self.producer = producer
        if self.full:
            producer.pauseProducing()

    def unregisterProducer(self) -> None:
        self.producer = None

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        if not self.disconnecting:
            self.paused = False

    def stopProducing(self) -> None:
        self.loseConnection()

    def presence(self) -> Presence:
        return self.there

    # what the test does

    def connect(self, protocol: IProtocol) -> FakeTransport:
        """Make the connection."""
        self.protocol = protocol
        protocol.makeConnection(self)
        return self

    def receive(self, *chunks: bytes) -> None:
        """The peer sends these."""
        for chunk in chunks:
            if not self.lost:
                self.protocol.dataReceived(chunk)

    def take(self) -> bytes:
        """What was written since the last call."""
        sent, self.sent = self.sent, b""
        return sent

    def fill(self) -> None:
        """The peer reads too slowly: too much is unsent."""
        self.full = True
        if self.producer is not None:
            self.producer.pauseProducing()

    def drain(self) -> None:
        """The peer has read on."""
        self.full = False
        if self.producer is not None:
            self.producer.resumeProducing()

    def lose(self, error: Exception | None = None) -> None:
        """The connection is gone; cleanly, unless it was aborted or C{error} says how."""
        if self.lost:
            return
        self.disconnecting = self.lost = True
        self.producer = None
        error = error or (ConnectionAborted() if self.aborted else ConnectionDone())
        self.protocol.connectionLost(Failure(error))  # type: ignore[no-untyped-call]


@implementer(IStreamClientEndpoint)
class FakeEndpoint:
    """
    Where connections go to in memory.

    Each attempt succeeds at once, or fails with C{refuse} if that is set, or waits for
    L{accept} if C{hold} is.
    """

    def __init__(self) -> None:
        self.refuse: Exception | None = None
        self.hold = False
        self.made: list[FakeTransport] = []
        """Every connection so far, the newest last."""
        self.waiting: list[tuple[Deferred[IProtocol], IProtocolFactory]] = []
        self.attempts = 0

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        self.attempts += 1
        attempt: Deferred[IProtocol] = Deferred()
        if self.refuse is not None:
            attempt.errback(self.refuse)
        else:
            self.waiting.append((attempt, protocolFactory))
            if not self.hold:
                self.accept()
        return attempt

    def accept(self) -> FakeTransport:
        """Let the oldest attempt succeed."""
        attempt, factory = self.waiting.pop(0)
        protocol = factory.buildProtocol(None)  # type: ignore[arg-type]
        assert protocol is not None
        transport = FakeTransport(peer="/run/machine.sock").connect(protocol)
        self.made.append(transport)
        attempt.callback(protocol)
        return transport
