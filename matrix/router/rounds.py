"""The rounds a router makes: what it left and others left, all rows, and routes of long ago."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from random import random

from matrix.machines import IProvider
from matrix.metrics import Registry
from matrix.router.fleet import Fleet
from matrix.router.reconcile import Reconciler
from matrix.router.routes import RouteTable
from matrix.router.strays import Strays
from matrix.router.survey import Surveyor
from matrix.router.wake import Waker
from matrix.settings import Settings

INTERVAL = 60.0
"""Seconds between two rounds, and between two surveys, whichever router makes them."""
SLACK = 5.0
"""Seconds by which a survey may come sooner, so that it is not put off by a whole round."""

Every = Callable[[float, Callable[[], Awaitable[None]], float], None]
"""Has something done again and again: the seconds between, what, and those before the first."""


class Rounds:
    """What one process of a router sees to, besides what it is asked for."""

    def __init__(
        self,
        fleet: Fleet,
        waker: Waker,
        routes: RouteTable,
        registry: Registry,
        settings: Settings,
    ) -> None:
        self._provider: IProvider = fleet.provider
        self._reconciler = Reconciler(fleet, waker, routes, registry, settings.idle_timeout)
        strays = Strays(fleet, registry, settings.fly_quarantine)
        self._surveyor = Surveyor(fleet, self._reconciler, strays, registry)
        self._healing = False

    async def begin(self, every: Every) -> None:
        """
        Make the first round and plan the others. One that asks the provider of each machine by
        itself is waited for; one at Fly, which may take long, is not.
        """
        if self._provider.survey() is None:
            await self.heal()
            every(INTERVAL, self.heal, INTERVAL)
        else:
            every(INTERVAL, self.heal, 0.0)
            # Routers that were started together, or one that starts again and again, do not
            # ask Fly for everything at once.
            every(INTERVAL, self.survey, INTERVAL * random())  # noqa: S311 -- no secret

    async def heal(self) -> None:
        """See to what was left behind, unless that is under way."""
        if not self._healing:
            self._healing = True
            try:
                await self._reconciler.run()
            finally:
                self._healing = False

    async def survey(self) -> None:
        """Compare everything, if it is due."""
        await self._surveyor.run(INTERVAL - SLACK)

    def stop(self) -> None:
        """Break off a survey that is under way."""
        self._surveyor.stop()
