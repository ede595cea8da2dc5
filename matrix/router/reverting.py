"""A snapshot put back onto a user's machine, in the place of the data that it has."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from matrix.directory import StaleRow, Upkeep
from matrix.errors import Conflict, Forbidden, NotFound, Unavailable
from matrix.machines import LifecycleEvent, ProviderError
from matrix.model import Machine, MachineState, Snapshot, UserId
from matrix.router.fleet import Fleet
from matrix.router.snapshots.report import Done, Outcome, Progress, Unchanged
from matrix.snapshots import Dated, Keeper, NoSuchSnapshot, ResticFailed, choose

CAUSE = "restore"
"""Of the sleep and the wake that it takes, and the kind of its event."""

OPERATOR = "operator"
"""Of the snapshot that is taken before."""

_log = Logger()


class Control(Protocol):
    """Who wakes and suspends machines: C{matrix.router.wake}."""

    async def wake(self, user_id: UserId, cause: str) -> object:
        """@raise MatrixError: it does not answer."""

    async def suspend(self, user_id: UserId, cause: str) -> object:
        """@raise MatrixError: it is in use."""


Take = Callable[[UserId, str, Callable[[Progress], None]], Awaitable[Outcome | None]]
"""Takes a snapshot of a machine that is awake (L{matrix.router.snapshots.taker.Taker})."""


@dataclass(frozen=True, slots=True)
class Wish:
    """Which snapshot is wanted, and at what price."""

    before: datetime | None = None
    """The newest at or before this time."""
    id: str | None = None
    """The one whose id begins so."""
    discard: bool = False
    """Whether what the machine has now need not be in a snapshot first."""


class Reverting:
    """
    Puts snapshots back onto machines.

    What the machine has now is put into a snapshot, and kept aside besides, until the machine
    answers with what was restored. Which snapshot is wanted is on record before anything is done:
    whoever wakes the machine after a crash at any line has it either as it was, or restored.
    """

    def __init__(
        self,
        fleet: Fleet,
        control: Control,
        take: Take | None,
        keeper: Callable[[], Keeper | None],
    ) -> None:
        """
        @param take: C{None} if there are no snapshots.
        @param keeper: who gets at repositories; gives C{None} while nobody can.
        """
        self._fleet = fleet
        self._control = control
        self._take = take
        self._keeper = keeper

    async def restore(self, user_id: UserId, wish: Wish) -> Dated:
        """
        The snapshot that the machine has, once it answers. Who waits for it may leave: it goes
        on.

        @raise MatrixError: it has not, and why.
        @raise DirectoryUnavailable: nothing can be written down now.
        """
        waiter: Deferred[Dated] = Deferred()
        working = Deferred.fromCoroutine(self._restore(user_id, wish))

        def tell(outcome: Dated | Failure) -> None:
            if not waiter.called:
                waiter.callback(outcome)
            elif isinstance(outcome, Failure):
                _log.error("{user} is not restored: {why}", user=user_id, why=outcome.value)

        working.addBoth(tell)
        return await waiter

    async def _restore(self, user_id: UserId, wish: Wish) -> Dated:
        fleet = self._fleet
        chosen = await self._chosen(user_id, wish)
        machine = await fleet.directory.machine(user_id)
        if machine is None:
            raise NotFound("this user has no machine yet", reason="machine")
        if machine.state is not MachineState.LOST:
            if not wish.discard:
                await self._save(user_id)
            await self._control.suspend(user_id, CAUSE)
            await self._begin_anew(user_id, chosen)
        else:
            await fleet.directory.upkeep.want(user_id, chosen.id)
        detail = {"snapshot": chosen.id, "of": chosen.at.isoformat()}
        await fleet.directory.record(user_id, CAUSE, OPERATOR, detail)
        await self._control.wake(user_id, CAUSE)
        await fleet.directory.upkeep.want(user_id, None)
        return chosen

    async def _chosen(self, user_id: UserId, wish: Wish) -> Dated:
        keeper = self._keeper()
        if keeper is None or self._take is None:
            raise Forbidden(
                "there are no snapshots here, or not yet: see docs/snapshots.md", reason="off"
            )
        try:
            return choose(await keeper.snapshots(user_id), wish.before, wish.id)
        except NoSuchSnapshot as error:
            raise NotFound(str(error), reason="snapshot") from None
        except ResticFailed as error:
            raise Unavailable(f"the repository cannot be read: {error}", reason="store") from None

    async def _save(self, user_id: UserId) -> None:
        """What the machine has now is in a snapshot after this."""
        assert self._take is not None  # it was seen
        await self._control.wake(user_id, CAUSE)
        outcome = await self._take(user_id, OPERATOR, lambda _: None)
        if not isinstance(outcome, Done | Unchanged):
            why = "it takes none" if outcome is None else outcome.reason
            raise Conflict(
                f"what the machine has now cannot be put into a snapshot first ({why}); "
                "--discard does without",
                reason="unsaved",
            )

    async def _begin_anew(self, user_id: UserId, chosen: Dated) -> None:
        """Have the machine's next boot find empty data, and know what is to be restored."""
        fleet = self._fleet
        machine = await fleet.directory.machine(user_id)
        if machine is None or machine.state is MachineState.RUNNING or fleet.taken(machine):
            raise _in_use()
        try:
            machine = await fleet.advance(machine, LifecycleEvent.STOP, **fleet.claim())
            await fleet.provider.stop(machine)
            await fleet.directory.upkeep.want(user_id, chosen.id)
            row = fleet.row(machine)
            environment = fleet.environment(machine)
            await fleet.provider.relocate(machine, environment, row.keep, fresh=True)
            await _let_go(fleet, row.machine)
        except StaleRow:
            raise _in_use() from None
        except ProviderError as error:
            raise Unavailable(f"the machine could not be made anew: {error}") from error
        _log.info("{user} begins anew from {id}", user=user_id, id=chosen.id)


async def _let_go(fleet: Fleet, machine: Machine) -> None:
    await fleet.directory.change(machine, lease_owner=None, lease_expires_at=None)


def _in_use() -> Conflict:
    return Conflict("somebody has just come to use the machine; try again", reason="in-use")


def still_wanted(upkeep: Upkeep, newest: Snapshot | None) -> str | None:
    """
    The snapshot that an empty machine is to begin with instead of the newest, if any: what was
    taken after it was wanted is of a machine that had it, or was never emptied.
    """
    if upkeep.wanted is None or upkeep.wanted_at is None:
        return None
    if newest is not None and newest.started_at > upkeep.wanted_at:
        return None
    return upkeep.wanted
