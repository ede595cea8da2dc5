"""Machines in stock: made before anybody asks for them, so that who comes first need not wait
until a machine is made."""

from __future__ import annotations

from dataclasses import dataclass, field

from twisted.logger import Logger

from matrix.directory import StaleRow
from matrix.directory.interfaces import IDirectory
from matrix.machines import IStocking, ProviderError
from matrix.model import Machine
from matrix.router.fleet import Fleet, Row

INTERVAL = 10.0
"""Seconds between two looks whether a machine is missing in stock."""

PAUSE = 60.0
"""Seconds without another attempt after one that failed: nobody waits, and others need Fly."""

_log = Logger()


@dataclass
class Place:
    """A place in stock while a provider works on its machine and writes to its row."""

    directory: IDirectory
    machine: Machine = field()
    """As it is now."""

    async def keep(self, **fields: object) -> Machine:
        """
        See L{matrix.machines.Keep}.

        @raise StaleRow: another router took it up meanwhile.
        """
        self.machine = await self.directory.stock.change(self.machine, **fields)
        return self.machine


class Stocking:
    """Fills the stock, all routers together, and gives from it; a L{matrix.router.fleet.Stock}."""

    def __init__(self, fleet: Fleet, provider: IStocking, size: int) -> None:
        """@param size: how many machines there are to be."""
        self._fleet = fleet
        self._directory = fleet.directory
        self._provider = provider
        self._name: str = fleet.provider.name
        self._size = size
        self._not_before = 0.0
        self.ready = 0
        """How many machines there were at the last look."""
        self.given = 0
        """How many users got one here."""

    async def __call__(self, row: Row) -> None:
        """
        Give the user of a row a machine, if one is ready.

        @raise StaleRow: another router was faster.
        """
        if self._size == 0:
            return
        provider = self._provider
        claimed = await self._directory.stock.claim(row.machine, provider.made_of, provider.claimed)
        if claimed is not None:
            row.machine = claimed
            self.given += 1

    async def fill(self) -> None:
        """Make what is missing and take away what is too much, one machine after the other."""
        clock = self._fleet.clock
        try:
            while clock.seconds() >= self._not_before and await self._step():
                pass
        except StaleRow:
            _log.debug("another router took up what we had begun in stock")
        except ProviderError as error:
            self._not_before = clock.seconds() + PAUSE
            _log.warn("the stock of machines is not filled for now: {error}", error=error)
        self.ready = await self._directory.stock.count(self._name, self._provider.made_of)

    async def _step(self) -> bool:
        """Whether there was something to be done, and it is."""
        stock, provider = self._directory.stock, self._provider
        asked = (self._name, self._size, provider.made_of, self._fleet.owner)
        needless = await stock.surplus(*asked)
        if needless is not None:
            await provider.clear_out(needless)
            await stock.drop(needless)
            return True
        begun = await stock.begin(*asked)
        if begun is None:
            return False
        place = Place(self._directory, begun)
        await provider.stock_up(begun, place.keep)
        await stock.ready(place.machine)
        return True
