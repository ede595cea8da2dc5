"""TLS between the loop's transport and a protocol, against a client in memory."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, cast

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IDelayedCall, IPushProducer, ITransport
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from matrix.net import LocalAuthority, server_context
from matrix.net._tls_transport import RECORD_MAX, SHUTDOWN_TIMEOUT, USE_TLS, TlsTransport
from matrix.net._transport import READ_MAX, WRITE_HIGH_WATER
from tests.net.test_transport import Native, Producer, Recorder


class Loop(Clock):
    """As much of an event loop as the transport asks for."""

    def call_later(self, delay: float, callback: Callable[[], None]) -> IDelayedCall:
        return self.callLater(delay, callback)

    def call_soon(self, callback: Callable[[], None]) -> IDelayedCall:
        return self.callLater(0, callback)


class Client:
    """The peer: a TLS client whose wire the test carries."""

    def __init__(self, ca: Path, **options: Any) -> None:
        context = ssl.create_default_context(cafile=str(ca))
        for name, value in options.items():
            setattr(context, name, value)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")

    def shake(self) -> bool:
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def read(self) -> bytes:
        """All that has arrived."""
        got = b""
        try:
            while data := self.tls.read(READ_MAX):
                got += data
        except ssl.SSLWantReadError:
            pass
        return got


class TlsCase(SynchronousTestCase):
    authority: ClassVar[tuple[Path, Path, Path] | None] = None

    def setUp(self) -> None:
        if TlsCase.authority is None:
            TlsCase.authority = LocalAuthority(Path(self.mktemp())).ensure()
        self.ca, cert, key = TlsCase.authority
        self.context = server_context(cert, key)
        self.begin()

    def begin(self, **options: Any) -> None:
        self.loop = Loop()
        self.native = Native()
        self.protocol = Recorder()
        self.over: list[str] = []
        self.transport = TlsTransport(
            self.protocol,
            self.context,
            cast(asyncio.AbstractEventLoop, self.loop),
            10.0,
            lambda _, failure: self.over.append(failure),
        )
        self.client = Client(self.ca, **options)
        self.transport.connection_made(cast(Any, self.native))

    def arrive(self, data: bytes, size: int = READ_MAX) -> None:
        """Let the loop read bytes from the socket."""
        while data:
            buffer = self.transport.get_buffer(-1)
            piece = data[: min(size, len(buffer))]
            buffer[: len(piece)] = piece
            self.transport.buffer_updated(len(piece))
            data = data[len(piece) :]

    def carry(self) -> None:
        """Carry what both sides have sent."""
        sent, self.native.sent = self.native.sent, b""
        self.client.incoming.write(sent)

    def shake(self) -> None:
        while not self.over:
            self.client.shake()
            self.arrive(self.client.outgoing.read())
            self.carry()
        self.client.shake()

    def send(self, data: bytes, size: int = READ_MAX) -> None:
        self.client.tls.write(data)
        self.arrive(self.client.outgoing.read(), size)


class HandshakeTests(TlsCase):
    def test_the_protocol_hears_of_a_connection_when_it_is_secure(self) -> None:
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            self.begin(maximum_version=version)
            self.client.shake()
            self.assertIsNone(self.protocol.transport)
            self.shake()
            self.assertIs(self.protocol.transport, self.transport)
            self.assertEqual(self.over, [""])
            self.assertEqual(self.transport.tls_version(), self.client.tls.version())
            verifyObject(ITransport, self.transport)
            verifyObject(IPushProducer, self.transport)
            self.assertEqual(self.loop.getDelayedCalls(), [])

    def test_a_request_may_come_with_the_end_of_the_handshake(self) -> None:
        self.client.shake()
        while not self.client.shake():
            self.arrive(self.client.outgoing.read())
            self.carry()
        self.client.tls.write(b"early")
        self.arrive(self.client.outgoing.read())
        self.assertEqual(self.protocol.got, b"early")

    def test_no_tls_is_answered_with_an_alert(self) -> None:
        self.arrive(b"\x16\x03\x01\x00\x05hello")
        self.assertEqual(self.over, ["protocol"])
        self.assertEqual(self.native.calls, ["close"])
        self.assertIsNone(self.protocol.transport)
        self.transport.connection_lost(None)
        self.assertEqual((self.over, self.protocol.reason), (["protocol"], None))

    def test_plain_http_is_told_to_use_tls(self) -> None:
        self.arrive(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        self.assertEqual(self.native.sent, USE_TLS)
        self.assertEqual(self.native.calls, ["close"])

    def test_one_that_is_not_done_in_time_is_cut_off(self) -> None:
        self.client.shake()
        self.arrive(self.client.outgoing.read())
        self.loop.advance(9.9)
        self.assertEqual(self.over, [])
        self.loop.advance(0.2)
        self.assertEqual((self.over, self.native.calls), (["timeout"], ["abort"]))
        self.transport.connection_lost(None)
        self.assertIsNone(self.protocol.reason)

    def test_one_that_is_given_up_leaves_nothing_behind(self) -> None:
        self.transport.connection_lost(ConnectionResetError("reset"))
        self.assertEqual(self.over, ["gone"])
        self.assertIsNone(self.protocol.reason)
        self.assertEqual(self.loop.getDelayedCalls(), [])

    def test_the_end_of_one_half_done_is_its_end(self) -> None:
        self.client.shake()
        self.arrive(self.client.outgoing.read()[:10])
        self.assertFalse(self.transport.eof_received())


class DataTests(TlsCase):
    def setUp(self) -> None:
        super().setUp()
        self.shake()

    @settings(max_examples=50, deadline=None)
    @given(st.binary(min_size=1, max_size=100_000), st.integers(1, READ_MAX))
    def test_bytes_arrive_whole_however_they_are_split(self, data: bytes, size: int) -> None:
        self.protocol.got = b""
        self.send(data, max(size, len(data) // 50))
        self.assertEqual(self.protocol.got, data)

    @settings(max_examples=20, deadline=None)
    @given(st.lists(st.binary(max_size=50_000)))
    def test_bytes_leave_whole(self, pieces: list[bytes]) -> None:
        for piece in pieces:
            self.transport.write(piece)
        self.carry()
        self.assertEqual(self.client.read(), b"".join(pieces))

    def test_what_was_read_at_once_is_handed_on_at_once(self) -> None:
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            self.begin(maximum_version=version)
            self.shake()
            pieces: list[bytes] = []
            self.transport._receive = pieces.append
            self.client.tls.write(bytes(40_000))  # three records
            self.arrive(self.client.outgoing.read()[:-1])
            self.assertEqual([len(piece) for piece in pieces], [2 * RECORD_MAX])
            self.transport.pauseProducing()
            self.transport.resumeProducing()
            self.assertEqual(self.native.calls, ["pause_reading", "resume_reading"])

    def test_the_last_bytes_come_before_the_end(self) -> None:
        self.client.tls.write(b"last")
        with contextlib.suppress(ssl.SSLWantReadError):
            self.client.tls.unwrap()
        self.arrive(self.client.outgoing.read())
        self.assertEqual((self.protocol.got, self.native.calls), (b"last", ["close"]))

    def test_the_producer_follows_the_unsent_bytes(self) -> None:
        self.assertEqual(self.native.high, WRITE_HIGH_WATER)
        producer = Producer()
        self.transport.registerProducer(producer, True)
        self.transport.pause_writing()
        self.transport.resume_writing()
        self.assertEqual(producer.calls, ["pause", "resume"])

    def test_what_is_no_tls_ends_the_connection(self) -> None:
        self.arrive(b"\x17\x03\x03\x00\x20" + bytes(32))
        assert self.protocol.reason is not None
        self.assertIsInstance(self.protocol.reason.value, ConnectionLost)
        self.assertEqual(self.native.calls, ["close"])
        self.transport.connection_lost(None)
        self.transport.write(b"too late")


class EndTests(TlsCase):
    def setUp(self) -> None:
        super().setUp()
        self.shake()

    def test_our_end_is_told_and_the_peers_is_awaited(self) -> None:
        self.transport.write(b"last")
        self.transport.loseConnection()
        self.transport.loseConnection()
        self.transport.write(b"too late")
        self.carry()
        self.assertEqual(self.client.tls.read(100), b"last")
        self.assertEqual(self.client.tls.read(100), b"", "no close_notify")
        self.send(b"what comes now is nobody's")
        self.assertEqual((self.protocol.got, self.native.calls), (b"", []))
        self.client.tls.unwrap()
        self.arrive(self.client.outgoing.read())
        self.assertEqual(self.native.calls, ["close"])
        self.transport.connection_lost(None)
        assert self.protocol.reason is not None
        self.assertIsInstance(self.protocol.reason.value, ConnectionDone)
        self.assertEqual(self.loop.getDelayedCalls(), [])

    def test_a_peer_that_never_ends_is_cut_off(self) -> None:
        self.transport.pauseProducing()
        self.transport.loseConnection()
        self.assertEqual(self.native.calls, ["pause_reading", "resume_reading"])
        self.loop.advance(SHUTDOWN_TIMEOUT)
        self.assertEqual(self.native.calls[2:], ["abort"])

    def test_the_peers_end_is_answered(self) -> None:
        with self.assertRaises(ssl.SSLWantReadError):
            self.client.tls.unwrap()
        self.arrive(self.client.outgoing.read())
        self.carry()
        self.client.tls.unwrap()  # raises if there is no close_notify
        self.assertEqual(self.native.calls, ["close"])
        self.transport.connection_lost(None)
        assert self.protocol.reason is not None
        self.assertIsInstance(self.protocol.reason.value, ConnectionDone)

    def test_what_has_arrived_before_our_end_spoils_nothing(self) -> None:
        data = b"a body of several records " * 4000
        whole = data[: len(data) // RECORD_MAX * RECORD_MAX]
        for end, got in (
            ("loseWriteConnection", data + b"the rest"),
            ("loseConnection", whole),
        ):
            self.begin()
            self.shake()
            self.client.tls.write(data)
            sent = self.client.outgoing.read()
            self.arrive(sent[:-1])
            self.assertEqual(self.protocol.got, whole)
            getattr(self.transport, end)()
            self.arrive(sent[-1:])
            self.send(b"the rest")
            self.assertNotIn("close", self.native.calls)
            self.assertEqual(self.protocol.got, got)
            self.carry()
            self.assertEqual(self.client.tls.read(100), b"", "no close_notify")

    def test_what_is_written_after_the_peers_end_is_dropped(self) -> None:
        with self.assertRaises(ssl.SSLWantReadError):
            self.client.tls.unwrap()
        self.arrive(self.client.outgoing.read())
        self.native.sent = b""
        self.transport.write(b"an answer that comes too late")
        self.transport.loseConnection()
        self.assertEqual((self.native.sent, self.native.calls), (b"", ["close"]))
        self.loop.advance(SHUTDOWN_TIMEOUT)
        self.assertEqual(self.native.calls, ["close", "abort"])

    def test_an_abort_says_nothing(self) -> None:
        self.native.sent = b""
        self.transport.abortConnection()
        self.assertEqual((self.native.calls, self.native.sent), (["abort"], b""))
        self.transport.connection_lost(None)
        assert self.protocol.reason is not None
        self.assertIsInstance(self.protocol.reason.value, ConnectionAborted)
