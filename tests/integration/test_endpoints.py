"""Connecting over real sockets to listeners that are slow to accept."""

from __future__ import annotations

import socket

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from matrix.model import Address
from matrix.net import NativeClientEndpoint, NativeServerEndpoint, bind, event_loop
from matrix.testing.scratch import scratch

CROWD = 300
"""More than the loop would queue by itself."""


class FullQueueTests(TestCase):
    timeout = 30

    def setUp(self) -> None:
        path = scratch(self) / "sock"
        self.address = Address(path=str(path))
        self.endpoint = NativeClientEndpoint(event_loop(reactor), self.address)
        self.connected: list[Protocol] = []

    def connect(self) -> Deferred[Protocol]:
        connecting = self.endpoint.connect(Factory.forProtocol(Protocol))
        return connecting.addCallback(self._remember)

    def _remember(self, protocol: Protocol) -> Protocol:
        self.connected.append(protocol)
        self.addCleanup(protocol.transport.abortConnection)
        return protocol

    def listen(self, queue: int) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX)
        self.addCleanup(listener.close)
        listener.bind(str(self.address.path))
        listener.listen(queue)
        return listener

    async def test_a_crowd_waits_until_there_is_room(self) -> None:
        listener = self.listen(2)
        crowd = [self.connect() for _ in range(10)]
        await deferLater(reactor, 0.05)
        self.assertEqual(len(self.connected), 3)  # as many as the kernel lets wait
        for _ in range(10):
            self.addCleanup(listener.accept()[0].close)
            await deferLater(reactor, 0.02)
        await gatherResults(crowd)
        self.assertEqual(len(self.connected), 10)

    async def test_who_gives_up_leaves_the_others_their_turn(self) -> None:
        listener = self.listen(0)
        await self.connect()
        first, second, third = (self.connect() for _ in range(3))
        await deferLater(reactor, 0.02)
        for impatient in (first, second):
            impatient.cancel()
            with self.assertRaises(CancelledError):
                await impatient
        self.addCleanup(listener.accept()[0].close)
        await third
        self.assertEqual(len(self.connected), 2)

    async def test_a_refusal_is_told_at_once(self) -> None:
        self.listen(0).close()
        with self.assertRaises(ConnectionRefusedError):
            await self.connect()

    async def test_our_own_listeners_take_a_crowd(self) -> None:
        accepted = []

        class Counting(Protocol):
            def connectionMade(self) -> None:
                accepted.append(self)

        (listener,) = bind(self.address)
        server = NativeServerEndpoint(event_loop(reactor), listener)
        port = await server.listen(Factory.forProtocol(Counting))
        self.addCleanup(port.stopListening)
        clients = [socket.socket(socket.AF_UNIX) for _ in range(CROWD)]
        for client in clients:
            self.addCleanup(client.close)
            client.setblocking(False)
            client.connect(str(self.address.path))  # raises BlockingIOError if the queue is full
        while len(accepted) < CROWD:
            await deferLater(reactor, 0.01)
