"""Asks machines' daemons to take snapshots, and how those that they take go."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from typing import Protocol as Role

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint
from twisted.internet.interfaces import IConsumer, IDelayedCall, IStreamClientEndpoint
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import URI, Agent, HTTPConnectionPool, ResponseDone, _HTTP11ClientFactory
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory, IBodyProducer, IResponse
from zope.interface import implementer

from matrix.model import Address
from matrix.router.snapshots.report import (
    Failed,
    Lines,
    Nonsense,
    Outcome,
    Progress,
    Report,
    outcome_of,
    read_report,
)

CONNECT_SECONDS = 5.0
"""The machine is awake, and on the mesh."""

SILENCE_SECONDS = 90.0
"""Without a byte of an answer. Daemons tell of progress twice a second while they have any to
tell; a frozen or lost machine says nothing more."""

ANSWER_LIMIT = 64 * 1024
"""Bytes of any other answer."""

SNAPSHOT = "/-/snapshot"

Told = Callable[[Progress], None]
"""Is told how far a snapshot is."""


class NoAnswer(Exception):
    """What becomes of the snapshot is not known: the machine cannot be reached, or broke off."""


class UnderWay(Exception):
    """The machine takes one already."""


class NotOffered(Exception):
    """What runs in the machine takes no snapshots: it is not our daemon."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a machine's daemon is, and what it wants to be shown."""

    address: Address
    token: str

    def __repr__(self) -> str:
        return f"<Place {self.address}>"


@dataclass(frozen=True, slots=True)
class Memory:
    """What a daemon knows of its snapshots."""

    running: bool
    last: Outcome | None
    """How the last one ended; C{None} if there was none since it started."""


class Daemons(Role):
    """How the router speaks of snapshots with machines: L{HttpDaemons}."""

    async def take(self, place: Place, cause: str, told: Told, *, needed: bool) -> Outcome:
        """
        Have one taken; to stop waiting does not stop it.

        @param needed: whether it is taken though nothing has changed since the last.
        @raise UnderWay, NotOffered, NoAnswer: see there.
        """

    async def memory(self, place: Place) -> Memory:
        """
        What the daemon knows.

        @raise NotOffered, NoAnswer: see there.
        """


class HttpDaemons:
    """Speaks with daemons over connections of its own, which are no use of their machines."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    async def take(self, place: Place, cause: str, told: Told, *, needed: bool) -> Outcome:
        """See L{Daemons.take}."""
        wanted = {"cause": cause, "tags": [cause], "unless_unchanged": not needed}
        reading = _Reading(told)
        status, rest = await self._call(place, "POST", json.dumps(wanted).encode(), reading)
        if status == 200:
            if reading.outcome is None:
                raise NoAnswer("the machine broke off in the middle of its answer")
            return reading.outcome
        if status == 409:
            raise UnderWay
        return _refusal(status, rest)

    async def memory(self, place: Place) -> Memory:
        """See L{Daemons.memory}."""
        status, body = await self._call(place, "GET", None, None)
        if status != 200:
            raise NoAnswer(_refusal(status, body).reason)
        try:
            found = json.loads(body)
            return Memory(isinstance(found.get("running"), Mapping), outcome_of(found.get("last")))
        except (ValueError, RecursionError, AttributeError):
            raise NoAnswer("the machine's answer is not understood") from None

    async def _call(
        self, place: Place, method: str, body: bytes | None, reading: _Reading | None
    ) -> tuple[int, bytes]:
        """
        Make a call; its status, and what it says if it is no report.

        @raise NoAnswer: it came to nothing.
        """
        working = Deferred.fromCoroutine(self._exchange(place, method, body, reading))
        silence = _Silence(self._reactor, working)
        if reading is not None:
            reading.heard = silence.heard
        try:
            return await working
        except (Nonsense, NoAnswer) as error:
            raise NoAnswer(str(error)) from None
        except Exception as error:  # whatever treq and the agent make of a broken connection
            if isinstance(error, CancelledError) and not silence.lasted:
                raise
            why = "it says nothing" if silence.lasted else type(error).__name__
            raise NoAnswer(f"the machine gives no answer ({why})") from error
        finally:
            silence.over()

    async def _exchange(
        self, place: Place, method: str, body: bytes | None, reading: _Reading | None
    ) -> tuple[int, bytes]:
        to = _To(self._reactor, place)
        pool = HTTPConnectionPool(self._reactor, persistent=False)  # type: ignore[no-untyped-call]
        pool._factory = _QuietFactory
        agent = Agent.usingEndpointFactory(self._reactor, to, pool)  # type: ignore[no-untyped-call]
        headers = {"Authorization": [f"Bearer {place.token}"], "User-Agent": ["matrix"]}
        if body is not None:
            headers["Content-Type"] = ["application/json"]
        response: IResponse = await agent.request(
            method.encode(),
            f"http://machine{SNAPSHOT}".encode(),
            Headers(headers),
            None if body is None else _Json(body),
        )
        rest = bytearray()

        def collect(data: bytes) -> None:
            if len(rest) + len(data) > ANSWER_LIMIT:
                raise Nonsense("an answer that has no end")
            rest.extend(data)

        ours = reading is not None and response.code == 200
        content = _Content(reading.feed if reading is not None and ours else collect)
        response.deliverBody(content)  # type: ignore[no-untyped-call]
        await content.over
        return response.code, bytes(rest)


@implementer(IBodyProducer)
class _Json:
    """A body that is there already."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.length = len(body)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        consumer.write(self._body)
        return succeed(None)

    def pauseProducing(self) -> None: ...

    def resumeProducing(self) -> None: ...

    def stopProducing(self) -> None: ...


