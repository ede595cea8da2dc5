"""Bonds: each stream lives as long as the right of the session that began it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from math import inf

from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from matrix.auth import Source
from matrix.directory import DirectoryUnavailable
from matrix.http import UNAUTHORIZED, Stream
from matrix.metrics import Registry, series
from matrix.model import Principal
from matrix.net import IWheel
from matrix.router.bearings import taken

LOOK_INTERVAL = 0.5
"""Seconds between two looks whose time has come, while there are streams."""

BATCH = 50
"""Streams closed in one go: each costs some tens of microseconds, most of them TLS's."""

PAUSE = 0.005
"""Seconds between two batches: ten thousand streams that expire together take a second or two,
in which others have their turn."""

RENEWALS = 8
"""Sessions of our own that are renewed at a time: the issuer limits how often it is asked."""

RENEW_INTERVAL = 15.0
"""Seconds between two attempts to renew one session."""

RENEW_TIMEOUT = 30.0
"""Seconds for one attempt, its turn included: until then its streams are not judged."""

EXPIRED = "expired"
"""What the access log and the client of a WebSocket are told."""

_log = Logger()


@dataclass(frozen=True, slots=True)
class Sources:
    """Who knows of newer tokens."""

    newest: Callable[[str], float]
    """Until when the tokens of a session are good that this process has seen; see
    L{matrix.auth.IGate.newest}."""
    elsewhere: Callable[[Collection[str]], Awaitable[Mapping[str, float]]]
    """The same for what all routers have seen; see L{matrix.directory.ISessions.newest}."""
    renew: Callable[[str], Awaitable[float | None]] | None = None
    """Gets a new token for a session of our own: until when it is good, C{None} if there is
    none to be had."""


class Bond:
    """What binds the streams of one session."""

    __slots__ = ("judged", "own", "planned", "retry_at", "session_id", "streams", "until")

    def __init__(self, session_id: str) -> None:
        self.session_id = session_id
        self.until = 0.0
        """Unix time, seconds, at which the right ends, as far as is known."""
        self.own = False
        """Whether it is a session that the router itself keeps, and can renew."""
        self.retry_at = 0.0
        """Unix time, seconds, before which it is not tried again to renew it."""
        self.planned: int | None = None
        """Where in the calendar it is."""
        self.judged = False
        """Whether that is under way: then it needs no place there."""
        self.streams: set[Stream] = set()

    def extend(self, until: float) -> None:
        """A token was seen that is good until then."""
        self.until = max(self.until, until)


