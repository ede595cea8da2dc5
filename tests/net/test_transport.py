"""The adapter between the loop's transports and Twisted's protocols."""

import gc
import socket
import struct
import weakref
from typing import Any, cast

from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IPushProducer, ITransport
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from matrix.net import NativeTransport
from matrix.net._transport import WRITE_HIGH_WATER


class Native:
    """What the loop gives; notes what is asked of it."""

    def __init__(self, **extra: Any) -> None:
        self.calls: list[str] = []
        self.sent = b""
        self.high = 0
        self._extra = extra

    def write(self, data: bytes) -> None:
        self.sent += data

    def writelines(self, pieces: list[bytes]) -> None:
        self.sent += b"".join(pieces)

    def set_write_buffer_limits(self, high: int) -> None:
        self.high = high

    def get_extra_info(self, name: str) -> Any:
        return self._extra.get(name)

    def __getattr__(self, name: str) -> Any:
        return lambda: self.calls.append(name)


class Recorder(Protocol):
    def __init__(self) -> None:
        self.got = b""
        self.reason: Failure | None = None

    def dataReceived(self, data: bytes) -> None:
        self.got += data

    def connectionLost(self, reason: Any = None) -> None:
        self.reason = reason


class Producer:
    def __init__(self) -> None:
        self.calls: list[str] = []

    def pauseProducing(self) -> None:
        self.calls.append("pause")

    def resumeProducing(self) -> None:
        self.calls.append("resume")


class TransportTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.native = Native(peername=("192.0.2.7", 1), sockname=("192.0.2.1", 443))
        self.protocol = Recorder()
        self.transport = NativeTransport(self.protocol)

    def connect(self) -> None:
        self.transport.connection_made(cast(Any, self.native))

    def test_interfaces(self) -> None:
        verifyObject(ITransport, self.transport)
        verifyObject(IPushProducer, self.transport)

    def test_bytes_both_ways(self) -> None:
        self.connect()
        self.assertIs(self.protocol.transport, self.transport)
        self.transport.data_received(b"in")
        self.transport.write(b"out")
        self.transport.writeSequence([b"1", b"2"])
        self.assertEqual((self.protocol.got, self.native.sent), (b"in", b"out12"))

    def test_addresses(self) -> None:
        self.connect()
        self.assertEqual(self.transport.getPeer(), ("192.0.2.7", 1))
        self.assertEqual(self.transport.getHost(), ("192.0.2.1", 443))
        self.assertEqual(self.transport.tls_version(), "")

    def test_writing_before_the_connection_is_a_fault(self) -> None:
        with self.assertRaises(RuntimeError):
            self.transport.write(b"x")

    def test_close_and_abort(self) -> None:
        self.connect()
        self.transport.loseConnection()
        self.transport.loseConnection()
        self.assertTrue(self.transport.disconnecting)
        self.assertEqual(self.native.calls, ["close"])
        self.transport.abortConnection()
        self.assertEqual(self.native.calls, ["close", "abort"])

    def test_abort_is_no_plain_end(self) -> None:
        """A plain one would pass for the proper end of a body without length."""
        ours, peer = socket.socketpair(socket.AF_UNIX)
        self.addCleanup(peer.close)
        self.addCleanup(ours.close)
        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)
        for place, linger in ((listener, (1, 0)), (ours, (0, 0))):
            self.setUp()
            self.native = Native(socket=place)
            self.connect()
            self.transport.abortConnection()
            told = place.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8)
            self.assertEqual(struct.unpack("ii", told), linger)

    def test_abort_of_what_is_gone(self) -> None:
        gone = socket.socket()
        gone.close()
        self.native = Native(socket=gone)
        self.connect()
        self.transport.abortConnection()
        self.assertEqual(self.native.calls, ["abort"])

    def test_reasons(self) -> None:
        for error, abort, reason in (
            (None, False, ConnectionDone),
            (ConnectionResetError("reset"), False, ConnectionLost),
            (None, True, ConnectionAborted),
        ):
            self.setUp()
            self.connect()
            if abort:
                self.transport.abortConnection()
            self.transport.connection_lost(error)
            assert self.protocol.reason is not None
            self.assertIsInstance(self.protocol.reason.value, reason)
            self.assertTrue(self.transport.disconnecting)

    def test_lets_go_of_the_loops_transport_with_the_connection(self) -> None:
        self.connect()
        tls = weakref.ref(self.native)
        gc.disable()
        self.addCleanup(gc.enable)
        del self.native
        self.transport.connection_lost(None)
        self.assertIsNone(tls())
        self.assertIs(self.protocol.transport, self.transport)

    def test_nothing_becomes_of_what_is_asked_of_it_afterwards(self) -> None:
        self.connect()
        self.transport.connection_lost(None)
        self.transport.write(b"too late")
        self.transport.loseConnection()
        self.transport.abortConnection()
        self.transport.pauseProducing()
        self.transport.resumeProducing()
        self.assertEqual((self.native.sent, self.native.calls), (b"", []))
        self.assertIsNone(self.transport.getPeer())

    def test_reading_is_paused_once(self) -> None:
        self.connect()
        for _ in range(2):
            self.transport.pauseProducing()
        for _ in range(2):
            self.transport.resumeProducing()
        self.assertEqual(self.native.calls, ["pause_reading", "resume_reading"])

    def test_closed_is_neither_paused_nor_resumed(self) -> None:
        self.connect()
        self.transport.pauseProducing()
        self.transport.loseConnection()
        self.transport.resumeProducing()
        self.assertEqual(self.native.calls, ["pause_reading", "close"])

    def test_producer_follows_the_unsent_bytes(self) -> None:
        self.connect()
        self.assertEqual(self.native.high, WRITE_HIGH_WATER)
        producer = Producer()
        self.transport.registerProducer(producer, True)
        self.transport.pause_writing()
        self.transport.resume_writing()
        self.assertEqual(producer.calls, ["pause", "resume"])
        self.transport.unregisterProducer()
        self.transport.pause_writing()
        self.assertEqual(producer.calls, ["pause", "resume"])
        self.transport.registerProducer(producer, True)
        self.assertEqual(producer.calls, ["pause", "resume", "pause"])

    def test_only_push_producers(self) -> None:
        with self.assertRaises(ValueError):
            self.transport.registerProducer(Producer(), False)

    def test_half_close(self) -> None:
        """Kept open if the protocol wants to answer still."""

        class Wants(Recorder):
            def readConnectionLost(self) -> bool:
                return True

        self.connect()
        self.assertFalse(self.transport.eof_received())
        transport = NativeTransport(Wants())
        transport.connection_made(cast(Any, Native()))
        self.assertTrue(transport.eof_received())
