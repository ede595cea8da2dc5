"""What supervisor and worker say to each other arrives whole, over real sockets."""

from __future__ import annotations

import socket
import threading
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase, TestCase

from matrix.router.workers.channel import Channel, Message, read_letter, send_letter


class LetterTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.addCleanup(self.ours.close)
        self.addCleanup(self.theirs.close)

    def test_it_arrives_and_nothing_behind_it_is_taken(self) -> None:
        send_letter(self.ours, b"a letter")
        self.ours.sendall(b'{"kind": "stop"}\n')
        self.assertEqual(read_letter(self.theirs), b"a letter")
        self.assertEqual(self.theirs.recv(100), b'{"kind": "stop"}\n')

    def test_a_long_one_is_sent_before_anybody_reads(self) -> None:
        letter = b"x" * 300_000
        send_letter(self.ours, letter)
        self.assertEqual(read_letter(self.theirs), letter)

    def test_one_in_pieces(self) -> None:
        send_letter(self.ours, b"whole")
        content = self.theirs.recv(100)
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        self.addCleanup(theirs.close)

        def dribble() -> None:
            for byte in content:
                ours.sendall(bytes([byte]))

        writer = threading.Thread(target=dribble)
        writer.start()
        self.assertEqual(read_letter(theirs), b"whole")
        writer.join()

    def test_a_supervisor_that_is_gone(self) -> None:
        self.ours.close()
        with self.assertRaises(ConnectionError):
            read_letter(self.theirs)


class ChannelTests(TestCase):
    def setUp(self) -> None:
        left, right = socket.socketpair()
        self.heard: list[Message] = []
        self.next: Deferred[Message] = Deferred()
        self.gone: Deferred[None] = Deferred()
        self.left = Channel(reactor, left, lambda message: None)
        self.right = Channel(reactor, right, self.hear, lambda: self.gone.callback(None))
        self.addCleanup(self.left.close)
        self.addCleanup(self.right.close)

    def hear(self, message: Message) -> None:
        self.heard.append(message)
        self.next.callback(message)

    async def test_messages_arrive(self) -> None:
        self.left.send("stand in", numbers=[1, 2])
        self.assertEqual(await self.next, {"kind": "stand in", "numbers": [1, 2]})

    async def test_a_long_one_too(self) -> None:
        snapshot: Any = [["name", "counter", "é" * 100_000, []]] * 3
        self.left.send("measures", snapshot=snapshot)
        self.assertEqual((await self.next)["snapshot"], snapshot)

    async def test_what_is_said_before_the_end_arrives(self) -> None:
        self.left.send("measures", snapshot="x" * 1_000_000)
        await self.left.close()
        await self.gone
        self.assertEqual(len(self.heard), 1)

    async def test_after_the_end_nothing_is_said(self) -> None:
        await self.left.close()
        await self.gone
        self.left.send("too late")
        self.right.send("too late")
        self.assertEqual(self.heard, [])
