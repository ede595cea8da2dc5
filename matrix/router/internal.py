"""What answers on the internal listener: metrics for the scraper, the admin API for operators."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from twisted.internet.interfaces import IReactorTime

import matrix
from matrix.api import Api, BearerCheck, send_json
from matrix.directory.interfaces import DirectoryUnavailable, IDirectory
from matrix.errors import BadRequest, Forbidden
from matrix.http.interfaces import Exchange, Request
from matrix.metrics import Registry, series
from matrix.model import Busy, Event, Machine, User, UserId, user_id
from matrix.router.access_api import AccessApi
from matrix.router.asking import (
    CAUSE,
    PAGE_LIMIT,
    find_user,
    limit_in,
    query_of,
    reaching_the_directory,
    time_json,
)
from matrix.router.awake import AwakeApi
from matrix.router.strays_api import StraysApi

EVENTS_LIMIT: Final = 50
"""Events in one answer unless asked for otherwise: a screen or two."""


class MachineControl(Protocol):
    """Who wakes and suspends machines: C{matrix.router.wake}."""

    async def wake(self, user_id: UserId, cause: str) -> object:
        """
        Return once the user's machine answers HTTP.

        @raise matrix.errors.MatrixError: it does not, or not in time.
        """

    async def suspend(self, user_id: UserId, cause: str) -> object:
        """
        Return once the user's machine sleeps.

        @raise matrix.errors.MatrixError: it does not.
        """


class Measures(Protocol):
    """What was counted: L{matrix.metrics.Registry}, or those of several processes together."""

    def render(self, accept: str = "") -> tuple[str, bytes]:
        """Everything, in the format that is asked for: the content type and the text."""

    def number(self, one: series.GaugeSeries, *values: str) -> float:
        """One gauge's number now."""


class Crew(Protocol):
    """The processes that serve the public listener, where it is not this one that does."""

    async def measures(self) -> Measures:
        """What all of them counted, and this process."""

    def report(self) -> Sequence[Mapping[str, object]]:
        """How each of them is."""


@dataclass(frozen=True, slots=True)
class Instance:
    """What a router says of itself."""

    provider: str
    listeners: Mapping[str, str]
    """Where it listens, by purpose: C{public}, C{internal}."""
    started_at: float
    """The clock's seconds."""


