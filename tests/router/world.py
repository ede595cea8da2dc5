"""A whole router in memory: every part of its own in earnest, and twins for what it talks to."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from inspect import iscoroutinefunction
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import Clock
from zope.interface import implementer

from matrix.auth import (
    Failures,
    MachineSecrets,
    MemoryGate,
    Origins,
    Places,
)
from matrix.directory import MemoryDirectory
from matrix.http import Backend, Counters, Limits, ServerFactory
from matrix.machines import MemoryFleet, MemoryProvider
from matrix.metrics import Registry
from matrix.model import Address, Machine, MachineState, Principal, User, UserId
from matrix.net import Presence, Wheel
from matrix.router.bearings import Compass
from matrix.router.bonds import Bonds, Sources
from matrix.router.errorpages import render_for
from matrix.router.fleet import Fleet
from matrix.router.front import Bounds, Front
from matrix.router.idle import Idle
from matrix.router.leases import Leases
from matrix.router.ledger import Ledger
from matrix.router.own import OwnPaths
from matrix.router.pages import Pages
from matrix.router.passes import Passes
from matrix.router.rights import Rights
from matrix.router.routes import Route, RouteTable
from matrix.router.sightings import Sightings
from matrix.router.signin.reception import Reception
from matrix.router.stall import Stall
from matrix.router.tickets import Tickets
from matrix.router.validate import Validator
from matrix.router.wake import Waker

ALICE = UserId("0a1b2c3d-0000-4000-8000-00000000000a")
BOB = UserId("0a1b2c3d-0000-4000-8000-00000000000b")
NOW = 1_795_000_000.0
HEARING = 0.1
"""Seconds in which routers may object to a suspend: none of them is busy."""

TOKENS = {
    b"alice-token": Principal(ALICE, "a", NOW + 3600, "alice@example.org"),
    b"bob-token": Principal(BOB, "b", NOW + 3600, "bob@example.org"),
    b"old-token": Principal(ALICE, "o", NOW - 1, "alice@example.org"),
}
FAILURES = 30
"""A minute of refused tokens from one address."""

GRACE = 60.0
"""Seconds that a stream outlives its token."""
COOKIE = "sb-door-auth-token"
LISTED = "https://app.example"

_HEAD = re.compile(rb"HTTP/1\.1 (\d{3})[^\r]*\r\n(.*?)\r\n\r\n", re.DOTALL)


class Meddler:
    """
    Passes calls on to a twin, and lets a test step in before and after each one that is
    awaited: C{step(name, when)} may raise, or return something to wait for.
    """

    def __init__(self, twin: Any) -> None:
        self.twin = twin
        self.step: Callable[[str, str], Awaitable[None] | None] | None = None

    @property
    def wakes(self) -> Any:
        """A part of the twin, stepped into as the twin itself."""
        part = Meddler(self.twin.wakes)
        part.step = lambda name, when: self.step(name, when) if self.step is not None else None
        return part

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.twin, name)
        if not iscoroutinefunction(method):
            return method

        async def call(*arguments: Any, **named: Any) -> Any:
            await self._stop_at(name, "before")
            result = await method(*arguments, **named)
            await self._stop_at(name, "after")
            return result

        return call

    async def _stop_at(self, name: str, when: str) -> None:
        waiting = self.step(name, when) if self.step is not None else None
        if waiting is not None:
            await waiting


class Transport:
    """As much of L{matrix.net._transport.NativeTransport} as protocols use."""

    def __init__(self, written: Callable[[bytes], None] = lambda data: None) -> None:
        self.data = b""
        self.disconnecting = False
        self.aborted = False
        self.paused = False
        self._written = written

    def write(self, data: bytes) -> None:
        self.data += data
        self._written(data)

    def loseConnection(self) -> None:
        self.disconnecting = True

    def loseWriteConnection(self) -> None:
        pass

    def abortConnection(self) -> None:
        self.disconnecting = self.aborted = True

    def registerProducer(self, producer: object, streaming: bool) -> None:
        pass

    def unregisterProducer(self) -> None:
        pass

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        self.paused = False

    def presence(self) -> Presence:
        return Presence.HERE

    def getPeer(self) -> tuple[str, int]:
        return ("192.0.2.7", 4711)

    def tls_version(self) -> str:
        return "TLSv1.3"


@implementer(IStreamClientEndpoint)
class Endpoint:
    """Where a user's machine listens, if it runs. What it does is told by the public names."""

    def __init__(self, clock: Clock, runs: Callable[[], MachineState | None]) -> None:
        self._clock = clock
        self._runs = runs
        self.deaf = False
        """Whether connections are refused although it runs."""
        self.mute = False
        """Whether it accepts connections and says nothing."""
        self.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
        self.probe_answer = b"HTTP/1.1 204 No Content\r\n\r\n"
        self.connected = 0
        self.probes: list[float] = []
        self.heads: list[bytes] = []
        self.open: list[Any] = []
        """The upstream protocols, the newest last."""

    def connect(self, factory: Any) -> Deferred[Any]:
        state = self._runs()
        if self.deaf or state in (None, MachineState.STOPPED):
            if self.deaf or state is not None:
                self.probes.append(self._clock.seconds())
            return fail(ConnectionRefusedError("nobody listens"))
        self.connected += 1
        protocol = factory.buildProtocol(None)
        protocol.makeConnection(Transport(lambda data: self._read(protocol, data)))
        self.open.append(protocol)
        return succeed(protocol)

    def _read(self, protocol: Any, data: bytes) -> None:
        if data.startswith(b"GET /healthz HTTP/1.1\r\nHost: machine\r\n"):
            self.probes.append(self._clock.seconds())
            answer = self.probe_answer
        elif b" HTTP/1.1\r\n" in data:
            self.heads.append(data)
            answer = self.answer
        else:
            return  # a body, or frames
        if not self.mute and self._runs() is MachineState.RUNNING:
            self._clock.callLater(0, self.say, protocol, answer)

    def say(self, protocol: Any, data: bytes) -> None:
        """Bytes from the machine, on one of its connections."""
        if not protocol.transport.disconnecting:
            protocol.dataReceived(data)


