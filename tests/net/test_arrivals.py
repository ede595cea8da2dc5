"""Handshakes in progress: how many there may be, and which are given up for others."""

import socket

from twisted.trial.unittest import SynchronousTestCase

from matrix.net import Arrivals, _arrivals


class ArrivalsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=16)
        self.addCleanup(self.listener.close)
        self.patch(_arrivals, "MUTE", 0.0)
        self.given_up: list[str] = []

    def arrive(self, arrivals: Arrivals, name: str, said: bytes = b"") -> socket.socket:
        client = socket.create_connection(self.listener.getsockname())
        self.addCleanup(client.close)
        if said:
            client.sendall(said)
        connection, _ = self.listener.accept()
        self.addCleanup(connection.close)
        if said:
            connection.recv(len(said), socket.MSG_PEEK)
        arrivals.begin(connection, lambda: self.given_up.append(name))
        return connection

    def test_there_is_room(self) -> None:
        arrivals = Arrivals(2)
        self.arrive(arrivals, "first")
        self.assertTrue(arrivals.make_room())
        self.assertEqual((arrivals.in_progress, self.given_up), (1, []))

    def test_the_oldest_silent_one_makes_room(self) -> None:
        arrivals = Arrivals(3)
        self.arrive(arrivals, "talks", b"client hello")
        self.arrive(arrivals, "silent")
        self.arrive(arrivals, "silent too")
        self.assertTrue(arrivals.make_room())
        self.assertEqual((arrivals.in_progress, self.given_up), (2, ["silent"]))

    def test_who_has_not_been_silent_for_long_stays(self) -> None:
        self.patch(_arrivals, "MUTE", 60.0)
        arrivals = Arrivals(1)
        self.arrive(arrivals, "new")
        self.assertFalse(arrivals.make_room())
        self.assertEqual(self.given_up, [])

    def test_who_has_begun_to_talk_has_more_time(self) -> None:
        arrivals = Arrivals(1)
        connection = self.arrive(arrivals, "stalled", b"client hello")
        connection.recv(100)
        self.assertFalse(arrivals.make_room())
        self.patch(_arrivals, "SILENCE", 0.0)
        self.assertTrue(arrivals.make_room())
        self.assertEqual(self.given_up, ["stalled"])

    def test_no_look_is_taken_at_all_of_them(self) -> None:
        arrivals = Arrivals(_arrivals.LOOKS + 1)
        for number in range(_arrivals.LOOKS):
            self.arrive(arrivals, f"talks {number}", b"client hello")
        self.arrive(arrivals, "silent")
        self.assertFalse(arrivals.make_room())
        self.assertTrue(arrivals.make_room(), "the next look goes on where the last one ended")
        self.assertEqual(self.given_up, ["silent"])

    def test_one_that_is_gone_meanwhile_is_no_reason(self) -> None:
        arrivals = Arrivals(1)
        connection = self.arrive(arrivals, "gone")
        connection.close()
        self.assertFalse(arrivals.make_room())
        arrivals.end(connection)
        arrivals.end(connection)
        self.assertTrue(arrivals.make_room())

    def test_unix_sockets_are_never_silent(self) -> None:
        arrivals = Arrivals(1)
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        self.addCleanup(theirs.close)
        arrivals.begin(ours, lambda: self.given_up.append("unix"))
        self.assertFalse(arrivals.make_room())
