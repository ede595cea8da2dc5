"""What a handler of requests sees: the exchange, its request, and where a body goes."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

from twisted.internet.interfaces import IProtocol, ITransport

from matrix.errors import MatrixError

HeaderList = Sequence[tuple[bytes, bytes]]


class Request(Protocol):
    """
    A request head, already found to be well-formed (RFC 9112) and unambiguous.

    Header names are compared in lower case; values have no surrounding white space.
    """

    method: bytes
    target: bytes
    """The request target as it came: origin form, or C{*}."""
    http11: bool

    @property
    def path(self) -> bytes:
        """The target up to the C{?}, still percent-encoded."""

    @property
    def query(self) -> bytes:
        """What follows the C{?}, still percent-encoded; empty if there is none."""

    def get(self, name: bytes) -> bytes | None:
        """The value of a field (lower-case name); several are joined with C{, }
        (C{; } for C{cookie})."""

    @property
    def headers(self) -> HeaderList:
        """Every field in order, names in lower case."""


class BodySink(Protocol):
    """Where the bytes of a request's body go. Exactly one of C{body_end} and C{body_lost}
    is the last call."""

    def body_data(self, data: bytes) -> None:
        """The next bytes, never empty."""

    def body_end(self) -> None:
        """The body is complete."""

    def body_lost(self, error: MatrixError) -> None:
        """The body will never be complete: the client left, was silent for too long, or
        broke the framing."""


class Exchange(Protocol):
    """
    One request and the answer to it.

    A handler is called once the head is in, and either answers at once, or begins an
    answer, or hands a coroutine to L{spawn}. A L{MatrixError} raised by the handler or
    the coroutine becomes the answer (problem+json, or a page for a browser's navigation),
    or, once an answer has begun, cuts the connection off.
    """

    request_id: str
    peer: str
    """The client's address."""
    gone: bool
    """Whether the client has left, or its request was refused meanwhile; answers then go
    nowhere, silently."""

    @property
    def request(self) -> Request:
        """The request's head."""

    def respond(self, status: int, headers: HeaderList = (), body: bytes = b"") -> None:
        """The whole answer at once. C{content-length} is added; a body is left out where
        the method or status forbids one."""

    def begin(self, status: int, headers: HeaderList = (), length: int | None = None) -> None:
        """Begin an answer of C{length} bytes, or of unknown length (C{None})."""

    def write(self, data: bytes) -> None:
        """The next bytes of a begun answer. Register a producer to learn when to pause."""

    def end(self) -> None:
        """The begun answer is complete. With fewer bytes than promised the connection is
        cut off instead."""

    def abort(self) -> None:
        """Cut the connection off: the begun answer cannot be completed."""

    def register_producer(self, producer: object) -> None:
        """An C{IPushProducer} that is paused while the client reads too slowly (64 KiB
        unsent) until the answer ends."""

    def receive(self, sink: BodySink) -> None:
        """Let the request's body flow into C{sink}; called at most once. Before this call
        no more of the body is read than one read from the socket. What is answered before
        its body was whole loses the rest of it."""

    def pause_body(self) -> None:
        """Read no more of the body for now (back-pressure)."""

    def resume_body(self) -> None:
        """Go on reading the body."""

    async def read_body(self, limit: int) -> bytes:
        """
        The whole body, for small ones.

        @raise matrix.errors.PayloadTooLarge: it is longer than C{limit} bytes.
        """

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine that will answer; it is cancelled when the client leaves."""

    def on_gone(self, callback: Callable[[], None]) -> None:
        """Call C{callback} once if the client leaves before the answer is complete."""

    def upgrade(self, headers: HeaderList, protocol: IProtocol) -> ITransport:
        """Answer 101 with C{headers} and hand the connection over to C{protocol}: its
        C{makeConnection} is called, then C{dataReceived} and C{connectionLost}."""


Handler = Callable[[Exchange], None]
"""Called with each request once its head is in."""