class Bonds:
    """
    Binds the streams of one process; implements L{matrix.http.Keeper}.

    Tokens expire by the calendar, which may be set at any time, and not by the event loop's clock;
    and most streams are over long before. So bonds are planned here, by the unix second, and the
    wheel only tells when to look: what has ended is held nowhere.
    """

    def __init__(
        self,
        clock: IReactorTime,
        wheel: IWheel,
        registry: Registry,
        grace: float,
        now: Callable[[], float],
    ) -> None:
        """
        @param grace: seconds that a stream outlives its session's newest token.
        @param now: the unix time, in seconds: C{time.time}.
        """
        self._clock = clock
        self._wheel = wheel
        self._registry = registry
        self._grace = grace
        self._now = now
        self.deadline = inf
        self.wheel_due = inf
        self._bonds: dict[str, Bond] = {}
        self._calendar: dict[int, set[Bond]] = {}
        self._due: list[Bond] = []
        self._judging: Deferred[None] | None = None
        self._renewals = DeferredSemaphore(RENEWALS)
        self._sources = Sources(lambda session_id: 0.0, _nobody_else)

    def __len__(self) -> int:
        return len(self._bonds)

    def __iter__(self) -> Iterator[str]:
        """The sessions that have streams."""
        return iter(list(self._bonds))

    def ask(self, sources: Sources) -> None:
        """Before a stream is closed, ask there for newer tokens."""
        self._sources = sources

    def stop(self) -> None:
        """Judge no more."""
        if self._judging is not None:
            self._judging.cancel()

    # Keeper

    def begun(self, stream: Stream) -> None:
        """See L{matrix.http.Keeper.begun}."""
        principal: Principal = stream.exchange.story.principal
        bond = self._bonds.get(principal.session_id)
        if bond is None:
            bond = self._bonds[principal.session_id] = Bond(principal.session_id)
        bond.streams.add(stream)
        credential = taken(stream.exchange.request).ambient
        bond.own = bond.own or (credential is not None and credential.source is Source.SESSION)
        # Of a token that was accepted although it had just expired, the grace begins now.
        bond.extend(max(principal.expires_at, self._now()))
        if bond.planned is None and not bond.judged:
            self._plan(bond)

    def ended(self, stream: Stream) -> None:
        """See L{matrix.http.Keeper.ended}."""
        principal: Principal = stream.exchange.story.principal
        bond = self._bonds.get(principal.session_id)
        if bond is not None:
            bond.streams.discard(stream)
            if not bond.streams:
                self._take_out(bond)
                del self._bonds[bond.session_id]

    # when it is time

    def _ends_at(self, bond: Bond) -> float:
        return bond.until + self._grace

    def _asks_at(self, bond: Bond) -> float:
        """When something is to be done: sessions of our own are renewed before the grace."""
        ends_at = self._ends_at(bond)
        return min(ends_at, max(bond.until, bond.retry_at)) if bond.own else ends_at

    def _plan(self, bond: Bond) -> None:
        """Look at a bond again when it is time."""
        bond.judged = False
        if bond.streams:
            bond.planned = second = int(self._asks_at(bond))
            self._calendar.setdefault(second, set()).add(bond)
            if self.deadline == inf:
                self._wheel.arm(self, LOOK_INTERVAL)

    def _take_out(self, bond: Bond) -> None:
        second, bond.planned = bond.planned, None
        if second is not None:
            bonds = self._calendar[second]
            bonds.discard(bond)
            if not bonds:
                del self._calendar[second]

    def expired(self) -> None:
        """Look whose time has come."""
        now = self._now()
        for second in [one for one in self._calendar if one <= now]:
            bonds = self._calendar.pop(second)
            for bond in bonds:
                bond.planned = None
            for bond in bonds:
                self._look(bond)
        if self._calendar and self.deadline == inf:
            self._wheel.arm(self, LOOK_INTERVAL)

    def _look(self, bond: Bond) -> None:
        """See what it is time for."""
        now = self._now()
        if self._asks_at(bond) > now:  # it was extended, or the second is not over
            self._plan(bond)
        elif bond.own and bond.retry_at <= now and self._sources.renew is not None:
            bond.judged = True
            Deferred.fromCoroutine(self._renew(bond)).addErrback(_failed)
        else:
            self._settle(bond)

    def _settle(self, bond: Bond) -> None:
        """Judge a bond, together with those that are due in the same moment."""
        bond.judged = True
        self._due.append(bond)
        if self._judging is None:
            self._judging = Deferred.fromCoroutine(self._judge_all())
            self._judging.addErrback(_failed)

    async def _judge_all(self) -> None:
        try:
            await deferLater(self._clock, 0)
            while self._due:
                due, self._due = self._due, []
                try:
                    await self._judge(due)
                finally:  # whatever happened, none is forgotten
                    for bond in due:
                        self._plan(bond)
        finally:
            self._judging = None

    async def _judge(self, bonds: list[Bond]) -> None:
        """Extend each bond, or end its streams."""
        late = [bond for bond in bonds if self._is_over(bond)]
        if late:
            known = await self._elsewhere([bond.session_id for bond in late])
            for bond in late:
                bond.extend(known.get(bond.session_id, 0.0))
        closed = 0
        for bond in late:
            if not self._is_over(bond):  # the answer, or what was seen here meanwhile
                continue
            for stream in tuple(bond.streams):
                if stream in bond.streams:  # it may have ended in a pause
                    self._close(stream)
                closed += 1
                if closed % BATCH == 0:
                    await deferLater(self._clock, PAUSE)

    def _is_over(self, bond: Bond) -> bool:
        bond.extend(self._sources.newest(bond.session_id))
        return self._ends_at(bond) <= self._now()

    async def _elsewhere(self, session_ids: list[str]) -> Mapping[str, float]:
        """What other processes have seen; if that cannot be told, what this one knows decides."""
        try:
            return dict(await self._sources.elsewhere(session_ids))
        except CancelledError:
            raise
        except DirectoryUnavailable as error:
            _log.warn(
                "{count} sessions with streams expire, and other routers cannot be asked: {error}",
                count=len(session_ids),
                error=error,
            )
        except Exception:  # noqa: BLE001 -- whatever it was, no stream may outlive its right
            _log.failure("cannot ask for newer tokens of {count} sessions", count=len(session_ids))
        return {}

    async def _renew(self, bond: Bond) -> None:
        """Have a session of our own renewed, then look again."""
        renew = self._sources.renew
        assert renew is not None  # it was asked for
        bond.retry_at = self._now() + RENEW_INTERVAL

        def attempt() -> Deferred[float | None]:
            async def ask() -> float | None:
                return await renew(bond.session_id) if bond.streams else None

            return Deferred.fromCoroutine(ask())

        try:
            asking: Deferred[float | None] = self._renewals.run(attempt)
            bond.extend(await asking.addTimeout(RENEW_TIMEOUT, self._clock) or 0.0)
        except Exception as error:  # noqa: BLE001 -- it is tried again, or judged by what is known
            _log.warn("a session with streams is not renewed: {error!r}", error=error)
        finally:
            if bond.until > self._now():
                bond.retry_at = 0.0  # it was renewed: no attempt that failed is to be waited for
            if self._is_over(bond):
                self._settle(bond)
            else:
                self._plan(bond)

    def _close(self, stream: Stream) -> None:
        try:
            stream.drain(EXPIRED, UNAUTHORIZED)
        except Exception:  # noqa: BLE001 -- one that cannot be closed must not save the others
            _log.failure("cannot end a stream whose session expired properly")
            stream.exchange.abort()
        else:
            self._registry.counter(series.RIGHTS_LOST, stream.kind, EXPIRED).value += 1


async def _nobody_else(session_ids: Collection[str]) -> Mapping[str, float]:
    return {}


def _failed(failure: Failure) -> None:
    if not failure.check(CancelledError):  # type: ignore[no-untyped-call]
        _log.failure("streams that expire were not judged", failure=failure)
