"""The relay: one request to a machine and its answer back, streaming, with back-pressure."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from matrix.errors import BadGateway, GatewayTimeout, MatrixError
from matrix.http._exchange import Exchange
from matrix.http._fields import Fields
from matrix.http._heads import ResponseHead
from matrix.http._reader import END
from matrix.http._rules import Rules, trailers_to_client
from matrix.http._sse import EventSpotter
from matrix.http._tunnel import Tunnel, check_upgrade
from matrix.http._upstream import Backend, Upstream
from matrix.http._websocket import SERVICE_RESTART

_IDEMPOTENT = frozenset({b"GET", b"HEAD", b"PUT", b"DELETE", b"OPTIONS"})
"""RFC 9110 section 9.2.2, less TRACE, which is not served."""


class Relay:
    """
    Joins an exchange with a machine.

    It is the body sink of the exchange and the work of the upstream connection. Whoever
    makes it is told through C{unreachable} when no connection could be made at all, since
    a machine that refuses is asleep or dead, which is not the client's affair.
    """

    kind = "sse"
    """What stream it is, while it is among its backend's streams."""

    # Defaults of the class, because one is made for each request and few are ever changed.
    first_byte = 0.0
    retried = False
    _upstream: Upstream | None = None
    _reused = False
    _seen = False
    _body_sent = False
    _events: EventSpotter | None = None
    _counted = True

    def __init__(
        self,
        exchange: Exchange,
        backend: Backend,
        rules: Rules,
        extra: bytes,
        annotate: Callable[[Relay], bytes],
        unreachable: Callable[[Relay, Exception], None],
        passive: bool = False,
        target: bytes | None = None,
    ) -> None:
        """
        @param extra: header lines for the machine that the door adds, each with CRLF.
        @param annotate: makes the header lines that the door adds to the answer.
        @param passive: whether this request does not count as use.
        @param target: what the machine is asked for, if not what the client asked for.
        """
        self.exchange = exchange
        self._backend = backend
        self._rules = rules
        self._annotate = annotate
        self._unreachable = unreachable
        self._passive = passive
        self._complete = not exchange.request.fields.has_body
        self._head = _request_head(exchange, rules, extra, target)
        backend.requests += 1
        if not passive:
            backend.used_at = backend.wheel.now

    def start(self) -> None:
        """Send the request, on an idle connection if there is one."""
        self.exchange.on_gone(self.client_gone)
        if self.exchange.gone:
            self._leave()
            return
        upstream = self._backend.take()
        if upstream is not None:
            self._reused = True
            self._send(upstream)
        else:
            self._connect()

    def _connect(self) -> None:
        connecting: Deferred[Upstream] = Deferred.fromCoroutine(self._backend.connect())
        connecting.addCallbacks(self._connected, self._failed)
        connecting.addErrback(self._broke)

    def _connected(self, upstream: Upstream) -> None:
        if self.exchange.gone:
            self._leave()
            self._backend.put(upstream)
        else:
            self._reused = False
            self._send(upstream)

    def _failed(self, failure: Failure) -> None:
        error = failure.value
        if not isinstance(error, OSError | GatewayTimeout | CancelledError):
            failure.raiseException()
        if not self.exchange.gone:
            self._leave()
            self._unreachable(self, cast(Exception, error))

    def _broke(self, failure: Failure) -> None:
        self._leave()
        self.exchange.crashed(failure)

    def _send(self, upstream: Upstream) -> None:
        self._upstream = upstream
        upstream.work = self
        request = self.exchange.request
        wants_websocket = request.fields.upgrade is not None and request.wants_websocket
        upstream.reader.expect(request.method, wants_websocket)
        upstream.send(self._head)
        upstream.arm(self._backend.limits.response_time)
        if not self._complete:
            upstream.transport.registerProducer(self.exchange, True)
            self.exchange.receive_unasked(self)

    # the request's body: BodySink

    def body_data(self, data: bytes) -> None:
        upstream = self._upstream
        if upstream is None:
            return
        self._body_sent = True
        if not self._passive:
            self._backend.used_at = self._backend.wheel.now
        if self.exchange.request.fields.chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        upstream.send(data)
        upstream.arm(self._backend.limits.response_time)

    def body_end(self) -> None:
        self._complete = True
        upstream = self._upstream
        if upstream is not None:
            if self.exchange.request.fields.chunked:
                upstream.send(b"0\r\n\r\n")
            upstream.transport.unregisterProducer()

    def body_lost(self, error: MatrixError) -> None:
        self._drop_upstream()

    # the answer: Work

    def response_data(self, data: bytes) -> None:
        upstream = cast(Upstream, self._upstream)
        reader = upstream.reader
        reader.feed(data)
        self._seen = True
        try:
            while (event := reader.next_event()) is not None:
                if event.__class__ is bytes:
                    self._body(event)
                elif event is END:
                    self._finish(upstream)
                    return
                elif (body := reader.take_body()) is not None:
                    self._pass_whole(upstream, cast(ResponseHead, event), body)
                    return
                elif not self._take_head(upstream, cast(ResponseHead, event)):
                    return
                if reader.finish():
                    self._finish(upstream)
                    return
        except MatrixError as error:
            self._break(error)
            return
        exchange = self.exchange
        # Only now is it known that the answer takes more than one read. A machine may also
        # send interim answers without end.
        exchange.register_producer(upstream.transport)
        if exchange.begun:
            exchange.flush()
            limits = self._backend.limits
            upstream.arm(limits.stream_silence if exchange.is_stream else limits.body_silence)

    def _pass_whole(self, upstream: Upstream, head: ResponseHead, body: bytes) -> None:
        """Pass on a response that is here whole, as most are."""
        self.first_byte = perf_counter()
        if not self._passive:
            self._backend.used_at = self._backend.wheel.now
        block = self._rules.to_client(head.fields) + self._annotate(self)
        self._release(upstream)
        self.exchange.whole(head.status, head.reason, block, body)

    def _take_head(self, upstream: Upstream, head: ResponseHead) -> bool:
        """Pass a head on; whether the response goes on as HTTP."""
        exchange, rules, fields = self.exchange, self._rules, head.fields
        if head.status == 101:
            check_upgrade(exchange.request, fields)
            self._to_tunnel(upstream, rules.to_client(fields))
            return False
        if head.status < 200:
            exchange.inform(head.status, rules.to_client(fields))
            return True
        self.first_byte = perf_counter()
        has_body = upstream.reader.has_body
        length = None if fields.chunked or head.status == 204 else fields.length
        if has_body and _is_event_stream(fields):
            self._begin_stream()
        block = rules.to_client(fields) + self._annotate(self)
        exchange.begin_block(head.status, head.reason, block, length, has_body)
        return True

    def _begin_stream(self) -> None:
        self._leave()
        self.exchange.is_stream = True
        self._events = EventSpotter()
        self._backend.begin_stream(self)

    def _to_tunnel(self, upstream: Upstream, block: bytes) -> None:
        exchange = self.exchange
        self.first_byte = perf_counter()
        self._leave()
        self._upstream = None
        tunnel = Tunnel(exchange, upstream, self._backend)
        upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
        exchange.upgrade_block(block + upgrade + self._annotate(self), tunnel)
        tunnel.begin(upstream.reader.take_rest())

    def _body(self, data: bytes) -> None:
        events = self._events
        if not self._passive and (events is None or events.feed(data)):
            self._backend.used_at = self._backend.wheel.now
        self.exchange.push(data)

    def _finish(self, upstream: Upstream) -> None:
        exchange = self.exchange
        trailers = b""
        if upstream.reader.trailers and exchange.request.fields.te_trailers:
            trailers = trailers_to_client(upstream.reader.trailers)
        self._release(upstream)
        exchange.end(trailers)

    def _release(self, upstream: Upstream) -> None:
        """The response is complete: the connection can serve others, or nobody any more."""
        self._leave()
        self._upstream = None
        if not self._complete or upstream.reader.buffered:
            upstream.work = None
            upstream.transport.abortConnection()
        else:
            self._backend.put(upstream)

    # ending early

    def client_gone(self) -> None:
        """The client left: so does the machine's work for it."""
        self._drop_upstream()

    def upstream_ended(self) -> bool:
        return False

    def upstream_lost(self) -> None:
        upstream, self._upstream = self._upstream, None
        if upstream is None:
            return
        if self.exchange.begun:
            try:
                upstream.closed()
            except MatrixError as error:
                self._break(error)
            else:
                self._leave()
                self.exchange.end()
        elif self._may_retry():
            self.retried = True
            self._backend.counters.retried += 1
            self.exchange.pause_body()  # what came now would have nowhere to go
            self._connect()
        elif self._may_wake():
            self._leave()
            self.exchange.pause_body()
            self._unreachable(self, ConnectionResetError("closed without an answer"))
        else:
            self._break(BadGateway("The machine closed the connection.", reason="reset"))

    def _may_wake(self) -> bool:
        """
        Whether a fresh connection that ended without a word may mean that nobody is there:
        the sockets of a process that was killed accept for some milliseconds more. What
        then is sent again must be idempotent.
        """
        unheard = not (self.retried or self._reused or self._seen or self._body_sent)
        return unheard and self.exchange.request.method in _IDEMPOTENT

    def _may_retry(self) -> bool:
        """
        Whether the machine cannot have acted on the request, or acting twice is the same:
        the connection was a kept one, which the machine may close at any time, nothing of
        an answer was seen, nothing of the body is lost, and the method is idempotent or
        the machine lacks the body to act on (RFC 9110 section 9.2.2).
        """
        if self.retried or not self._reused or self._seen or self._body_sent:
            return False
        return self.exchange.request.method in _IDEMPOTENT or not self._complete

    def upstream_silent(self) -> None:
        exchange = self.exchange
        if exchange.is_stream:
            limit = "stream-silence"
        else:
            limit = "machine-silence" if exchange.begun else "first-byte"
        self._backend.counters.timeouts[limit] += 1
        self._break(GatewayTimeout("The machine fell silent.", reason=limit))

    def drain(self, reason: str, code: int = SERVICE_RESTART) -> None:
        """See L{Stream.drain}: at an event's end as far as the client can tell."""
        self.exchange.close_reason = reason
        self._drop_upstream()
        self.exchange.end()

    def _break(self, error: MatrixError) -> None:
        self._drop_upstream()
        self.exchange.fail(error)

    def _drop_upstream(self) -> None:
        upstream, self._upstream = self._upstream, None
        self._leave()
        if upstream is not None:
            upstream.work = None
            upstream.transport.unregisterProducer()
            upstream.transport.abortConnection()

    def _leave(self) -> None:
        """Count this request as no longer under way, once."""
        if self._counted:
            self._counted = False
            self._backend.requests -= 1
        if self._events is not None:
            self._backend.end_stream(self)


def _is_event_stream(fields: Fields) -> bool:
    found: bool | None = fields.notes.get(_is_event_stream)
    if found is None:
        content_type = fields.get(b"content-type") or b""
        found = fields.notes[_is_event_stream] = content_type.lower().startswith(
            b"text/event-stream"
        )
    return found


def _request_head(exchange: Exchange, rules: Rules, extra: bytes, target: bytes | None) -> bytes:
    """The head that the machine sees."""
    request = exchange.request
    fields = request.fields
    if fields.upgrade is not None and request.wants_websocket:
        framing = b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    elif fields.chunked:
        framing = b"Transfer-Encoding: chunked\r\n\r\n"
    elif fields.length is not None:
        framing = b"Content-Length: %d\r\n\r\n" % fields.length
    else:
        framing = b"\r\n"
    return b"".join(
        (
            request.method,
            b" ",
            request.target if target is None else target,
            b" HTTP/1.1\r\n",
            rules.to_machine(fields),
            exchange.forwarded,
            extra,
            framing,
        )
    )
