"""The route table: where each user's machine is, as far as this process knows. Memory only."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from twisted.internet.defer import Deferred

from matrix.errors import MatrixError
from matrix.http import SERVICE_RESTART, Backend
from matrix.model import Machine, MachineState, UserId
from matrix.router.residency import residency
from matrix.router.restoring import Restoring

SLIM = 60.0
"""Seconds at rest after which a route has nothing to do with how its machine ran: longer than
whatever may still go on about that."""
FORGET = 3600.0
"""Seconds at rest after which a route is forgotten; with it, how long a wake takes here."""

TIDIED = 2000
"""Routes that are seen to at once: about a millisecond."""

_LEARNED = 0.3
"""Weight of the newest wake in the estimate: recent ones count, one odd one does not."""


@dataclass(frozen=True, slots=True)
class Wake:
    """How the last wake went."""

    was: MachineState
    """The state that the machine was found in."""
    cause: str
    start_s: float
    """Seconds until its processes ran."""
    ready_s: float
    """Further seconds until it answered HTTP."""


class Driver(Protocol):
    """Carries out what a route decides: L{matrix.router.wake.Waker}."""

    def begin_wake(self, route: Route) -> None:
        """Begin to wake the route's machine."""

    def begin_rest(self, route: Route, cause: str) -> None:
        """Begin to suspend it."""

    def release(self, route: Route) -> None:
        """Let the waiting requests go on, a few at a time."""


class Route:
    """
    One user's way to their machine.

    On the warm path only L{backend} and L{identity} matter. What may happen when is told
    by L{machine}, the state machine of C{matrix.router.residency}, whose core this is.
    """

    __slots__ = (
        "_wall",
        "backend",
        "began",
        "cause",
        "cordoned",
        "driver",
        "estimate",
        "former",
        "identity",
        "idle_timeout",
        "listeners",
        "looking",
        "machine",
        "phase",
        "releasing",
        "restoring",
        "row",
        "seen_active",
        "since",
        "unsure",
        "used_elsewhere",
        "user_id",
        "waiters",
        "wake",
        "wanted",
    )

    def __init__(
        self, user_id: UserId, driver: Driver, wall: Callable[[], float] = time.time
    ) -> None:
        """@param wall: the unix time, seconds: the directory's."""
        self._wall = wall
        self.user_id = user_id
        self.driver = driver
        self.backend: Backend | None = None
        """Connections to the machine; C{None} unless it is known to be awake."""
        self.cordoned: Backend | None = None
        """The same while the machine is on its way to sleep: no request gets them."""
        self.former: list[Backend] = []
        """Connections of before, on which requests or streams are still under way."""
        self.used_elsewhere = 0.0
        """When the machine was last in use as far as the directory knows, by the wheel's clock."""
        self.seen_active: datetime | None = None
        """What the directory said of that last."""
        self.identity = b""
        """Header lines that tell the machine whom it serves and that it is us."""
        self.idle_timeout: float | None = None
        """Seconds without use before this user's machine sleeps, if they have their own."""
        self.row: Machine | None = None
        self.wake: Wake | None = None
        self.estimate: float | None = None
        """Seconds that a wake of this machine takes, learned from its own."""
        self.restoring: Restoring | None = None
        """How far the machine has come that brings back its data."""
        self.phase = "resting"
        self.since = wall()
        """When that began, unix time, seconds."""
        self.began = 0.0
        """When the present or last wake began, in the clock's seconds."""
        self.cause = ""
        """What the present or last wake was for."""
        self.wanted = False
        """Whether a request came while the machine was on its way to sleep."""
        self.unsure = False
        """Whether the directory told of a change that was not looked at yet."""
        self.looking = False
        """Whether somebody is at it."""
        self.waiters: dict[Deferred[Route], None] = {}
        self.releasing = False
        """Whether the next batch of waiters has its time already."""
        self.listeners: dict[Callable[[Route], None], None] = {}
        self.machine: Any = residency(self)

    # use

    @property
    def requests(self) -> int:
        """Requests under way to the machine, over connections of before too; streams not."""
        return sum(backend.requests for backend in self.backends())

    @property
    def used(self) -> float | None:
        """When this process last used the machine, by the wheel's clock; C{None}: never."""
        latest = None
        for backend in self.backends():
            at = backend.wheel.now if backend.requests else backend.used_at
            latest = at if latest is None else max(latest, at)
        return latest

    @property
    def used_at(self) -> float | None:
        """The same in unix time, seconds."""
        used, backends = self.used, self.backends()
        return None if used is None else self._wall() - (backends[0].wheel.now - used)

    def note_use(self, last_active: datetime | None, now: float) -> float | None:
        """
        What the directory knows of use.

        @param now: the wheel's.
        @return: the same by the wheel's clock.
        """
        self.seen_active = last_active
        if last_active is None:
            return None
        self.used_elsewhere = at = now - max(0.0, self._wall() - last_active.timestamp())
        return at

    def adopted(self, last_active: datetime | None) -> None:
        """To find a machine running is no use of it; all the same it is not taken for idle
        before its time has passed under our eyes."""
        backend = self.backend
        if backend is not None:
            now = backend.wheel.now
            at = self.note_use(last_active, now)
            backend.used_at = now if at is None else at
            self.used_elsewhere = now

    def backends(self) -> list[Backend]:
        """All connections on which something may be under way."""
        if self.former:
            self.former = [one for one in self.former if one.requests or one.streams]
        present = self.backend or self.cordoned
        return self.former if present is None else [*self.former, present]

    def drain(self, reason: str, code: int = SERVICE_RESTART) -> None:
        """
        End the streams properly.

        @param code: what WebSockets are closed with.
        """
        for backend in self.backends():
            backend.drain(reason, code)

    def part_with(self, backend: Backend) -> None:
        """Use no connection of it again; what is under way goes on."""
        backend.close()
        if backend.requests or backend.streams:
            self.former.append(backend)

    def learn(self, seconds: float) -> None:
        """Take a wake's duration into the estimate."""
        before = seconds if self.estimate is None else self.estimate
        self.estimate = before + _LEARNED * (seconds - before)

    def enter(self, phase: str) -> None:
        """Note and tell that something new goes on."""
        self.phase = phase
        self.since = self._wall()
        self._tell()

    def _tell(self) -> None:
        for listener in list(self.listeners):
            listener(self)

    @property
    def is_at_rest(self) -> bool:
        """Whether nobody waits for it or looks at it, and nothing is under way."""
        busy = self.waiters or self.listeners or self.looking or self.releasing
        return self.phase == "resting" and not busy and not self.backends()

    def slim(self) -> None:
        """Keep only what the next wake does not read anew."""
        self.row = self.wake = self.seen_active = None
        self.identity = b""

    # what the state machine asks for

    def begin_wake(self) -> None:
        self.wanted = False
        self.driver.begin_wake(self)

    def begin_rest(self, cause: str) -> None:
        self.wanted = False
        self.wake = None  # whoever is let go without a new one was not woken for
        self.driver.begin_rest(self, cause)

    def recall(self) -> None:
        self.wanted = True
        self._tell()

    def release(self) -> None:
        self.driver.release(self)

    def refuse(self, error: MatrixError) -> None:
        """Answer everybody who waits."""
        waiters, self.waiters = self.waiters, {}
        for waiter in waiters:
            if not waiter.called:
                waiter.errback(error)

    def cut(self) -> None:
        """The machine cannot be reached as it was."""
        backend, self.backend = self.backend, None
        if backend is not None:
            self.part_with(backend)
        self.enter("resting")


