"""The router speaks of snapshots with daemons over real connections, whatever those say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from matrix.model import Address
from matrix.router.snapshots import daemon as daemon_module
from matrix.router.snapshots.daemon import (
    HttpDaemons,
    Memory,
    NoAnswer,
    NotOffered,
    Place,
    UnderWay,
)
from matrix.router.snapshots.report import Done, Failed, Progress, Unchanged
from matrix.testing.scratch import scratch

NAME = "0123456789abcdef" * 4
TOKEN = "t" * 43


class SmallDaemon(Resource):
    """Answers what the test says; keeps what it was asked."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.status = 200
        self.lines: list[bytes] = []
        self.asked: list[tuple[bytes, bytes, Any]] = []
        self.open: list[Request] = []
        self.gone: list[Request] = []
        self.holds = False
        """Whether it says no more and leaves the answer open."""

    def render(self, request: Request) -> Any:
        content = request.content.read()
        self.asked.append((request.method, request.uri, json.loads(content) if content else None))
        assert request.getHeader("authorization") == f"Bearer {TOKEN}"
        request.setResponseCode(self.status)
        request.notifyFinish().addErrback(lambda _: self.gone.append(request))
        for line in self.lines:
            request.write(line)
        if not self.holds:
            return b"" if not self.lines else self._finish(request)
        self.open.append(request)
        return NOT_DONE_YET

    def _finish(self, request: Request) -> Any:
        reactor.callLater(0, request.finish)
        return NOT_DONE_YET


def line(**fields: object) -> bytes:
    return json.dumps(fields).encode() + b"\n"


class DaemonsTests(TestCase):
    def setUp(self) -> None:
        self.daemon = SmallDaemon()
        self.seen: list[Progress] = []
        path = Path(scratch(self)) / "sock"
        site = Site(self.daemon)
        site.noisy = False
        port = reactor.listenUNIX(str(path), site)
        self.addCleanup(port.stopListening)
        self.place = Place(Address(path=str(path)), TOKEN)
        self.daemons = HttpDaemons(reactor)

    async def take(self, needed: bool = False) -> Any:
        return await self.daemons.take(self.place, "interval", self.seen.append, needed=needed)

    async def fails(self, kind: type[Exception], call: Any) -> Exception:
        try:
            await call
        except kind as error:
            return error
        raise self.failureException(f"{kind.__name__} was not raised")

    async def test_progress_and_outcome(self) -> None:
        self.daemon.lines = [
            line(kind="progress", stage="quiesce"),
            line(kind="progress", stage="backup", bytes_done=5, bytes_total=9)[:20],
            line(kind="progress", stage="backup", bytes_done=5, bytes_total=9)[20:],
            line(kind="done", snapshot=NAME, bytes_added=1, bytes_total=2, partial=False),
        ]
        assert await self.take() == Done(NAME, 1, 2)
        assert self.seen == [Progress("quiesce"), Progress("backup", 0, 5, 9)]
        wanted = {"cause": "interval", "tags": ["interval"], "unless_unchanged": True}
        assert self.daemon.asked == [(b"POST", b"/-/snapshot", wanted)]

    async def test_over_tcp(self) -> None:
        site = Site(self.daemon)
        site.noisy = False
        port = reactor.listenTCP(0, site, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.place = Place(Address(host="127.0.0.1", port=port.getHost().port), TOKEN)
        self.daemon.lines = [line(kind="unchanged", seconds=0.1)]
        assert await self.take(needed=True) == Unchanged()
        assert self.daemon.asked[0][2]["unless_unchanged"] is False

    async def test_refusals(self) -> None:
        self.daemon.status = 409
        await self.fails(UnderWay, self.take())
        self.daemon.status = 404
        await self.fails(NotOffered, self.take())
        self.daemon.status = 503
        self.daemon.lines = [b'{"title": "restoring", "detail": "it is\\nbeing restored"}']
        error = await self.fails(NoAnswer, self.take())
        assert "it is being restored" in str(error)
        self.daemon.status = 501
        self.daemon.lines = [b'{"detail": "restic is not installed"}']
        refused = await self.take()
        assert refused == Failed("the machine answers 501: restic is not installed", retry=False)
        self.daemon.status = 500
        self.daemon.lines = [b"<html>"]
        assert (await self.take()).retry

    async def test_an_answer_without_an_outcome(self) -> None:
        self.daemon.lines = [line(kind="progress", stage="backup")]
        await self.fails(NoAnswer, self.take())

    async def test_nonsense_and_endless_answers(self) -> None:
        self.daemon.holds = True
        for lines in ([b"<html>\n"], [b"x" * 40_000], [line(kind="done", snapshot="..")]):
            self.daemon.lines = lines
            await self.fails(NoAnswer, self.take())
        self.daemon.status = 500
        self.daemon.lines = [b"x" * 100_000]
        await self.fails(NoAnswer, self.take())
        await self.gone(4)

    async def test_nobody_listens(self) -> None:
        self.place = Place(Address(path=self.place.address.path + ".not"), TOKEN)
        await self.fails(NoAnswer, self.take())
        await self.fails(NoAnswer, self.daemons.memory(self.place))

    async def test_a_machine_that_says_nothing_more(self) -> None:
        self.patch(daemon_module, "SILENCE_SECONDS", 0.3)
        self.daemon.holds = True
        self.daemon.lines = [line(kind="progress", stage="backup")]
        error = await self.fails(NoAnswer, self.take())
        assert "says nothing" in str(error)
        await self.gone(1)

    async def test_who_stops_waiting_lets_go_of_the_connection(self) -> None:
        self.daemon.holds = True
        self.daemon.lines = [line(kind="progress", stage="backup")]
        taking = Deferred.fromCoroutine(self.take())
        while not self.seen:
            await deferLater(reactor, 0.01)
        taking.cancel()
        await self.fails(CancelledError, taking)
        await self.gone(1)

    async def test_what_a_daemon_remembers(self) -> None:
        self.daemon.lines = [b'{"running": {"stage": "backup"}, "last": null}']
        assert await self.daemons.memory(self.place) == Memory(running=True, last=None)
        done = {"kind": "done", "snapshot": NAME}
        self.daemon.lines = [json.dumps({"running": None, "last": done}).encode()]
        assert await self.daemons.memory(self.place) == Memory(running=False, last=Done(NAME))
        self.daemon.lines = [b"[]"]
        await self.fails(NoAnswer, self.daemons.memory(self.place))
        self.daemon.status = 404
        await self.fails(NotOffered, self.daemons.memory(self.place))

    async def test_the_token_is_in_no_repr(self) -> None:
        assert TOKEN not in repr(self.place)

    async def gone(self, count: int) -> None:
        """Wait until so many connections were closed under the daemon."""
        for _ in range(200):
            if len(self.daemon.gone) >= count:
                return
            await deferLater(reactor, 0.01)
        raise self.failureException(f"{len(self.daemon.gone)} of {count} connections closed")
