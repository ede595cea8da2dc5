"""The route table: where each user's machine is, as far as this process knows. Memory only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from twisted.internet.defer import Deferred

from matrix.errors import MatrixError
from matrix.http import Backend
from matrix.model import Machine, MachineState, UserId
from matrix.router.residency import residency

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
        "backend",
        "began",
        "cause",
        "driver",
        "estimate",
        "identity",
        "idle_timeout",
        "listeners",
        "looking",
        "machine",
        "phase",
        "releasing",
        "row",
        "unsure",
        "user_id",
        "waiters",
        "wake",
        "wanted",
    )

    def __init__(self, user_id: UserId, driver: Driver) -> None:
        self.user_id = user_id
        self.driver = driver
        self.backend: Backend | None = None
        """Connections to the machine; C{None} unless it is known to be awake."""
        self.identity = b""
        """Header lines that tell the machine whom it serves and that it is us."""
        self.idle_timeout: float | None = None
        """Seconds without use before this user's machine sleeps, if they have their own."""
        self.row: Machine | None = None
        self.wake: Wake | None = None
        self.estimate: float | None = None
        """Seconds that a wake of this machine takes, learned from its own."""
        self.phase = "resting"
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

    def learn(self, seconds: float) -> None:
        """Take a wake's duration into the estimate."""
        before = seconds if self.estimate is None else self.estimate
        self.estimate = before + _LEARNED * (seconds - before)

    def enter(self, phase: str) -> None:
        """Note and tell that something new goes on."""
        self.phase = phase
        for listener in list(self.listeners):
            listener(self)

    # what the state machine asks for

    def begin_wake(self) -> None:
        self.wanted = False
        self.driver.begin_wake(self)

    def begin_rest(self, cause: str) -> None:
        self.wanted = False
        self.wake = None  # whoever is let go without a new one was not woken for
        self.driver.begin_rest(self, cause)

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
            backend.close()
        self.enter("resting")


class RouteTable:
    """All routes of this process, filled on demand."""

    def __init__(self) -> None:
        self._routes: dict[UserId, Route] = {}
        self.get = self._routes.get
        """The route of a user id, or C{None}."""

    def __len__(self) -> int:
        return len(self._routes)

    def __iter__(self) -> Iterator[Route]:
        return iter(list(self._routes.values()))

    def requests(self) -> int:
        """How many requests are under way, streams not counted."""
        return sum(route.backend.requests for route in self if route.backend is not None)

    def streams(self, kind: str) -> int:
        """How many event streams (C{sse}) or WebSockets (C{websocket}) are under way."""
        backends = (route.backend for route in self if route.backend is not None)
        return sum(stream.kind == kind for backend in backends for stream in backend.streams)

    def ensure(self, user_id: UserId, driver: Driver) -> Route:
        """The route of a user, made now if there is none."""
        route = self._routes.get(user_id)
        if route is None:
            route = self._routes[user_id] = Route(user_id, driver)
        return route
