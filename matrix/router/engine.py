"""What each process of a router has: clockwork, counters, the directory and the machines."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from matrix.auth import MachineSecrets
from matrix.directory import PostgresDirectory, open_directory
from matrix.http import Backend, Counters, Limits
from matrix.machines import IProvider, IStocking, open_provider
from matrix.metrics import LoopLag, process_registry, series
from matrix.model import Address
from matrix.net import NativeClientEndpoint, Wheel, event_loop, file_shares
from matrix.router.awake import AwakeGauges
from matrix.router.bonds import Bonds
from matrix.router.fleet import ALONE, MOVES, Fleet
from matrix.router.idle import Idle, Periodic
from matrix.router.leases import Leases
from matrix.router.owners import this_router
from matrix.router.rounds import Rounds
from matrix.router.routes import RouteTable
from matrix.router.settling import INTERVAL as SETTLING_INTERVAL
from matrix.router.settling import Settling
from matrix.router.snapshots.daemon import HttpDaemons
from matrix.router.snapshots.taker import Bounds, Taker
from matrix.router.snapshots.timetable import ADOPT_INTERVAL, Timetable
from matrix.router.stocking import INTERVAL as STOCKING_INTERVAL
from matrix.router.stocking import Stocking
from matrix.router.supplies import Supplies
from matrix.router.told import surroundings
from matrix.router.wake import Waker
from matrix.settings import Settings
from matrix.snapshots import Schedule

UPSTREAM_IDLE = 4.0
"""Seconds an unused connection to a machine is kept: less than the 5 s after which uvicorn
and Node.js close theirs."""
AWAKE_INTERVAL = 30.0
"""Seconds between two counts of who is awake: about as often as metrics are scraped."""
FAILURES_KEPT = 30 * 86400.0
"""Seconds for which attempts at snapshots that failed are remembered."""
TIDY_INTERVAL = 1.0
"""Seconds between two looks at some routes, whether less need be known of them, or nothing."""
PURGE_INTERVAL = 3600.0
"""Seconds between two clearings of the directory: rows are kept for days."""


@dataclass(frozen=True, slots=True)
class Machinery:
    """What there is once the database answers."""

    directory: PostgresDirectory
    provider: IProvider
    fleet: Fleet
    waker: Waker
    taker: Taker | None
    """Has machines take snapshots; C{None} if there are none."""


class Engine:
    """Wakes, watches and rests machines for one process."""

    def __init__(self, reactor: Any, settings: Settings) -> None:
        self.reactor = reactor
        self.settings = settings
        self.loop = event_loop(reactor)
        self.wheel = Wheel(reactor)
        self.registry = process_registry()
        self.routes = RouteTable()
        self.counters = Counters()
        self.limits = limits_from(settings)
        self.bonds = Bonds(reactor, self.wheel, self.registry, settings.stream_grace, time.time)
        self.live: Machinery | None = None
        self._lag = LoopLag(reactor, self.registry.histogram(series.LOOP_LAG_SECONDS))
        self._periodic: list[Periodic] = []
        self._stocking: Stocking | None = None
        self._rounds: Rounds | None = None

    # starting

    def tick(self) -> None:
        """
        Start the clockwork: without it no deadline passes.

        @raise ConfigurationError: too few files may be opened.
        """
        self.files = file_shares()
        self.wheel.start()
        self._lag.start()

    async def start(self, supplies: Supplies, *, first: bool = True) -> Machinery:
        """
        Reach the directory, and take charge of machines.

        @param first: whether no other process of this daemon did it before: the tables are
            brought up to date.
        @raise ConfigurationError: the directory cannot be reached; says why.
        """
        reactor, settings = self.reactor, self.settings
        directory = await open_directory(reactor, supplies.dsn, migrated=not first)
        provider = open_provider(settings, reactor, directory.paces)
        secrets = MachineSecrets(supplies.master)
        fleet = Fleet(
            reactor,
            directory,
            provider,
            secrets,
            self._connect,
            this_router(),
            around=surroundings(settings),
            leases=Leases(directory, settings.busy_max),
        )
        if settings.embedded and settings.workers == 1:
            fleet.hearing = ALONE
        waker = Waker(fleet, self.routes, self.registry)
        taker = self._take_snapshots(fleet) if settings.snapshots else None
        self.live = live = Machinery(directory, provider, fleet, waker, taker)
        provider.watch(waker.died)
        directory.watch(waker.changed)
        idle = Idle(
            fleet,
            self.wheel,
            self.routes,
            settings.idle_timeout,
            settings.rest_rate,
        )
        directory.watch(idle.heard)
        self._every(idle.interval, idle.sweep)
        self._every(idle.touch_interval, idle.touch)
        self._every(SETTLING_INTERVAL, Settling(fleet).run)
        if IStocking.providedBy(provider):
            self._stocking = fleet.stock = Stocking(fleet, provider, settings.fly_pool)
            given = self.registry.counter(series.STOCK_GIVEN)
            given.read = partial(getattr, fleet.stock, "given")
        self._every(TIDY_INTERVAL, self._tidy)
        self._watch_gauges(directory)
        for cause in MOVES:
            moves = self.registry.counter(series.MACHINE_MOVES, cause)
            moves.read = partial(fleet.moves.__getitem__, cause)
        return live

    def _take_snapshots(self, fleet: Fleet) -> Taker:
        settings = self.settings
        taker = fleet.saver = Taker(
            fleet,
            HttpDaemons(self.reactor),
            Schedule(settings.snapshot_interval),
            Bounds(settings.snapshot_at_once, settings.snapshot_budget),
            self.registry,
        )
        times = Timetable(fleet, self.routes, taker, self.registry, settings.snapshot_interval)
        self._every(times.seconds, times.go)
        self._every(ADOPT_INTERVAL, times.adopt, now=True)
        return taker

    async def reconcile(self) -> None:
        """See to all machines that there are, now and again and again."""
        live = self.live
        assert live is not None  # it was started
        self._rounds = rounds = Rounds(
            live.fleet, live.waker, self.routes, self.registry, self.settings
        )
        await rounds.begin(self._in_turns)
        gauges = AwakeGauges(live.directory, self.registry)
        self._every(AWAKE_INTERVAL, gauges.refresh, now=True)
        if self._stocking is not None:
            self.registry.watch(series.STOCK_MACHINES, partial(getattr, self._stocking, "ready"))
            self._every(STOCKING_INTERVAL, self._stocking.fill, now=True)
        self._every(PURGE_INTERVAL, self._purge, now=True)

    async def heal(self) -> None:
        """See to what a process that died has left behind."""
        if self._rounds is not None:
            await self._rounds.heal()

    async def _tidy(self) -> None:
        """Know no more than is needed, while what is forgotten can be asked for again."""
        assert self.live is not None  # it was started
        if self.live.directory.stale_since() is None:
            self.routes.tidy()

    async def _purge(self) -> None:
        """Have the directory forget what nobody needs any more."""
        assert self.live is not None  # it was started
        await self.live.directory.sessions.purge()
        await self.live.directory.snapshots.purge(FAILURES_KEPT)
        await self.live.directory.awake.purge()

    def _every(
        self, seconds: float, work: Callable[[], Awaitable[None]], *, now: bool = False
    ) -> None:
        periodic = Periodic(self.reactor, seconds, work)
        periodic.start(now=now)
        self._periodic.append(periodic)

    def _in_turns(self, seconds: float, work: Callable[[], Awaitable[None]], first: float) -> None:
        """@param first: seconds before the first time."""
        periodic = Periodic(self.reactor, seconds, work)
        self._periodic.append(periodic)
        periodic.start_in(first)

    def _connect(self, address: Address) -> Backend:
        return Backend(
            NativeClientEndpoint(self.loop, address, self.files.machines),
            self.wheel,
            self.limits,
            self.counters,
            UPSTREAM_IDLE,
            self.bonds,
        )

    def _watch_gauges(self, directory: PostgresDirectory) -> None:
        registry, counters = self.registry, self.counters

        def stale() -> float:
            since = directory.stale_since()
            return 0.0 if since is None else float(self.reactor.seconds() - since)

        registry.watch(series.DIRECTORY_STALE_SECONDS, stale)
        registry.watch(series.ROUTES, lambda: float(len(self.routes)))
        registry.watch(series.OPEN_CONNECTIONS, lambda: counters.open, "machine")
        registry.watch(series.OPEN_STREAMS, self.routes.requests, "http")
        for kind in ("sse", "websocket"):
            registry.watch(series.OPEN_STREAMS, partial(self.routes.streams, kind), kind)
        for direction in ("in", "out"):
            amount = registry.counter(series.BYTES, "machine", direction)
            amount.read = partial(getattr, counters, f"bytes_{direction}")
        for result in ("connected", "reused", "failed"):
            connections = registry.counter(series.UPSTREAM_CONNECTIONS, result)
            connections.read = partial(getattr, counters, result)
        retries = registry.counter(series.UPSTREAM_RETRIES, "reset")
        retries.read = partial(getattr, counters, "retried")

    # stopping

    async def settle(self) -> None:
        """Begin nothing new with machines, and give up what is under way."""
        for periodic in self._periodic:
            periodic.stop()
        if self._rounds is not None:
            self._rounds.stop()
        self.bonds.stop()
        if self.live is not None:
            if self.live.taker is not None:
                await self.live.taker.stop()
            await self.live.waker.stop()

    async def stop(self, *, stop_machines: bool) -> None:
        """Let go of machines and of the directory."""
        if self.live is not None:
            await self.live.provider.close(stop_machines=stop_machines)
            await self.live.directory.close()

    def halt(self) -> None:
        """Stop the clockwork."""
        self._lag.stop()
        self.wheel.stop()


def limits_from(settings: Settings) -> Limits:
    """The data path's limits, as configured."""
    return Limits(
        target=settings.max_target,
        head=settings.max_head,
        fields=settings.max_fields,
        head_time=settings.head_timeout,
        body_silence=settings.body_timeout,
        keep_alive=settings.keepalive_timeout,
        response_time=settings.response_timeout,
        stream_silence=settings.stream_timeout,
    )
