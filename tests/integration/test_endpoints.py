"""Connecting over real sockets to listeners that are slow to accept, or quick to close."""

from __future__ import annotations

import asyncio
import socket
from typing import Any, cast

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
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


class HastyLoop:
    """The loop of somebody who is too busy to see a connection before its end has come, too."""

    def __init__(self, loop: Any) -> None:
        self._loop = loop
        self.create_task = loop.create_task

    async def create_connection(self, *args: Any) -> Any:
        return await self._lost(self._loop.create_connection(*args))

    async def create_unix_connection(self, *args: Any) -> Any:
        return await self._lost(self._loop.create_unix_connection(*args))

    async def _lost(self, connecting: Any) -> Any:
        transport, adapter = await connecting
        while not adapter.disconnecting:
            await asyncio.sleep(0.01)
        return transport, adapter


class ClosedAtOnceTests(TestCase):
    timeout = 30

    async def outcome(self, listen: Address) -> None:
        """Connect to one who closes each connection as soon as it is made."""

        class Closing(Protocol):
            def connectionMade(self) -> None:
                self.transport.loseConnection()

        (listener,) = bind(listen)
        server = NativeServerEndpoint(event_loop(reactor), listener)
        port = await server.listen(Factory.forProtocol(Closing))
        self.addCleanup(port.stopListening)
        address = listen
        if listen.path is None:
            address = Address(host=listen.host, port=listener.getsockname()[1])
        endpoint = NativeClientEndpoint(cast(Any, HastyLoop(event_loop(reactor))), address)
        await endpoint.connect(Factory.forProtocol(Protocol))

    async def test_is_no_connection(self) -> None:
        for address in (
            Address(path=str(scratch(self) / "sock")),
            Address(host="127.0.0.1", port=0),
        ):
            with self.assertRaises(ConnectionResetError):
                await self.outcome(address)


class GivenUpTests(TestCase):
    timeout = 30

    async def ends(self, listen: Address) -> int:
        """How often a protocol is told of its end whose maker gives up as it is connected."""
        told = []

        class Unwanted(Protocol):
            def connectionMade(self) -> None:
                connecting.cancel()

            def connectionLost(self, reason: Failure = connectionDone) -> None:
                told.append(reason)

        (listener,) = bind(listen)
        self.addCleanup(listener.close)
        address = listen
        if listen.path is None:
            address = Address(host=listen.host, port=listener.getsockname()[1])
        endpoint = NativeClientEndpoint(event_loop(reactor), address)
        connecting = endpoint.connect(Factory.forProtocol(Unwanted))
        with self.assertRaises(CancelledError):
            await connecting
        await deferLater(reactor, 0.05)  # the loop has nothing more to say
        return len(told)

    async def test_who_gives_up_as_it_is_connected_hears_of_its_end(self) -> None:
        for address in (
            Address(path=str(scratch(self) / "sock")),
            Address(host="127.0.0.1", port=0),
        ):
            self.assertEqual(await self.ends(address), 1, address)