class InternalApi:
    """The handler of the internal listener."""

    def __init__(
        self,
        directory: IDirectory,
        control: MachineControl,
        registry: Registry,
        instance: Instance,
        clock: IReactorTime,
        admin_token: str | None,
        crew: Crew | None = None,
        census: Callable[[], Mapping[str, object]] = dict,
        now: Callable[[], float] = time.time,
    ) -> None:
        """
        @param clock: also the one by whose time the directory calls itself stale.
        @param admin_token: the bearer token of the admin API; C{None} turns it off.
        @param crew: who serves the public listener, if it is not this process.
        @param census: counts what this process holds.
        @param now: the unix time, seconds.
        """
        self._crew = crew
        self._directory = directory
        self._control = control
        self._registry = registry
        self._instance = instance
        self._clock = clock
        self._take_census = census
        api = Api(_off if admin_token is None else BearerCheck(admin_token))
        api.add("GET", "/healthz", self._healthz, public=True)
        api.add("GET", "/metrics", self._metrics, public=True)
        api.add("GET", "/admin/v1/status", self._status)
        api.add("GET", "/admin/v1/census", self._census)
        api.add("GET", "/admin/v1/machines", self._machines)
        api.add("GET", "/admin/v1/users/<user>", self._user)
        api.add("GET", "/admin/v1/users/<user>/events", self._events)
        api.add("POST", "/admin/v1/users/<user>/wake", self._wake)
        api.add("POST", "/admin/v1/users/<user>/suspend", self._suspend)
        AccessApi(directory, now).join(api)
        AwakeApi(directory).join(api)
        StraysApi(directory).join(api)
        self._api = api
        self.add = api.add
        """Lets another part of the admin API answer on a path."""

    def __call__(self, exchange: Exchange) -> None:
        """See L{matrix.http.interfaces.Handler}."""
        self._api(exchange)

    async def _healthz(self, exchange: Exchange) -> None:
        send_json(exchange, {"status": "ok"})

    async def _metrics(self, exchange: Exchange) -> None:
        accept = exchange.request.get(b"accept") or b""
        measures = await self._measures()
        content_type, text = measures.render(accept.decode("latin-1"))
        exchange.respond(200, [(b"content-type", content_type.encode("latin-1"))], text)

    async def _measures(self) -> Measures:
        return self._registry if self._crew is None else await self._crew.measures()

    async def _status(self, exchange: Exchange) -> None:
        now = self._clock.seconds()
        stale_since = self._directory.stale_since()
        measures = await self._measures()
        send_json(
            exchange,
            {
                "version": matrix.__version__,
                "uptime_s": round(now - self._instance.started_at, 3),
                "provider": self._instance.provider,
                "listeners": dict(self._instance.listeners),
                "machines": await self._count_machines(),
                "open_connections": int(measures.number(series.OPEN_CONNECTIONS, "client")),
                "workers": [] if self._crew is None else [*self._crew.report()],
                "directory_stale_s": None if stale_since is None else round(now - stale_since, 3),
            },
        )

    async def _census(self, exchange: Exchange) -> None:
        send_json(exchange, self._take_census())

    async def _count_machines(self) -> dict[str, int] | None:
        """How many machines are in each state; C{None} while the directory cannot say."""
        try:
            counts = await self._directory.roll.counts()
        except DirectoryUnavailable:
            return None
        return dict(sorted((state.value, count) for state, count in counts.items()))

    async def _machines(self, exchange: Exchange) -> None:
        query = query_of(exchange.request)
        limit = limit_in(query, PAGE_LIMIT)
        after = None
        if "after" in query:
            try:
                after = user_id(query["after"])
            except ValueError:
                raise BadRequest("after must be the user id of a machine (a UUID)") from None
        with reaching_the_directory():
            page = await self._directory.machines(after, limit)
        following = page[-1].user_id if len(page) == limit else None
        send_json(exchange, {"machines": [*map(_machine_json, page)], "next": following})

    async def _user(self, exchange: Exchange, user: str) -> None:
        found = await find_user(self._directory, user)
        with reaching_the_directory():
            machine = await self._directory.machine(found.id)
            busy = (await self._directory.busy.of([found.id])).get(found.id)
        send_json(exchange, _user_json(found, machine, busy))

    async def _events(self, exchange: Exchange, user: str) -> None:
        limit = limit_in(query_of(exchange.request), EVENTS_LIMIT)
        found = await find_user(self._directory, user)
        with reaching_the_directory():
            events = await self._directory.events(found.id, limit)
        content = {"user": found.id, "email": found.email, "events": [*map(_event_json, events)]}
        send_json(exchange, content)

    async def _wake(self, exchange: Exchange, user: str) -> None:
        found = await find_user(self._directory, user)
        before = self._clock.seconds()
        await self._control.wake(found.id, CAUSE)
        await self._answer_with_state(exchange, found, before)

    async def _suspend(self, exchange: Exchange, user: str) -> None:
        found = await find_user(self._directory, user)
        before = self._clock.seconds()
        await self._control.suspend(found.id, CAUSE)
        await self._answer_with_state(exchange, found, before)

    async def _answer_with_state(self, exchange: Exchange, user: User, before: float) -> None:
        took = self._clock.seconds() - before
        with reaching_the_directory():
            machine = await self._directory.machine(user.id)
        state = None if machine is None else machine.state.value
        content = {"user": user.id, "email": user.email, "state": state, "ms": round(took * 1000)}
        send_json(exchange, content)


def _off(request: Request) -> None:
    raise Forbidden("the admin API is off: set MATRIX_ADMIN_TOKEN to use it", reason="admin-off")


def _user_json(user: User, machine: Machine | None, busy: Busy | None) -> dict[str, object]:
    return {
        "id": user.id,
        "email": user.email,
        "state": user.state.value,
        "idle_timeout_s": user.idle_timeout,
        "machine": None if machine is None else _machine_json(machine),
        "busy": None if busy is None else _busy_json(busy),
    }


def _busy_json(busy: Busy) -> dict[str, object]:
    return {
        "reason": busy.reason,
        "since": time_json(busy.since),
        "until": time_json(busy.until),
    }


def _machine_json(machine: Machine) -> dict[str, object]:
    return {
        "user": machine.user_id,
        "provider": machine.provider,
        "state": machine.state.value,
        "state_reason": machine.state_reason,
        "generation": machine.generation,
        "machine_id": machine.machine_id,
        "address": None if machine.address is None else str(machine.address),
        "boot_id": machine.boot_id,
        "last_active_at": time_json(machine.last_active_at),
        "last_wake_at": time_json(machine.last_wake_at),
        "wake_cause": machine.wake_cause,
        "suspend_cause": machine.suspend_cause,
    }


def _event_json(event: Event) -> dict[str, object]:
    return {
        "at": event.at.isoformat(),
        "kind": event.kind,
        "cause": event.cause,
        "detail": dict(event.detail),
    }
