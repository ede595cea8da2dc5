"""
A local issuer in a process of its own, which does as it is told: for tests of outages.

C{python -m matrix.testing.issuer_program DIRECTORY}. Each line of its standard input is a JSON
object with one command (the methods of L{Servant}) and its arguments; each is answered with a
line of standard output. It ends with its standard input.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import connectionDone
from twisted.internet.stdio import StandardIO
from twisted.internet.task import react
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure

from matrix.testing.issuer import Fault, LocalIssuer

PATH = "/auth/v1"
"""Of the issuer below its address, as Supabase has it."""


class Servant:
    """Carries commands out."""

    def __init__(self, directory: Path, reactor: Any) -> None:
        self._reactor = reactor
        self._issuer = LocalIssuer.open(directory)
        self._port = 0

    async def listen(self) -> None:
        """Serve, at the same port as before. The issuer's name is its address."""
        url = await self._issuer.listen(self._reactor, self._port)
        self._port = int(url.rpartition(":")[2])
        self._issuer.issuer = url + PATH

    async def close(self) -> None:
        """Serve no more: connections are refused."""
        await self._issuer.close()

    async def fault(self, kind: str, delay: float = 1.0) -> None:
        """
        Be faulty.

        @param delay: seconds that C{slow} takes.
        """
        self._issuer.fault, self._issuer.delay = Fault(kind), delay

    async def cache(self, control: str) -> None:
        """Send this C{Cache-Control} with the key set."""
        self._issuer.cache_control = control

    async def prepare(self, algorithm: str = "ES256") -> None:
        """List a standby key."""
        self._issuer.keys.prepare(algorithm)

    async def rotate(self) -> None:
        """Sign with the standby key; the one before is still listed."""
        self._issuer.keys.rotate()

    async def revoke(self) -> None:
        """List the previous key no more."""
        self._issuer.keys.revoke()

    async def ban(self, name: str) -> None:
        """Let a user in no more."""
        self._issuer.add_user(name).banned = True

    async def add_user(self, name: str) -> None:
        """Have one more user."""
        self._issuer.add_user(name)

    async def live(self, life: float) -> None:
        """
        Sign tokens for that long.

        @param life: seconds.
        """
        self._issuer.life = life

    async def want_key(self, key: str) -> None:
        """Serve only those who send this C{apikey}."""
        self._issuer.api_key_wanted = key

    async def look(self) -> None:
        """Do nothing but answer."""

    def told(self) -> dict[str, Any]:
        """The answer to each command."""
        return {"issuer": self._issuer.issuer, "requests": self._issuer.requests}


class Commands(LineOnlyReceiver):
    """Standard input and output."""

    delimiter = b"\n"

    def __init__(self, servant: Servant) -> None:
        self._servant = servant
        self.over: Deferred[None] = Deferred()
        """Fires when there is nobody left to give commands."""

    def lineReceived(self, line: bytes) -> None:
        doing = Deferred.fromCoroutine(self._obey(json.loads(line)))
        doing.addErrback(self._failed)

    async def _obey(self, order: dict[str, Any]) -> None:
        await getattr(self._servant, order.pop("do"))(**order)
        self._answer(self._servant.told())

    def _failed(self, failure: Failure) -> None:
        self._answer(failure.getTraceback())

    def _answer(self, answer: object) -> None:
        self.sendLine(json.dumps(answer).encode())  # type: ignore[no-untyped-call]

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.over.callback(None)


async def main(reactor: Any, directory: str) -> None:
    """Serve until the end of standard input."""
    servant = Servant(Path(directory), reactor)
    commands = Commands(servant)
    StandardIO(commands, reactor=reactor)  # type: ignore[no-untyped-call]
    await commands.over
    await servant.close()


if __name__ == "__main__":
    react(main, sys.argv[1:])
