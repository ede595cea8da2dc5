"""After a move: the former machine and its data are deleted, once the new one answers."""

from __future__ import annotations

from twisted.logger import Logger

from matrix.directory import StaleRow
from matrix.machines import ProviderError
from matrix.model import Machine, UserId
from matrix.router.fleet import Fleet

INTERVAL = 10.0
"""Seconds between two looks: what is left over costs little, and a copy takes minutes."""

_log = Logger()


class Settling:
    """Does it for the machines that answered to this process."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    async def run(self) -> None:
        """Try each once; what cannot be done yet is tried again at the next run."""
        for user_id in list(self._fleet.moved):
            try:
                if await self._settle(user_id):
                    self._fleet.moved.discard(user_id)
            except StaleRow:
                _log.debug("{user} changed meanwhile: again later", user=user_id)
            except ProviderError as error:
                _log.warn(
                    "what {user} had before a move is not deleted yet: {error}",
                    user=user_id, error=error,
                )  # fmt: skip

    async def _settle(self, user_id: UserId) -> bool:
        """Whether there is nothing left to be done, by us at least."""
        row = await self._fleet.directory.machine(user_id)
        if row is None or row.on_trial:
            return True  # it was moved once more: whoever sees that one answer settles it
        directory = self._fleet.directory

        async def keep(**fields: object) -> Machine:
            nonlocal row  # nobody is kept away: the machine is in use
            assert row is not None
            row = await directory.change(row, **fields)
            return row

        done: bool = await self._fleet.provider.confirm(row, keep)
        return done