class RouteTable:
    """All routes of this process, filled on demand."""

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        """@param wall: the unix time, seconds."""
        self._wall = wall
        self._routes: dict[UserId, Route] = {}
        self._untidied: list[Route] = []
        self.get = self._routes.get
        """The route of a user id, or C{None}."""

    def __len__(self) -> int:
        return len(self._routes)

    def __iter__(self) -> Iterator[Route]:
        return iter(list(self._routes.values()))

    def tidy(self) -> None:
        """
        Let go of what nobody needs: most of what is known of a machine that rests, and after
        a while all of it. What is asked of the directory then is asked at a wake anyway.

        Each call sees to some of the routes, so that it takes no time to speak of; calls in
        a row see to all.
        """
        if not self._untidied:
            self._untidied = list(self._routes.values())
        now = self._wall()
        some, self._untidied = self._untidied[-TIDIED:], self._untidied[:-TIDIED]
        for route in some:
            if route.is_at_rest:
                resting = now - route.since
                if resting > FORGET:
                    self._routes.pop(route.user_id, None)
                elif resting > SLIM:
                    route.slim()

    def _in_use(self) -> list[Route]:
        """Those with connections: of very many, few."""
        return [
            route
            for route in self._routes.values()
            if route.backend or route.cordoned or route.former
        ]

    def users(self) -> Iterable[UserId]:
        """Everybody whose machine this process had to do with."""
        return self._routes.keys()

    def requests(self) -> int:
        """How many requests are under way, streams not counted."""
        return sum(route.requests for route in self._in_use())

    def streams(self, kind: str) -> int:
        """How many event streams (C{sse}) or WebSockets (C{websocket}) are under way."""
        backends = (backend for route in self._in_use() for backend in route.backends())
        return sum(stream.kind == kind for backend in backends for stream in backend.streams)

    def ensure(self, user_id: UserId, driver: Driver) -> Route:
        """The route of a user, made now if there is none."""
        route = self._routes.get(user_id)
        if route is None:
            route = self._routes[user_id] = Route(user_id, driver, self._wall)
        return route
