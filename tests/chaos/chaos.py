"""
Chaos: users upon two routers while everything that they stand on fails, and what is true when
it is over.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from matrix.testing.wire import run
from tests.chaos import audit
from tests.chaos.disturber import Disturber, Pace
from tests.chaos.site import Site
from tests.chaos.tally import Outages, Refused, Tally, Wrong
from tests.chaos.user import HUNG, LOST, User

IDLE = 5.0
"""Seconds until a machine sleeps."""

USUAL = Pace()

RECOVERY = 120.0
"""Seconds within which everybody must have been answered once nothing goes wrong any more: a
lease of a router that was killed is sixty."""

AT_ONCE = 20
"""Users who look at a time in the end."""

SETTLE = 90.0
"""Seconds within which everything sleeps then."""


class Chaos:
    """One run, from nothing to nothing."""

    def __init__(
        self, seed: str, users: int, *, rate: float, idle: float = IDLE, pace: Pace = USUAL
    ) -> None:
        """
        @param rate: how likely each fault of the catalogue is.
        @param idle: seconds until a machine sleeps.
        """
        self.seed = seed
        self.tally = Tally()
        self.outages = Outages()
        self.misdeeds: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self._pace = pace
        self._idle = idle
        self._names = [f"user{number:03}" for number in range(users)]
        self.site = Site(idle, rate)
        self.users: Sequence[User] = ()

    def run(self, seconds: float, keep: Path | None = None) -> None:
        """
        @param seconds: of chaos; then as long as it takes until everything sleeps.
        @param keep: where to leave logs and events, for whoever looks for a cause.
        """
        try:
            self.site.start()
            self.users = self._meet()
            self.site.break_fly()
            run(self._happen(seconds), seconds + 4 * HUNG)
            self.site.mend_fly()
            run(self._recover(), RECOVERY + len(self.users) + HUNG)
            self._audit()
            if keep is not None:
                self.site.keep(keep)
        finally:
            self.site.close()

    def _meet(self) -> list[User]:
        matrix, routers = self.site.routers[0].matrix, self.site.routers
        return [
            User(name, matrix.user_id(name), matrix.token(name), routers, self._idle, self.seed)
            for name in self._names
        ]

    async def _happen(self, seconds: float) -> None:
        until = asyncio.get_running_loop().time() + seconds
        async with asyncio.TaskGroup() as group:
            group.create_task(self.outages.stalls.watch(until))
            disturber = Disturber(self.site, self.seed, self.outages, self._pace)
            group.create_task(disturber.run(until))
            for user in self.users:
                group.create_task(user.live(until, self.tally, self.outages))

    # afterwards

    async def _recover(self) -> None:
        """Everybody is answered, now that nothing goes wrong."""
        gate = asyncio.Semaphore(AT_ONCE)
        deadline = time.monotonic() + RECOVERY + len(self.users)  # Fly makes one in a second
        async with asyncio.TaskGroup() as group:
            for user in self.users:
                group.create_task(self._look(user, gate, deadline))

    async def _look(self, user: User, gate: asyncio.Semaphore, deadline: float) -> None:
        async with gate:
            await self._until_answered(user, deadline)

    async def _until_answered(self, user: User, deadline: float) -> None:
        while True:
            try:
                outcome = await asyncio.wait_for(user.look(), HUNG)
            except Refused as error:
                last: Exception = error
                self.tally.note("afterwards", str(error))
            except (*LOST, TimeoutError) as error:
                last = error
            except Wrong as error:
                self.tally.fault("afterwards", "WRONG", f"{user.name}: {error}")
                return
            else:
                self.tally.note("afterwards", outcome)
                return
            if time.monotonic() > deadline:
                self.tally.fault("afterwards", "SHUT OUT", f"{user.name}: {last!r}")
                return
            await asyncio.sleep(1.0)

    def _audit(self) -> None:
        deadline = time.monotonic() + SETTLE
        while True:
            found = [*self._correspondence()]
            if not found or time.monotonic() > deadline:
                break
            time.sleep(1.0)
        self.tally.faults.extend(found)
        misdeeds = audit.misdeeds(self.site.journals(), self._idle)
        self.misdeeds = misdeeds.count
        self.tally.faults.extend(misdeeds.faults)
        self.tally.faults.extend(f"process {pid} is left over" for pid in self.site.orphans())
        self.calls.update(self.site.fly.calls()["by_action"])

    def _correspondence(self) -> list[str]:
        site = self.site
        return [*audit.correspondence(site.rows(), site.machines(), site.volumes())]

    # report

    def report(self) -> str:
        """All figures."""
        lines = ["what users tried, and what came of it:", self.tally.report(), ""]
        for title, counts in (
            ("what was done:", self.outages.count),
            ("what machines wrote down:", self.misdeeds),
            ("what Fly was asked since it was killed last:", self.calls),
        ):
            lines += [title, *(f"  {name:32}{count:>8}" for name, count in counts.most_common())]
        several = sum(len(user.machines) > 1 for user in self.users)
        stalled = self.outages.stalls.longest()
        lines.append(f"longest wait of this process for a processor: {stalled:.2f} s")
        lines.append(f"users whom more than one machine answered: {several}")
        return "\n".join(lines)