class Client:
    """One connection to the public listener."""

    def __init__(self, factory: ServerFactory) -> None:
        self.transport = Transport()
        self.connection = factory.buildProtocol(None)
        self.connection.makeConnection(self.transport)

    def ask(
        self,
        target: str = "/",
        method: str = "GET",
        token: str | None = "alice-token",
        body: bytes = b"",
        **more: str,
    ) -> Client:
        """Send a request; header names are given with C{_} for C{-}."""
        fields = {"Host": "door", **{name.replace("_", "-"): value for name, value in more.items()}}
        if token is not None:
            fields["Authorization"] = f"Bearer {token}"
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self.connection.dataReceived(f"{method} {target} HTTP/1.1\r\n{lines}\r\n".encode() + body)
        return self

    def leave(self) -> None:
        self.transport.disconnecting = True
        self.connection.connectionLost()

    @property
    def answered(self) -> bool:
        return b"\r\n\r\n" in self.transport.data

    def _head(self) -> re.Match[bytes]:
        found = _HEAD.match(self.transport.data)
        assert found is not None, f"no answer yet: {self.transport.data!r}"
        return found

    @property
    def status(self) -> int:
        return int(self._head()[1])

    @property
    def headers(self) -> dict[str, str]:
        lines = (line.partition(b":") for line in self._head()[2].split(b"\r\n"))
        return {name.decode().lower(): value.strip().decode() for name, _, value in lines}

    @property
    def body(self) -> bytes:
        """Everything behind the head, chunk sizes and all."""
        return self.transport.data[self._head().end() :]

    def reset(self) -> Client:
        """Forget the answer; the next request follows on the same connection."""
        self.transport.data = b""
        return self


