"""What happens to machines in a storm: they are suspended, killed, stopped, their users blocked."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Callable, Coroutine, Iterator, Sequence
from math import inf
from typing import Any
from urllib.error import HTTPError

from matrix.testing.running import RunningMatrix
from tests.storm.verdict import Troubles, Wrong
from tests.storm.visitor import Resident

PAUSE = (0.1, 1.2)
"""Seconds between two disturbances."""

Deed = Callable[[Resident], Coroutine[Any, Any, None]]
"""What may be done to a user's machine."""


class Disturber:
    """Does one thing after another, some of which take a while."""

    def __init__(
        self, matrix: RunningMatrix, users: Sequence[Resident], seed: str, troubles: Troubles
    ) -> None:
        self._matrix = matrix
        self._users = users
        self._rng = random.Random(f"{seed}-disturber")
        self._troubles = troubles
        self._until = inf

    async def run(self, until: float) -> None:
        """Disturb until then, by the loop's time; return when everything is set right again."""
        loop = asyncio.get_running_loop()
        self._until = until
        async with asyncio.TaskGroup() as group:
            for deed in self._deeds():
                if loop.time() >= until:
                    break
                group.create_task(deed(self._rng.choice(self._users)))
                await asyncio.sleep(self._rng.uniform(*PAUSE))

    def _deeds(self) -> Iterator[Deed]:
        """Each once, so that even a short storm on a slow host has them all; then by lot."""
        often = {self._kill: 3, self._stop: 2, self._suspend: 6, self._block: 1, self._hang_up: 1}
        yield from often
        while True:
            yield from self._rng.choices([*often], [*often.values()])

    async def _suspend(self, user: Resident) -> None:
        with self._troubles.of(user.id, "suspended"):
            try:
                await asyncio.to_thread(self._matrix.suspend, user.name)
            except HTTPError as error:
                # In use, or in the hands of somebody else who disturbs it.
                if error.code not in (503, 404):
                    raise Wrong(f"suspend: {error.code} {error.read()!r}") from None

    async def _kill(self, user: Resident) -> None:
        with self._troubles.of(user.id, "killed"):
            await self._signal(user, signal.SIGKILL)

    async def _stop(self, user: Resident) -> None:
        """The machine hangs, for a shorter or a longer time than the limits allow."""
        with self._troubles.of(user.id, "stopped"):
            await self._signal(user, signal.SIGSTOP)
            loop = asyncio.get_running_loop()
            hang = min(self._rng.uniform(0.2, 7.0), self._until - loop.time())
            await asyncio.sleep(hang)
            await self._signal(user, signal.SIGCONT)

    async def _signal(self, user: Resident, number: signal.Signals) -> None:
        for pid in await asyncio.to_thread(self._matrix.machine_processes, user.name):
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue

    async def _block(self, user: Resident) -> None:
        with self._troubles.of(user.id, "blocked"):
            await self._enter(user, "blocked")
            await asyncio.sleep(self._rng.uniform(0.2, 2.0))
            await self._enter(user, "active")

    async def _enter(self, user: Resident, state: str) -> None:
        statement = "UPDATE users SET state = %s WHERE id = %s"
        await asyncio.to_thread(self._matrix.sql, statement, state, user.id)

    async def _hang_up(self, _: Resident) -> None:
        """The log is moved away, and the router told."""
        self._troubles.count["SIGHUP"] += 1
        log = self._matrix.state / "access.log"
        try:
            log.rename(log.with_name(f"access.log.{self._troubles.count['SIGHUP']}"))
        except FileNotFoundError:
            return  # the one before is not carried out yet
        os.kill(self._matrix.pid, signal.SIGHUP)
