"""An exchange without a connection: what a handler's unit test hands to the handler."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IProtocol, IPushProducer, ITransport
from twisted.internet.testing import StringTransport

from matrix.errors import MatrixError, PayloadTooLarge
from matrix.http.interfaces import BodySink, HeaderList


@dataclass
class FakeRequest:
    """A request head, written down."""

    method: bytes = b"GET"
    target: bytes = b"/"
    headers: HeaderList = ()
    http11: bool = True

    @property
    def path(self) -> bytes:
        return self.target.partition(b"?")[0]

    @property
    def query(self) -> bytes:
        return self.target.partition(b"?")[2]

    def get(self, name: bytes) -> bytes | None:
        found = [value for key, value in self.headers if key == name]
        return b", ".join(found) if found else None


@dataclass
class FakeExchange:
    """
    Records the answer; a L{MatrixError} of the handler is kept in C{error}.

    C{body} is the request's body, handed out by L{read_body} or, chunk by chunk, by
    L{feed}. C{state} is C{waiting}, C{begun}, C{ended}, C{aborted} or C{upgraded}.
    """

    request: FakeRequest = field(default_factory=FakeRequest)
    body: bytes = b""
    request_id: str = "fake"
    peer: str = "192.0.2.1"
    gone: bool = False

    state: str = "waiting"
    status: int = 0
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    length: int | None = None
    written: list[bytes] = field(default_factory=list)
    error: MatrixError | None = None
    producer: IPushProducer | None = None
    sink: BodySink | None = None
    body_paused: bool = False
    upgraded: IProtocol | None = None
    transport: StringTransport = field(default_factory=StringTransport)
    task: Deferred[None] | None = None
    _gone: list[Callable[[], None]] = field(default_factory=list)

    @classmethod
    def of(
        cls, method: str, target: str, headers: dict[str, str] | None = None, body: bytes = b""
    ) -> FakeExchange:
        """An exchange of a request written with text."""
        fields = [(k.lower().encode(), v.encode()) for k, v in (headers or {}).items()]
        return cls(FakeRequest(method.encode(), target.encode(), fields), body)

    def handle(self, handler: Callable[[Any], None]) -> FakeExchange:
        """Call C{handler} as the server does."""
        try:
            handler(self)
        except MatrixError as error:
            self.error = error
        return self

    @property
    def answer(self) -> bytes:
        """The bytes of the answer's body so far."""
        return b"".join(self.written)

    @property
    def json(self) -> Any:
        """The answer's body, parsed."""
        return json.loads(self.answer)

    def header(self, name: bytes) -> bytes | None:
        """One field of the answer."""
        return dict(self.headers).get(name)

    # What the server offers

    def respond(self, status: int, headers: HeaderList = (), body: bytes = b"") -> None:
        self.begin(status, headers, len(body))
        self.written.append(body)
        self.state = "ended"

    def begin(self, status: int, headers: HeaderList = (), length: int | None = None) -> None:
        assert self.state == "waiting", f"begun twice, or after {self.state}"
        self.state, self.status, self.headers, self.length = "begun", status, list(headers), length

    def write(self, data: bytes) -> None:
        assert self.state == "begun", f"written while {self.state}"
        self.written.append(data)

    def end(self) -> None:
        assert self.state == "begun", f"ended while {self.state}"
        self.state = "ended"

    def abort(self) -> None:
        self.state = "aborted"

    def register_producer(self, producer: object) -> None:
        self.producer = cast(IPushProducer, producer)

    def receive(self, sink: BodySink) -> None:
        assert self.sink is None, "the body can be received once"
        self.sink = sink

    def pause_body(self) -> None:
        self.body_paused = True

    def resume_body(self) -> None:
        self.body_paused = False

    async def read_body(self, limit: int) -> bytes:
        if len(self.body) > limit:
            raise PayloadTooLarge(f"the body is longer than {limit} bytes")
        return self.body

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self.task = Deferred.fromCoroutine(coroutine)
        self.task.addErrback(self._failed)

    def on_gone(self, callback: Callable[[], None]) -> None:
        self._gone.append(callback)

    def upgrade(self, headers: HeaderList, protocol: IProtocol) -> ITransport:
        self.state, self.status, self.headers = "upgraded", 101, list(headers)
        self.upgraded = protocol
        protocol.makeConnection(self.transport)
        return cast(ITransport, self.transport)

    # What a test does in the client's place

    def feed(self, *chunks: bytes) -> None:
        """Let the body arrive, whole."""
        assert self.sink is not None, "the handler does not receive the body"
        for chunk in chunks:
            self.sink.body_data(chunk)
        self.sink.body_end()

    def leave(self) -> None:
        """The client goes away: the running coroutine is cancelled."""
        self.gone = True
        callbacks, self._gone = self._gone, []
        for callback in callbacks:
            callback()
        if self.task is not None:
            self.task.cancel()

    def _failed(self, failure: Any) -> None:
        if failure.check(CancelledError) and self.gone:
            return
        failure.trap(MatrixError)
        self.error = failure.value
        if self.state == "begun":
            self.state = "aborted"
