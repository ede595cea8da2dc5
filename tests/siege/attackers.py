"""
The clients of a siege, in a process of their own: they show tokens as fast as they are refused.

C{python -m tests.siege.attackers}: standard input is one JSON object, the fields of L{Orders};
standard output is another, those of L{Outcome}.
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import cast

import uvloop

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class Orders:
    """Whom to attack, and with what."""

    port: int
    ca: str
    addresses: list[str]
    """Where the clients come from, in turns."""
    connections: int
    seconds: float
    """After so long no more are shown."""
    tokens: list[str]


@dataclass
class Outcome:
    """What became of it."""

    statuses: Counter[int] = field(default_factory=Counter)
    connections: int = 0
    """How many were opened; more than were ordered if the router closes them."""
    seconds: float = 0.0


class Client(asyncio.Protocol):
    """One connection: a request, its answer, the next request."""

    def __init__(self, attack: Attack) -> None:
        self._attack = attack
        self._received = b""
        self._transport: asyncio.Transport | None = None
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by name
        self._next()

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            length = _LENGTH.search(self._received, 0, end + 2)
            assert length is not None, self._received[:end]
            if len(self._received) < end + 4 + int(length[1]):
                return
            self._attack.outcome.statuses[int(self._received[9:12])] += 1
            self._received = self._received[end + 4 + int(length[1]) :]
            self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(None)

    def _next(self) -> None:
        assert self._transport is not None
        request = self._attack.request()
        if request is None:
            self._transport.close()
        else:
            self._transport.write(request)


class Attack:
    """All clients together."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self._tokens = iter(orders.tokens)
        self._left = len(orders.tokens)
        self._until = time.monotonic() + orders.seconds
        self._context = ssl.create_default_context(cafile=orders.ca)
        self._host = f"localhost:{orders.port}".encode()
        self.outcome = Outcome()

    def request(self) -> bytes | None:
        """The next one; C{None} when all tokens were shown, or time is over."""
        if time.monotonic() > self._until:
            self._left = 0
        if not self._left:
            return None
        self._left -= 1
        token = next(self._tokens).encode()
        return b"GET / HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\n\r\n" % (
            self._host,
            token,
        )

    async def run(self) -> Outcome:
        """Go on until all tokens were shown."""
        began = time.monotonic()
        addresses = self._orders.addresses
        async with asyncio.TaskGroup() as group:
            for number in range(self._orders.connections):
                group.create_task(self._client(addresses[number % len(addresses)]))
        self.outcome.seconds = time.monotonic() - began
        return self.outcome

    async def _client(self, address: str) -> None:
        loop = asyncio.get_running_loop()
        while self._left:
            self.outcome.connections += 1
            _, client = await loop.create_connection(
                lambda: Client(self),
                "127.0.0.1",
                self._orders.port,
                ssl=self._context,
                server_hostname="localhost",
                local_addr=(address, 0),
            )
            await client.lost


def main() -> None:
    orders = Orders(**json.loads(sys.stdin.read()))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        json.dump(vars(runner.run(Attack(orders).run())), sys.stdout)


if __name__ == "__main__":
    main()
