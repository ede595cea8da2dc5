"""A client in a storm: one connection at a time, ended in one way or another."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import h11

from matrix.testing.wire import READ, Answer, Door, Headers, Wire
from tests.storm.machine import content
from tests.storm.verdict import BROKEN, RIGHT, UNNOTICED, Ended, Refused, Troubles, Wrong

NO_LINGER = struct.pack("ii", 1, 0)
"""C{struct linger}: closing resets the connection."""

LOST = (OSError, h11.RemoteProtocolError, EOFError)
"""How a connection's end shows."""

WAYS = ("reset", "fin", "close")
"""To leave: a reset, an end without TLS's goodbye, an orderly end."""


@dataclass(frozen=True)
class Resident:
    """A user with a machine."""

    name: str
    id: str
    tokens: Sequence[str]
    has_daemon: bool = False


class Visitor:
    """One client, on behalf of one user after another."""

    def __init__(
        self, number: int, door: Door, everybody: Sequence[Resident], seed: str, troubles: Troubles
    ) -> None:
        self.door = door
        self.everybody = everybody
        self.troubles = troubles
        self.rng = random.Random(f"{seed}-{number}")
        self.user = everybody[0]
        self.token = ""
        self.socket: socket.socket | None = None
        self._wire: Wire | None = None
        self._number = number
        self._nonces = 0

    # who and where

    def be_somebody(self) -> None:
        """From now on for a user drawn by lot; the last ones come seldom, so that their
        machines fall asleep."""
        count = len(self.everybody)
        self.user = self.everybody[min(int(self.rng.expovariate(3 / count)), count - 1)]
        self.token = self.rng.choice(self.user.tokens)

    def nonce(self) -> str:
        """What no other request has."""
        self._nonces += 1
        return f"{self._number}-{self._nonces}"

    # connections

    async def wire(self) -> Wire:
        """The present connection, or a new one."""
        return self._wire or await self.open()

    async def open(self, window: int = 0, token: str | None = None) -> Wire:
        """
        A new connection.

        @param window: bytes that the kernel takes before we read them; 0 for the usual.
        """
        place = await self.dial(window)
        reader, writer = await asyncio.open_connection(
            sock=place, ssl=self.door.context, server_hostname=self.door.host, limit=READ // 4
        )
        host = f"{self.door.host}:{self.door.port}"
        self._wire = Wire(reader, writer, host, self.token if token is None else token)
        return self._wire

    async def dial(self, window: int = 0) -> socket.socket:
        """A TCP connection, and nothing said on it."""
        self.leave("close")
        self.socket = place = socket.socket()
        place.setblocking(False)
        if window:
            place.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        await asyncio.get_running_loop().sock_connect(place, ("127.0.0.1", self.door.port))
        return place

    def leave(self, how: str = "") -> str:
        """End the connection in one of the L{WAYS}, by lot unless told."""
        wire, self._wire = self._wire, None
        place, self.socket = self.socket, None
        how = how or self.rng.choice(WAYS)
        if place is not None and place.fileno() >= 0 and how == "reset":
            place.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
        if wire is None:
            if place is not None:
                place.close()
        elif how == "close":
            wire.writer.close()
        else:
            wire.writer.transport.abort()
        return f"left: {how}"

    def shut(self) -> None:
        """Tell the other side's kernel that nothing more will come."""
        if self.socket is not None:
            self.socket.shutdown(socket.SHUT_WR)

    def cut(self) -> str:
        """The other side ended the connection, as it had to."""
        self.leave("close")
        return BROKEN

    # requests

    async def exchange(
        self, wire: Wire, method: str, target: str, headers: Headers | None = None
    ) -> Answer:
        """A request without a body, and the head of the machine's answer."""
        await wire.begin(method, target, headers)
        await wire.finish()
        return await self.answer(wire)

    async def answer(self, wire: Wire) -> Answer:
        """
        The head of an answer by a machine.

        @raise Refused: it is Matrix's own.
        """
        head = await wire.head()
        if "x-storm" not in head.headers:
            await self.refused(wire, head)
        return head

    async def refused(self, wire: Wire, head: Answer) -> None:
        """
        @raise Refused: what Matrix says.
        @raise Wrong: it is not Matrix that speaks.
        """
        body = b"".join([part async for part in wire.parts()])
        kind = head.headers.get("content-type", "")
        self.leave("close")
        if kind.startswith("text/html"):
            title = body.partition(b"<title>")[2].partition(b"</title>")[0]
            raise Refused(head.status, f"page: {title.decode()}")
        if kind != "application/problem+json":
            raise Wrong(f"{head.status} from nobody: {head.headers} {body[:200]!r}")
        if not body:  # it was a HEAD
            raise Refused(head.status, "")
        problem = json.loads(body)
        raise Refused(head.status, str(problem.get("reason", problem["type"])))

    async def verify(
        self, wire: Wire, head: Answer, nonce: str, wanted: bytes, is_framed: bool = True
    ) -> str:
        """
        Read a body, and see whether it is the right one.

        @param is_framed: whether the machine told where it ends.
        @raise Wrong: it is not, or it is another's.
        @raise Ended: it is the beginning of the right one.
        """
        self.check_mark(head, nonce)
        digest, length = hashlib.sha256(), 0
        async for part in wire.parts():
            digest.update(part)
            length += len(part)
        is_whole = is_framed or length >= len(wanted)
        if not is_whole:
            wanted = wanted[:length]
        if length != len(wanted) or digest.digest() != hashlib.sha256(wanted).digest():
            raise Wrong(f"{length} bytes, not the {len(wanted)} of {nonce}")
        if not is_whole:
            raise Ended(UNNOTICED)
        if not wire.renew():
            self.leave("close")
        return RIGHT

    def check_mark(self, head: Answer, nonce: str) -> None:
        """@raise Wrong: this is the answer to somebody else or to something else."""
        if (head.status, head.headers.get("x-storm")) != (200, f"{self.user.id} {nonce}"):
            mine = f"{self.user.name} {nonce}"
            raise Wrong(f"the answer to {mine} is {head.status} {head.headers.get('x-storm')}")

    def content(self, nonce: str, size: int) -> bytes:
        """The right body for a request of the present user."""
        return content(self.user.id, nonce, size)

    def size(self, most: int = 2_000_000) -> int:
        """Of a body: mostly small, sometimes large."""
        rng = self.rng
        return min(most, rng.choice((0, 1, 1000, 10_000, 70_000, 300_000, rng.randrange(most))))
