"""What happens in chaos: routers, workers, PostgreSQL and Fly are killed and come back."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import cycle

from tests.chaos.site import WORKERS, Router, Site
from tests.chaos.tally import Outages

ENDS = (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL)
"""How PostgreSQL is ended: in order, at once, and not asked."""


@dataclass(frozen=True)
class Pace:
    """Seconds between two of each."""

    routers: float = 20.0
    postgres: float = 75.0
    fly: float = 50.0


class Disturber:
    """Each kind at its own pace, so that they meet in every way."""

    def __init__(self, site: Site, seed: str, outages: Outages, pace: Pace) -> None:
        self._site = site
        self._rng = random.Random(f"{seed}-disturber")
        self._outages = outages
        self._pace = pace
        self._targets = cycle((None, *range(WORKERS)))
        """The supervisor, which takes its workers with it, and each worker in turn."""

    async def run(self, until: float) -> None:
        """Disturb until then, by the loop's time; return when everything is up again."""
        pace = self._pace
        async with asyncio.TaskGroup() as group:
            group.create_task(self._every(pace.routers, until, self._kill_router))
            group.create_task(self._every(pace.postgres, until, self._restart_postgres))
            group.create_task(self._every(pace.fly, until, self._restart_fly))

    async def _every(
        self, seconds: float, until: float, deed: Callable[[], Awaitable[None]]
    ) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + self._rng.uniform(0.3, 1.0) * seconds
        while due < until:
            await asyncio.sleep(max(0.0, due - loop.time()))
            await deed()
            due += seconds

    async def _kill_router(self) -> None:
        """The supervisor, or one of its workers, which it starts again itself."""
        router = self._rng.choice(self._site.routers)
        worker = next(self._targets)
        kind = "supervisor killed" if worker is None else "worker killed"
        with self._outages.of(router.name, kind):
            done = await asyncio.to_thread(router.kill, worker)
            if done and worker is None:
                await asyncio.sleep(self._rng.uniform(0.0, 3.0))
                await self._start(router)

    async def _start(self, router: Router) -> None:
        ends = await asyncio.to_thread(router.start)
        self._outages.count["router ended at its start"] += ends

    async def _restart_postgres(self) -> None:
        how = self._rng.choice(ENDS)
        pause = self._rng.uniform(0.0, 4.0)
        await asyncio.to_thread(self._site.restart_postgres, how, pause)
        self._outages.count[f"PostgreSQL {how.name}"] += 1

    async def _restart_fly(self) -> None:
        await asyncio.to_thread(self._site.restart_fly, self._rng.uniform(0.0, 4.0))
        self._outages.count["Fly killed"] += 1