class Log:
    """An access log that a test can read."""

    def __init__(self) -> None:
        self._records: list[Any] = []
        self.add = self._records.extend
        self.ledger: Ledger

    @property
    def records(self) -> list[Any]:
        """Of all requests that are over."""
        self.ledger.settle()
        return self._records


class World:
    """The router, its users and their machines. C{clock} is everybody's."""

    def __init__(
        self,
        *,
        owner: str = "router:1",
        within: World | None = None,
        bounds: Bounds = Bounds(),  # noqa: B008 -- frozen
    ) -> None:
        """
        @param owner: names this router in leases.
        @param within: another router, whose clock, directory and machines are this one's too.
        """
        if within is None:
            self.clock = Clock()
            self.clock.advance(NOW)
            self.store = MemoryDirectory(self.clock)
            self.fleet_twin = MemoryFleet()
        else:
            self.clock, self.store = within.clock, within.store
            self.fleet_twin = within.fleet_twin
        self.places: dict[UserId, Endpoint] = within.places if within else {}
        self.provider_twin = MemoryProvider(self.clock, fleet=self.fleet_twin, address=_address)
        self.directory = Meddler(self.store)
        self.provider = Meddler(self.provider_twin)
        self.registry, self.routes, self.log = Registry(), RouteTable(self.clock.seconds), Log()
        self.wheel = Wheel(self.clock)
        self.wheel.start()
        self.limits, self.counters = Limits(), Counters()
        self.bonds = Bonds(self.clock, self.wheel, self.registry, GRACE, self.clock.seconds)
        self.fleet = Fleet(
            self.clock,
            self.directory,  # type: ignore[arg-type]
            self.provider,  # type: ignore[arg-type]
            MachineSecrets("m" * 40),
            self._backend,
            owner,
            leases=Leases(self.directory, now=self.clock.seconds),  # type: ignore[arg-type]
        )
        self.fleet.hearing = HEARING
        self.waker = Waker(self.fleet, self.routes, self.registry)
        self.provider_twin.watch(self.waker.died)
        self.store.watch(self.waker.changed)
        self.gate = MemoryGate(TOKENS, self.clock.seconds)
        self.rights = Rights(
            self.clock,
            self.gate,
            self.directory,  # type: ignore[arg-type]
            self.routes.users,
            lambda: self.factory.exchanges(),
            self.registry,
        )
        self.sightings = Sightings(self.clock, self.store.sessions)
        self.gate.subscribe(self.sightings.seen)
        self.missing: str | None = None
        self.reception = self._receive()
        renew = None if self.reception is None else self.reception.renew
        self.bonds.ask(Sources(self.gate.newest, self.store.sessions.newest, renew))
        self._open_front(bounds)
        run(self.rights.start())

    def _receive(self) -> Reception | None:
        """What looks after sign-ins; without it a token is in the session cookie."""
        return None

    def _open_front(self, bounds: Bounds) -> None:
        pages = Pages(embedded=True)
        self.own = OwnPaths(self.clock, self.routes, self.waker, lambda: self.missing)
        self.failures = Failures(FAILURES, self.clock.seconds)
        self.stall = Stall(self.clock)
        places = Places(COOKIE.encode(), query_token=True)
        self.compass = compass = Compass(places, Origins([LISTED.encode()]))
        tickets = Tickets(self.directory.tickets)
        self.validator = Validator(
            self.gate,
            self.registry,
            self.failures,
            self.stall,
            compass,
            tickets,
            None if self.reception is None else self.reception.resolve,
        )
        self.validator.check = self.rights.check
        self.front = Front(
            self.clock,
            self.validator,
            self.routes,
            self.waker,
            compass,
            self.own,
            pages,
            self.directory,  # type: ignore[arg-type]
            self.registry,
            bounds,
        )
        self.own.identify = self.validator.principal
        Passes(self.validator.principal, tickets, compass.origins).register(self.own.add)
        greeting = None
        if self.reception is not None:
            greeting = self.reception.furnish(self.own.add, self.validator, compass)
        self.log.ledger = ledger = Ledger(self.registry, self.log, self.wheel)
        self.factory = ServerFactory(
            self.front,
            self.wheel,
            self.limits,
            render_for(pages, self.registry, compass.origins, greeting),
            ledger.finished,
        )
        self.idle = Idle(self.fleet, self.wheel, self.routes, timeout=10.0)

    def _backend(self, address: Address) -> Backend:
        user_id = UserId(str(address.path).rpartition("/")[2])
        place = self.place(user_id)
        return Backend(place, self.wheel, self.limits, self.counters, 4.0, self.bonds)

    # what a test looks at

    def place(self, user_id: UserId = ALICE) -> Endpoint:
        """Where a user's machine listens."""
        if user_id not in self.places:
            machines = self.fleet_twin.machines
            self.places[user_id] = Endpoint(
                self.clock, lambda: getattr(machines.get(user_id), "state", None)
            )
        return self.places[user_id]

    def row(self, user_id: UserId = ALICE) -> Machine:
        """The user's row."""
        found = _now(self.store.machine(user_id))
        assert isinstance(found, Machine)
        return found

    def real(self, user_id: UserId = ALICE) -> MachineState | None:
        """What is really so with the user's machine."""
        machine = self.fleet_twin.machines.get(user_id)
        return None if machine is None else machine.state

    def route(self, user_id: UserId = ALICE) -> Route:
        return self.routes.ensure(user_id, self.waker)

    def events(self, user_id: UserId = ALICE) -> list[tuple[str, str]]:
        """Kind and cause of the user's events, the oldest first."""
        return [(event.kind, event.cause) for event in reversed(_now(self.store.events(user_id)))]

    def asked(self, method: str) -> int:
        """How often the provider was asked for something."""
        return sum(call == method for call, _ in self.provider_twin.calls)

    # what a test does

    def client(self) -> Client:
        return Client(self.factory)

    def ask(self, target: str = "/", **request: Any) -> Client:
        """A request on a connection of its own."""
        return self.client().ask(target, **request)

    def want(self, user_id: UserId = ALICE, cause: str = "request") -> Deferred[Route]:
        return self.waker.want(user_id, cause, "alice@example.org")

    def let_pass(self, seconds: float, step: float = 0.05) -> None:
        """Time passes, evenly."""
        self.clock.pump([step] * round(seconds / step))

    def turn(self) -> None:
        """What is due now happens, and what becomes due by it."""
        self.clock.pump([0.0] * 10)

    def awake(self, user_id: UserId = ALICE) -> Route:
        """The user's machine, running and reached."""
        route: Deferred[Route] = self.want(user_id)
        self.let_pass(0.2)
        assert route.called
        assert self.row(user_id).state is MachineState.RUNNING
        return self.route(user_id)

    def asleep(self, user_id: UserId = ALICE) -> Route:
        """The user's machine, suspended after it ran."""
        route = self.awake(user_id)
        route.machine.rest("idle")
        self.let_pass(0.5)
        assert self.real(user_id) is MachineState.SUSPENDED
        return route

    def put_user(self, user: User) -> None:
        self.store.put_user(user)


def outcome(waiting: Deferred[Any]) -> list[Any]:
    """Collects what a Deferred fires with: the result, or the exception."""
    seen: list[Any] = []
    waiting.addCallbacks(seen.append, lambda failure: seen.append(failure.value))
    return seen


def run(coroutine: Any) -> list[Any]:
    """L{outcome} of a coroutine."""
    return outcome(Deferred.fromCoroutine(coroutine))


def _now(coroutine: Any) -> Any:
    [result] = run(coroutine)
    if isinstance(result, Exception | CancelledError):
        raise result
    return result


def _address(user_id: UserId) -> Address:
    return Address(path=f"/memory/{user_id}")
