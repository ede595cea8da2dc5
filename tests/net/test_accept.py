"""Accepting: in batches, with pauses when something is short, and an end that leaves nothing."""

import errno
import os
import socket
from collections.abc import Callable
from typing import Any
from unittest import mock

from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from matrix.net import Admission, Arrivals
from matrix.net._accept import BATCH, COMPLAINT_INTERVAL, STARVED_PAUSE, NativePort


class FakeLoop:
    """An event loop whose time and readiness are the test's."""

    def __init__(self) -> None:
        self.now = 0.0
        self.reader: Callable[[], None] | None = None
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.accepted: list[socket.socket] = []
        self.attaching: list[tuple[mock.Mock, Callable[[mock.Mock], None]]] = []

    def time(self) -> float:
        return self.now

    def add_reader(self, listener: object, callback: Callable[[], None]) -> None:
        self.reader = callback

    def remove_reader(self, listener: object) -> None:
        self.reader = None

    def call_later(self, seconds: float, callback: Callable[[], None]) -> mock.Mock:
        self.timers.append((seconds, callback))
        return mock.Mock()

    def connect_accepted_socket(self, make: object, connection: socket.socket) -> None:
        self.accepted.append(connection)

    def create_task(self, work: object) -> mock.Mock:
        task = mock.Mock()
        task.add_done_callback = lambda callback: self.attaching.append((task, callback))
        return task

    def pass_time(self) -> None:
        """Let the next timer come due."""
        seconds, callback = self.timers.pop(0)
        self.now += seconds
        callback()


class Listener:
    """A listening socket with a queue that the test fills."""

    family = socket.AF_INET

    def __init__(self) -> None:
        self.queue: list[socket.socket | int] = []
        self.closed = False

    def accept(self) -> tuple[socket.socket, Any]:
        if not self.queue:
            raise BlockingIOError
        found = self.queue.pop(0)
        if isinstance(found, int):
            raise OSError(found, os.strerror(found))
        return found, ("192.0.2.7", 50000)

    def getsockname(self) -> Any:
        return ("192.0.2.1", 443)

    def close(self) -> None:
        self.closed = True


class NativePortTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.loop = FakeLoop()
        self.listener = Listener()

    def port(self, admission: Admission | None = None, factory: Any = None) -> NativePort:
        factory = factory or Factory.forProtocol(Protocol)
        loop: Any = self.loop
        listener: Any = self.listener
        arrivals = self.arrivals = Arrivals()
        port = NativePort(
            loop, listener, factory, admission or Admission(9999), arrivals, None, 10.0
        )
        port.startListening()
        return port

    def clients(self, count: int) -> list[socket.socket]:
        made = []
        for _ in range(count):
            ours, theirs = socket.socketpair()
            self.addCleanup(ours.close)
            self.addCleanup(theirs.close)
            self.listener.queue.append(ours)
            made.append(theirs)
        return made

    def ready(self) -> None:
        assert self.loop.reader is not None
        self.loop.reader()

    def test_interface(self) -> None:
        verifyObject(IListeningPort, self.port())

    def test_a_crowd_is_taken_in_batches(self) -> None:
        self.port()
        self.clients(BATCH + 3)
        self.ready()
        self.assertEqual(len(self.loop.accepted), BATCH)
        self.ready()
        self.assertEqual(len(self.loop.accepted), BATCH + 3)

    def test_who_must_not_come_in_is_closed_at_once(self) -> None:
        admission = Admission(0, telling=0)
        self.port(admission)
        (client,) = self.clients(1)
        self.ready()
        self.assertEqual((client.recv(1), self.loop.accepted), (b"", []))
        self.assertEqual(admission.cut, 1)

    def test_a_factory_may_refuse(self) -> None:
        factory = Factory()
        self.patch(factory, "buildProtocol", lambda address: None)
        admission = Admission(9999)
        self.port(admission, factory)
        (client,) = self.clients(1)
        self.ready()
        self.assertEqual((client.recv(1), admission._open), (b"", 0))

    def test_a_client_that_gave_up_is_passed_over(self) -> None:
        self.port()
        self.listener.queue = [errno.ECONNABORTED, errno.EPROTO]
        self.clients(1)
        self.ready()
        self.assertEqual(len(self.loop.accepted), 1)

    def test_out_of_files_it_pauses_and_says_so_once(self) -> None:
        self.port()
        with capturedLogs() as logs:
            for _ in range(20):
                self.listener.queue = [errno.EMFILE]
                self.ready()
                self.assertIsNone(self.loop.reader, "or the loop would spin")
                self.assertEqual(self.loop.timers[0][0], STARVED_PAUSE)
                self.loop.pass_time()
        self.assertEqual([event["error"] for event in logs], [os.strerror(errno.EMFILE)])
        self.assertEqual(self.arrivals.pauses["files"], 20)
        self.clients(1)
        self.ready()
        self.assertEqual(len(self.loop.accepted), 1)

    def test_it_says_so_again_in_time(self) -> None:
        self.port()
        with capturedLogs() as logs:
            for _ in range(2):
                self.listener.queue = [errno.ENFILE]
                self.ready()
                self.loop.pass_time()
                self.loop.now += COMPLAINT_INTERVAL
        self.assertEqual(len(logs), 2)

    def test_too_many_handshakes_pause_it(self) -> None:
        self.port()
        self.patch(self.arrivals, "make_room", lambda: False)
        self.clients(1)
        self.ready()
        self.assertEqual((self.loop.reader, self.loop.accepted), (None, []))
        self.assertEqual(self.arrivals.pauses["handshakes"], 1)
        self.loop.pass_time()
        self.assertIsNotNone(self.loop.reader)

    def test_closed_it_stays_closed(self) -> None:
        port = self.port()
        self.listener.queue = [errno.EMFILE]
        with capturedLogs():
            self.ready()
        port.stopListening()
        port.stopListening()
        self.assertTrue(self.listener.closed)
        self.assertIsNone(self.loop.reader)

    def test_what_the_loop_cannot_take_is_closed(self) -> None:
        for error, logged in ((OSError("gone"), 0), (RuntimeError("never"), 1), (None, 0)):
            admission = Admission(9999)
            self.port(admission)
            (client,) = self.clients(1)
            self.ready()
            attaching, attached = self.loop.attaching.pop()
            self.assertEqual(admission._open, 1)
            attaching.cancelled.return_value = error is None
            attaching.exception.return_value = error
            attached(attaching)
            self.assertEqual((admission._open, client.recv(1)), (0, b""))
            self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), logged)