class _Content(Protocol):
    """Hands an answer's content on as it comes."""

    def __init__(self, feed: Callable[[bytes], None]) -> None:
        self.over: Deferred[None] = Deferred(lambda _: self._abort())
        self._feed = feed

    def dataReceived(self, data: bytes) -> None:
        if self.over.called:
            return
        try:
            self._feed(data)
        except Nonsense:
            self._abort()
            self.over.errback(Failure())  # type: ignore[no-untyped-call]

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.over.called:
            return
        if reason.check(ResponseDone, PotentialDataLoss):  # type: ignore[no-untyped-call]
            self.over.callback(None)
        else:
            self.over.errback(reason)

    def _abort(self) -> None:
        if self.transport is not None:
            self.transport.loseConnection()


class _QuietFactory(_HTTP11ClientFactory):
    """Says nothing of each connection that begins or ends."""

    noisy = False


class _Reading:
    """Takes a report as it comes."""

    def __init__(self, told: Told) -> None:
        self.outcome: Outcome | None = None
        self.heard: Callable[[], None] = lambda: None
        self._told = told
        self._lines = Lines()

    def feed(self, data: bytes) -> None:
        """@raise Nonsense: it is no report."""
        self.heard()
        for line in self._lines.feed(data):
            report: Report = read_report(line)
            if isinstance(report, Progress):
                self._told(report)
            else:
                self.outcome = report


class _Silence:
    """Ends a call whose other side says nothing for too long."""

    def __init__(self, reactor: Any, working: Deferred[Any]) -> None:
        self.lasted = False
        self._working = working
        self._timer: IDelayedCall = reactor.callLater(SILENCE_SECONDS, self._end)

    def heard(self) -> None:
        if self._timer.active():
            self._timer.reset(SILENCE_SECONDS)

    def over(self) -> None:
        if self._timer.active():
            self._timer.cancel()

    def _end(self) -> None:
        self.lasted = True
        self._working.cancel()


@implementer(IAgentEndpointFactory)
class _To:
    """Connects to one machine, whatever the URL says."""

    def __init__(self, reactor: Any, place: Place) -> None:
        self._reactor = reactor
        self._address = place.address

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        address = self._address
        if address.path is not None:
            return UNIXClientEndpoint(  # type: ignore[no-untyped-call]
                self._reactor, address.path, timeout=CONNECT_SECONDS
            )
        return HostnameEndpoint(
            self._reactor, str(address.host), int(address.port or 0), timeout=CONNECT_SECONDS
        )


def _refusal(status: int, body: bytes) -> Failed:
    """
    What a daemon's refusal means.

    @raise NotOffered: it does not know of snapshots.
    @raise NoAnswer: it cannot answer now.
    """
    if status in (404, 405):
        raise NotOffered
    text = ""
    try:
        found = json.loads(body)
        text = str(found.get("detail") or found.get("title") or "")
    except (ValueError, RecursionError, AttributeError):
        text = ""
    said = " ".join(text.split())[:300] or "and does not say why"
    if status == 503:
        raise NoAnswer(f"the machine is not ready: {said}")
    return Failed(f"the machine answers {status}: {said}", retry=status != 501)
