"""One request and its answer, as a handler sees them; implements L{interfaces.Exchange}."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from time import perf_counter
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IProtocol, ITransport
from twisted.logger import Logger
from twisted.python.failure import Failure

from matrix.errors import BadRequest, ClientGone, InternalError, MatrixError, PayloadTooLarge
from matrix.http._heads import RequestHead
from matrix.http._status import status_line
from matrix.http.interfaces import BodySink, HeaderList
from matrix.http.problem import Answer, problem

if TYPE_CHECKING:
    from matrix.http._server import ServerConnection
    from matrix.http._upstream import Stream

_log = Logger()

# How the end of an answer's body is told (RFC 9112 section 6).
_NOT_BEGUN, _NO_BODY, _COUNTED, _CHUNKED, _UNTIL_CLOSE, _OVER = range(6)


class Exchange:
    """
    See L{matrix.http.interfaces.Exchange}.

    The proxy's relay uses the lower calls: L{begin_block}, L{push}, L{flush}.
    """

    # Defaults of the class, because one is made for each request and few are ever changed.
    status = 0
    body_bytes = 0
    """Bytes of the request's body so far."""
    bytes_out = 0
    """Bytes of the answer's body so far."""
    gone = False
    is_stream = False
    """Whether the answer is an event stream: only its silence is limited then."""
    close_reason = ""
    stream: Stream | None = None
    """What the answer has become, if a stream of a machine's."""
    story: Any = None
    """Whatever the handler wants to remember for the log."""
    _framing = _NOT_BEGUN
    _left = 0
    _cancel: Deferred[None] | None = None
    _on_gone: Callable[[], None] | None = None

    def __init__(self, connection: ServerConnection, request: RequestHead, request_id: str) -> None:
        self._connection = connection
        self.request = request
        self.request_id = request_id
        self.peer = connection.peer
        self.started = perf_counter()
        self.keep = request.keeps_alive and not connection.factory.draining
        self._out: list[bytes] = []

    @property
    def begun(self) -> bool:
        """Whether an answer has begun."""
        return self._framing != _NOT_BEGUN

    @property
    def over(self) -> bool:
        """Whether the answer is complete or cut off."""
        return self._framing == _OVER

    @property
    def forwarded(self) -> bytes:
        """The C{X-Forwarded-*} lines that tell of the client, each with CRLF."""
        return self._connection.forwarded

    @property
    def tls(self) -> str:
        """The TLS version of the client's connection, empty without TLS."""
        return self._connection.tls

    # answering

    def respond(self, status: int, headers: HeaderList = (), body: bytes = b"") -> None:
        if self.gone:
            return
        self._connection.discard_body()
        forbidden = self.request.method == b"HEAD" or status == 204 or status == 304
        self.begin_block(
            status, b"", _block(headers), None if status in (204, 304) else len(body), not forbidden
        )
        if body and not forbidden:
            self.push(body)
        self.end()

    def begin(self, status: int, headers: HeaderList = (), length: int | None = None) -> None:
        if self.gone:
            return
        forbidden = self.request.method == b"HEAD" or status == 204 or status == 304
        length = None if status == 204 else length  # RFC 9110 section 8.6
        self.begin_block(status, b"", _block(headers), length, not forbidden)
        self.flush()

    def begin_block(
        self, status: int, reason: bytes, block: bytes, length: int | None, has_body: bool
    ) -> None:
        """
        Begin an answer with header lines that are ready to send.

        @param length: the body's length in bytes, C{None} if unknown.
        @param has_body: whether a body may follow; a length is told regardless.
        """
        if self._framing != _NOT_BEGUN:
            raise InternalError("a second answer to one request")
        self.status = status
        parts = [status_line(status, reason), block]
        if length is not None:
            parts.append(b"Content-Length: %d\r\n" % length)
        if not has_body:
            self._framing = _NO_BODY
        elif length is not None:
            self._framing, self._left = _COUNTED, length
        elif self.request.http11:
            self._framing = _CHUNKED
            parts.append(b"Transfer-Encoding: chunked\r\n")
        else:
            self._framing = _UNTIL_CLOSE
            self.keep = False
        parts.append(self._end_of_head())
        self._out = parts

    def _end_of_head(self) -> bytes:
        connection = self._connection
        if not self.keep or connection.must_close or connection.body_open:
            self.keep = False
            return b"Connection: close\r\n\r\n"
        return b"\r\n" if self.request.http11 else b"Connection: keep-alive\r\n\r\n"

    def whole(self, status: int, reason: bytes, block: bytes, body: bytes) -> None:
        """What L{begin_block}, L{push} and L{end} come to for an answer that is here whole."""
        if self._framing != _NOT_BEGUN:
            raise InternalError("a second answer to one request")
        connection = self._connection
        self.status = status
        self.bytes_out = size = len(body)
        length = b"Content-Length: %d\r\n" % size
        head = status_line(status, reason), block, length, self._end_of_head()
        connection.send(b"".join((*head, body)))
        self._framing = _OVER
        self._on_gone = None
        connection.answered(self)

    def inform(self, status: int, block: bytes) -> None:
        """Pass on an interim answer (RFC 9110 section 15.2); HTTP/1.0 knows none."""
        if self.request.http11 and not self.gone:
            self._connection.send(status_line(status, b"") + block + b"\r\n")

    def push(self, data: bytes) -> None:
        """The next bytes of the body, to go out with the next L{flush}."""
        size = len(data)
        self.bytes_out += size
        framing = self._framing
        if framing == _COUNTED:
            self._left -= size
            if self._left < 0:
                raise InternalError("more body than Content-Length announced")
            self._out.append(data)
        elif framing == _CHUNKED:
            self._out.append(b"%x\r\n%b\r\n" % (size, data))
        elif framing == _UNTIL_CLOSE:
            self._out.append(data)

    def flush(self) -> None:
        """Send what L{push} collected."""
        out = self._out
        if out:
            self._connection.send(b"".join(out) if len(out) > 1 else out[0])
            self._out = []

    def write(self, data: bytes) -> None:
        if data and not self.gone:
            self.push(data)
            self.flush()

    def end(self, trailers: bytes = b"") -> None:
        """@param trailers: trailer lines ready to send, each with CRLF."""
        if self.gone or self._framing == _OVER:
            return
        if self._framing == _COUNTED and self._left:
            self.abort()
            return
        if self._framing == _CHUNKED:
            self._out.append(b"0\r\n%b\r\n" % trailers)
        connection, out = self._connection, self._out
        connection.set_producer(None)
        if out:
            connection.send(b"".join(out))
        self._framing = _OVER
        self._on_gone = None
        connection.answered(self)

    def abort(self) -> None:
        if not self.gone:
            self.close_reason = self.close_reason or "aborted"
            self._framing = _OVER
            self._connection.abort()

    def fail(self, error: MatrixError) -> None:
        """End with an error: as an answer, or by cutting off one that has begun."""
        self.close_reason = self.close_reason or error.reason or error.slug
        if self.gone or self.over:
            return
        if self.begun:
            self.abort()
        else:
            self.respond(*self._shown(error))

    def refuse(self, error: MatrixError) -> None:
        """End with an error that its own sender is to blame for: what is done for it ends too."""
        self.keep = False
        on_gone = self._on_gone
        self.fail(error)
        self._on_gone = on_gone
        self.client_gone()

    def cut(self, error: MatrixError, code: int) -> None:
        """
        End with an error, now: the sender has lost the right to what is under way.

        @param code: what a WebSocket is closed with.
        """
        if self.stream is not None:
            self.stream.drain(error.reason or error.slug, code)
        else:
            self.refuse(error)

    def _shown(self, error: MatrixError) -> Answer:
        try:
            answer: Answer = self._connection.factory.render(error, self)
        except Exception:  # noqa: BLE001 -- without an answer the client would wait for ever
            _log.failure("rendering {error!r} failed", error=error)
            return problem(error, self.request_id)
        return answer

    def register_producer(self, producer: object) -> None:
        if not self.over:
            self._connection.set_producer(producer)

    # the request's body

    def receive(self, sink: BodySink) -> None:
        if self.request.fields.expect_continue and not self.begun:
            self.inform(100, b"")
        self.receive_unasked(sink)

    def receive_unasked(self, sink: BodySink) -> None:
        """As L{receive}, but leave it to the machine to ask for the body (RFC 9110 section
        10.1.1)."""
        if self.over:
            sink.body_lost(ClientGone("The request was over before its body was read."))
        else:
            self._connection.receive_body(sink)

    # Once it is over the connection's body is that of another exchange.

    def pause_body(self) -> None:
        if not self.over:
            self._connection.pause_body()

    def resume_body(self) -> None:
        if not self.over:
            self._connection.resume_body()

    # IPushProducer, so that a slow reader of the body can be wired to it in one line
    pauseProducing = pause_body
    resumeProducing = resume_body

    def stopProducing(self) -> None:
        self.abort()

    async def read_body(self, limit: int) -> bytes:
        length = self.request.fields.length
        if length is not None and length > limit:
            raise PayloadTooLarge(f"The body may have {limit} bytes, not {length}.")
        collector = _Collector(limit)
        self.receive(collector)
        return await collector.whole

    # running on

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        running: Deferred[None] = Deferred.fromCoroutine(coroutine)
        if not running.called:
            self._cancel = running
        running.addErrback(self.crashed)

    def crashed(self, failure: Failure) -> None:
        """Answer for a handler that failed."""
        self._cancel = None
        error = failure.value
        if isinstance(error, CancelledError) and self.gone:
            return
        if not isinstance(error, MatrixError):
            _log.failure("request {request_id} failed", failure=failure, request_id=self.request_id)
            error = InternalError(
                "This is our fault. The log has the details under the request id."
            )
        self.fail(error)

    def on_gone(self, callback: Callable[[], None]) -> None:
        self._on_gone = callback

    def client_gone(self) -> None:
        """Nobody wants another answer: the connection was lost, or the request refused."""
        self.gone = True
        self._framing = _OVER
        self._out = []
        callback, self._on_gone = self._on_gone, None
        running, self._cancel = self._cancel, None
        if callback is not None:
            callback()
        if running is not None:
            running.cancel()

    def upgrade(self, headers: HeaderList, protocol: IProtocol) -> ITransport:
        return self.upgrade_block(_block(headers), protocol)

    def upgrade_block(self, block: bytes, protocol: IProtocol) -> ITransport:
        """As L{upgrade}, with header lines that are ready to send."""
        if self.gone or self.begun:
            raise InternalError("an upgrade after the answer")
        self.status = 101
        self._framing = _UNTIL_CLOSE
        self._connection.send(status_line(101, b"") + block + b"\r\n")
        return self._connection.hand_over(protocol)


class _Collector:
    """A body sink that gathers a small body."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._parts: list[bytes] = []
        self._size = 0
        self.whole: Deferred[bytes] = Deferred()

    def body_data(self, data: bytes) -> None:
        self._size += len(data)
        if self._size <= self._limit:
            self._parts.append(data)
        elif not self.whole.called:
            self.whole.errback(PayloadTooLarge(f"The body may have {self._limit} bytes."))

    def body_end(self) -> None:
        if not self.whole.called:
            self.whole.callback(b"".join(self._parts))

    def body_lost(self, error: MatrixError) -> None:
        if not self.whole.called:
            self.whole.errback(error)


def _block(headers: HeaderList) -> bytes:
    lines = []
    for name, value in headers:
        if b"\r" in value or b"\n" in value:
            raise BadRequest("A header value would break the answer.", reason="header-injection")
        lines.append(b"%b: %b\r\n" % (name, value))
    return b"".join(lines)
