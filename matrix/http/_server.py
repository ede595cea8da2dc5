"""The client's side of a connection: requests in, answers out, one exchange at a time."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Any, cast

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IProtocol, ITransport
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure

from matrix.errors import BadRequest, ClientGone, MatrixError, RequestTimeout
from matrix.http._breath import Breath
from matrix.http._exchange import Exchange
from matrix.http._forwarded import forwarded
from matrix.http._heads import RequestHead
from matrix.http._hold import Kept
from matrix.http._reader import END, RequestReader
from matrix.http._watch import Watch
from matrix.http.interfaces import BodySink
from matrix.model import peer_name

if TYPE_CHECKING:
    from matrix.http._factory import ServerFactory

_GONE = Failure(ConnectionDone())  # type: ignore[no-untyped-call]


class ServerConnection(Protocol):
    """
    One client's connection.

    Reading goes on while an answer is made, to notice that the client left, until more has
    come than is wanted yet (L{Limits.ahead}): of further requests, or of a body that waits
    for its machine. From then on a L{Watch} does that.
    """

    transport: Any
    send: Callable[[bytes], None]
    """Write to the client."""

    def __init__(self, factory: ServerFactory) -> None:
        self.factory = factory
        self.deadline = inf
        self.wheel_due = inf
        self.must_close = False
        self._reader = RequestReader(factory.limits)
        self.exchange: Exchange | None = None
        self._tunnel: IProtocol | None = None
        self._producer: Any = None
        self._in_head: bool | None = None  # as long as there was no request
        self.body_open = self._body_paused = False
        """C{body_open}: whether the present request's body is not read to its end."""
        self._sink: BodySink | None = None
        self._pumping = self._unread = self._lingering = False
        self._stalled = self._half_closed = False
        self._breath = Breath(self)
        self._watch = Watch(self)
        self._kept = Kept(factory.hold)

    def connectionMade(self) -> None:
        transport = self.transport
        self.peer = peer_name(transport.getPeer())
        tls_version = getattr(transport, "tls_version", None)
        self.tls: str = tls_version() if tls_version is not None else ""
        self.forwarded = forwarded(self.peer, self.tls)
        self._exchange_type = self.factory.exchange_type(self.peer)
        self.send = transport.write
        self.factory.connections.add(self)
        transport.registerProducer(self, True)
        self._arm(self.factory.limits.head_time)
        self._refused: MatrixError | None = getattr(transport, "refusal", None)
        if self._refused is not None:
            self._refuse(self._refused)

    def _arm(self, seconds: float) -> None:
        self.factory.wheel.arm(self, seconds)

    # reading

    def dataReceived(self, data: bytes) -> None:
        if self._tunnel is not None:
            self._tunnel.dataReceived(data)
        elif not self._lingering:
            self._reader.feed(data)
            self.pump()

    def pump(self) -> None:
        """Take what has arrived."""
        if self._pumping:
            return
        self._pumping = True
        try:
            while self._next_request() if self.exchange is None else self._read_on():
                pass
        except MatrixError as error:
            self._refuse(error)
        finally:
            self._pumping = False

    def _read_on(self) -> bool:
        """Take what comes while a request is being answered; whether to go on."""
        if self._tunnel is not None or self._lingering or self.transport.disconnecting:
            return False
        if self.body_open:
            return self._deliver_body()
        if self._reader.buffered > self.factory.limits.ahead:
            self._pause()
        return False

    def _pause(self) -> None:
        """Read no more for now, but go on to look whether the client is there."""
        self.transport.pauseProducing()
        self._watch.begin()

    def _next_request(self) -> bool:
        """Begin with the next request, if it is here and its turn; whether to go on."""
        if self._lingering or self.transport.disconnecting:
            return False
        if self._stalled:  # who reads no answers gets no further ones
            self._pause()
            return False
        reader = self._reader
        event = reader.next_event()
        if event is None:
            if reader.buffered and not self._in_head:
                self._in_head = True
                self._arm(self.factory.limits.head_time)
            if self._half_closed:
                self._close()
            return False
        self._in_head = False
        self.deadline = inf
        self._begin(cast(RequestHead, event))
        # Most requests have no body and come alone: then there is nothing to go on with.
        more = self.body_open or reader.buffered > 0 or self._half_closed
        return more and (self.exchange is not None or self._breath.lasts())

    def _begin(self, request: RequestHead) -> None:
        factory = self.factory
        exchange = self.exchange = self._exchange_type(self, request, factory.next_id())
        self.body_open = request.fields.has_body
        if not self.body_open:
            self._reader.finish()
        self._sink = None
        self._body_paused = False
        try:
            factory.handler(exchange)
        except Exception:  # noqa: BLE001 -- logged and answered by crashed
            exchange.crashed(Failure())  # type: ignore[no-untyped-call]

    def _deliver_body(self) -> bool:
        sink = self._sink
        if sink is None or self._body_paused:
            if sink is None:
                self._kept.keep(self._reader.buffered)
            if self._body_paused or self._reader.buffered > self.factory.limits.ahead:
                self._pause()
            return False
        event = self._reader.next_event()
        if event is None:
            self._arm(self.factory.limits.body_silence)
            return False
        if event is END:
            self.body_open = False
            self.deadline = inf
            sink.body_end()
        else:
            data = cast(bytes, event)
            if self.exchange is not None:
                self.exchange.body_bytes += len(data)
            sink.body_data(data)
        return True

    def receive_body(self, sink: BodySink) -> None:
        """Let the present request's body flow into C{sink}."""
        self._kept.keep(0)
        if not self.body_open:
            sink.body_end()
            return
        self._sink = sink
        self.resume_body()

    def pause_body(self) -> None:
        """Let no more of the body come, nor of what goes through the tunnel."""
        self._body_paused = True
        if not self._stalled:
            self.deadline = inf
        if self.body_open or self._tunnel is not None:
            self._pause()

    def resume_body(self) -> None:
        self._body_paused = False
        if self.body_open or self._tunnel is not None:
            self.transport.resumeProducing()
            self.pump()

    # answering

    def set_producer(self, producer: Any) -> None:
        """Whom to pause while the client reads too slowly; nobody (C{None}) once the answer
        is all there, since who made it may be at work for another client."""
        self._producer = producer
        if self._stalled and producer is not None:
            producer.pauseProducing()

    def pauseProducing(self) -> None:
        """The transport has more than it can send: see L{set_producer}."""
        self._stalled = True
        limits = self.factory.limits
        exchange = self.exchange
        stream = self._tunnel is not None or (exchange is not None and exchange.is_stream)
        self._arm(limits.stream_silence if stream else limits.body_silence)
        self._watch.begin()
        if self._producer is not None:
            self._producer.pauseProducing()

    def resumeProducing(self) -> None:
        """The client has read on."""
        self._stalled = False
        if self._lingering or self.transport.disconnecting:
            return
        self.deadline = inf
        if self.body_open and self._sink is not None and not self._body_paused:
            self._arm(self.factory.limits.body_silence)
        if self._producer is not None:
            self._producer.resumeProducing()
        elif self.exchange is None:
            self._arm(self.factory.limits.keep_alive)
            self.transport.resumeProducing()
            self.pump()

    def stopProducing(self) -> None:
        """The transport is gone; C{connectionLost} follows."""

    def answered(self, exchange: Exchange) -> None:
        """The present answer is complete: go on with the next request, or close."""
        self.exchange = None
        self._producer = None
        if self._kept.bytes:
            self._kept.keep(0)
        sink, self._sink = self._sink, None
        if self.body_open and sink is not None:
            sink.body_lost(ClientGone("The request was answered before its body was whole."))
        if self.factory.finished is not None:
            self.factory.finished(exchange)
        if self._unread or (self.body_open and not self._drain_body()):
            self._linger()
        elif not exchange.keep or self.must_close:
            self._close()
        else:
            limits = self.factory.limits
            self._arm(limits.body_silence if self._stalled else limits.keep_alive)
            self.transport.resumeProducing()
            if self._reader.buffered or self._half_closed:
                self.pump()

    def discard_body(self) -> None:
        """The request is about to be answered at once, whatever is left of its body."""
        if self.body_open:
            self._drain_body()

    def _drain_body(self) -> bool:
        """Answered before the body was whole: go on behind it, if little is left and here."""
        self.body_open = not self._reader.skip_body(self.factory.limits.drain)
        return not self.body_open

    def _refuse(self, error: MatrixError) -> None:
        """The client broke the protocol: say so if an answer can still be sent, and close."""
        self.must_close = self._unread = True
        exchange, sink = self.exchange, self._sink
        self._sink = None
        if exchange is None:
            head = self._reader.refused_head()
            exchange = self.exchange = Exchange(self, head, self.factory.next_id())
        elif self.body_open and sink is not None:
            sink.body_lost(error)
        self.body_open = False
        exchange.refuse(error)

    def _linger(self) -> None:
        """Send no more, but let the client read its answer before all is closed: bytes of its
        that we never read would reset the connection (RFC 9112 section 9.6)."""
        self._lingering = True
        self.body_open = False
        self.transport.loseWriteConnection()
        self.transport.resumeProducing()
        self._arm(self.factory.limits.linger)

    def _close(self) -> None:
        # What is unsent still goes out, but not for ever: a client may never read it.
        self._arm(self.factory.limits.body_silence)
        self.transport.loseConnection()

    def close_if_idle(self) -> None:
        """Close between requests; otherwise after the present answer."""
        self.must_close = True
        if self.exchange is None and not self._lingering:
            self._close()

    def abort(self) -> None:
        """Cut the client off."""
        self.deadline = inf
        self.transport.abortConnection()

    # changing protocol

    def hand_over(self, protocol: IProtocol) -> ITransport:
        """From now on everything that comes is for C{protocol}."""
        self._tunnel = protocol
        self._producer = None
        self.deadline = inf
        transport = cast(Any, self.transport)
        transport.resumeProducing()
        protocol.makeConnection(transport)
        rest = self._reader.take_rest()
        if rest:
            protocol.dataReceived(rest)
        return cast(ITransport, transport)

    # ending

    def expired(self) -> None:
        """The deadline has passed; what was due depends on where we are."""
        late, exchange = self.factory.late, self.exchange
        if self.transport.disconnecting or (self._lingering and self._refused is not None):
            self.abort()  # a refused client holds a file that is kept for others
        elif self._lingering:
            self._close()
        elif self._tunnel is not None or self._stalled:
            reason = late("stream-silence" if self._tunnel is not None else "client-silence")
            if exchange is not None:
                exchange.close_reason = exchange.close_reason or reason
            self.abort()
        elif exchange is not None:
            self._refuse(RequestTimeout("The body stopped coming.", reason=late("body-silence")))
        elif self._in_head:
            self._refuse(RequestTimeout("The head came too slowly.", reason=late("head-time")))
        else:
            late("keep-alive" if self._in_head is False else "head-time")
            self._close()

    @property
    def unattended(self) -> bool:
        """Whether the loop would not tell us that the client leaves."""
        return self._stalled or self._half_closed or bool(self.transport.paused)

    @property
    def may_wait(self) -> bool:
        """Whether a client that has ended its side may still wait for what it is owed."""
        exchange = self.exchange
        return exchange is None or not (self.tls or self._tunnel or exchange.is_stream)

    def readConnectionLost(self) -> bool:
        """The client will send no more; it may still read an answer it is owed."""
        self._half_closed = True
        if self.exchange is None:
            return False
        if not self.may_wait:
            self._depart()
            self._close()
            return False
        if self.body_open:
            self._refuse(BadRequest("The body ended early.", reason="body-cut"))
            return False
        self._watch.begin()
        return True

    def connectionLost(self, reason: Failure = _GONE) -> None:
        self.deadline = inf
        self._leave()
        self._depart()

    def _depart(self) -> None:
        """The client is gone: so is what was done for it."""
        tunnel, self._tunnel = self._tunnel, None
        exchange, self.exchange = self.exchange, None
        sink, self._sink = self._sink, None
        self._producer = None
        if tunnel is not None:
            tunnel.connectionLost(_GONE)
        if exchange is None:
            return
        if self.body_open and sink is not None:
            sink.body_lost(ClientGone("The client left before the body was whole."))
        if not exchange.over and tunnel is None:
            if not exchange.begun or not exchange.close_reason:
                exchange.status = ClientGone.status
            exchange.close_reason = exchange.close_reason or ClientGone.slug
        exchange.client_gone()
        if self.factory.finished is not None:
            self.factory.finished(exchange)

    def _leave(self) -> None:
        """Count no more."""
        self.factory.connections.discard(self)
        self._kept.keep(0)
