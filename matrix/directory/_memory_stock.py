"""The stock of the directory's in-memory twin."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from uuid import uuid4

from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from matrix.directory._stock import KEPT, LEASE, OLD, check_kept
from matrix.directory._stock_interface import IStock
from matrix.directory.interfaces import StaleRow
from matrix.model import Machine, MachineState, UserId


@dataclass
class _Place:
    machine: Machine
    made_of: str
    made_at: float
    leased_until: float
    ready: bool = False


@implementer(IStock)
class MemoryStock:
    """A stock in a dictionary. Made by L{matrix.directory.MemoryDirectory}."""

    def __init__(
        self,
        clock: IReactorTime,
        reach: Callable[[], None],
        check: Callable[[Machine], object],
        change: Callable[[Machine, Mapping[str, object]], Machine],
    ) -> None:
        """
        @param reach: called first in each awaitable method; raises while there is an outage.
        @param check: raises L{StaleRow} if a user's row is not as it was.
        @param change: changes it, if it is.
        """
        self._clock = clock
        self._reach = reach
        self._check = check
        self._change = change
        self._places: dict[tuple[str, int], _Place] = {}

    async def begin(self, provider: str, size: int, made_of: str, owner: str) -> Machine | None:
        """See L{IStock.begin}."""
        self._reach()
        for number, place in self._of(provider).items():
            good = number <= size and place.made_of == made_of
            if good and not place.ready and self._is_free(place):
                return self._lease(place)
        for number in range(1, size + 1):
            if (provider, number) not in self._places:
                machine = Machine(UserId(str(uuid4())), provider, MachineState.PROVISIONING, 1)
                place = _Place(machine, made_of, self._clock.seconds(), self._until())
                self._places[provider, number] = place
                return machine
        return None

    async def surplus(self, provider: str, size: int, made_of: str, owner: str) -> Machine | None:
        """See L{IStock.surplus}."""
        self._reach()
        old = self._clock.seconds() - OLD.total_seconds()
        for number, place in self._of(provider).items():
            needless = number > size or (place.made_of != made_of and place.made_at < old)
            if needless and self._is_free(place):
                place.ready = False
                return self._lease(place)
        return None

    async def change(self, place: Machine, **fields: object) -> Machine:
        """See L{IStock.change}."""
        self._reach()
        check_kept(fields)
        found = self._found(place)
        changed = replace(found.machine, **fields)  # type: ignore[arg-type]
        found.machine = changed
        return self._lease(found)

    async def ready(self, place: Machine) -> None:
        """See L{IStock.ready}."""
        self._reach()
        found = self._found(place)
        found.ready, found.leased_until = True, 0.0
        found.made_at = self._clock.seconds()
        found.machine = replace(found.machine, generation=found.machine.generation + 1)

    async def drop(self, place: Machine) -> None:
        """See L{IStock.drop}."""
        self._reach()
        self._forget(self._found(place))

    async def claim(self, machine: Machine, made_of: str, step: str) -> Machine | None:
        """See L{IStock.claim}."""
        self._reach()
        places = self._of(machine.provider).values()
        ready = [one for one in places if one.ready and one.made_of == made_of]
        if not ready:
            self._check(machine)
            return None
        place = min(ready, key=lambda one: one.made_at)
        known = {name: getattr(place.machine, name) for name in KEPT}
        changed = self._change(machine, known | {"provision_step": step})
        self._forget(place)
        return changed

    async def places(self, provider: str) -> Sequence[Machine]:
        """See L{IStock.places}."""
        self._reach()
        return [place.machine for place in self._of(provider).values()]

    async def count(self, provider: str, made_of: str) -> int:
        """See L{IStock.count}."""
        self._reach()
        return sum(one.ready and one.made_of == made_of for one in self._of(provider).values())

    def _of(self, provider: str) -> Mapping[int, _Place]:
        """A provider's places by number, in order."""
        found = {number: one for (whose, number), one in self._places.items() if whose == provider}
        return dict(sorted(found.items()))

    def _until(self) -> float:
        return self._clock.seconds() + LEASE.total_seconds()

    def _is_free(self, place: _Place) -> bool:
        return place.leased_until <= self._clock.seconds()

    def _lease(self, place: _Place) -> Machine:
        place.leased_until = self._until()
        place.machine = replace(place.machine, generation=place.machine.generation + 1)
        return place.machine

    def _found(self, machine: Machine) -> _Place:
        for place in self._places.values():
            known = place.machine
            if (known.user_id, known.generation) == (machine.user_id, machine.generation):
                return place
        raise StaleRow(f"the place {machine.user_id} in stock is another router's by now")

    def _forget(self, place: _Place) -> None:
        self._places = {key: one for key, one in self._places.items() if one is not place}
