"""What wakes and rests share: the directory, the provider, and how a machine's row is changed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol, TypeVar

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from matrix.auth import MachineSecrets
from matrix.directory import IDirectory
from matrix.errors import Unavailable
from matrix.http import Backend, probe
from matrix.machines import (
    IProvider,
    LifecycleEvent,
    MachineGone,
    Observed,
    ProviderError,
    next_state,
)
from matrix.model import Address, Machine, MachineState, UserId
from matrix.router.knocking import Knocks
from matrix.router.leases import Leases
from matrix.router.owners import has_ended
from matrix.router.routes import Route
from matrix.router.saving import NoSaver, Saver
from matrix.router.told import Surroundings, environment

PROBE_TIMEOUT = 2.0
"""Seconds for one look whether a machine answers; one that is swapping in still gets through."""
LEASE = timedelta(seconds=60)
"""For how long a router that died keeps others from a machine it had in hand."""
SETTLED = timedelta(seconds=60)
"""For how long an address at which a machine was in use is surely still its own: to be moved it
is stopped, and copied to another host."""
HEARING = 2.0
"""Seconds for other routers to object to a suspend before anything is ended: a notification
takes a few milliseconds, but processes of a host that is overloaded wait for longer, and so do
those whose connection to PostgreSQL is being made anew. A router that was cut off for longer
wakes what it still needs. Whoever comes meanwhile does not wait for it."""
ALONE = 0.5
"""The same where there is no other router, and only the machine itself may object."""
SOON = 1.0
"""Seconds after which to try again when nothing better is known."""

MOVES = ("no-room", "host-down")
"""Why machines are moved."""

_Answer = TypeVar("_Answer")
_log = Logger()


class Row:
    """A machine's row, while a provider works on the machine and writes to it."""

    def __init__(self, fleet: Fleet, machine: Machine) -> None:
        self._fleet = fleet
        self.machine = machine
        """As it is now."""

    async def keep(self, **fields: object) -> Machine:
        """
        See L{matrix.machines.Keep}. Work that goes on keeps others away for as long again.

        @raise StaleRow: another router was faster.
        """
        fleet = self._fleet
        self.machine = await fleet.directory.change(self.machine, **fields, **fleet.claim())
        return self.machine


class Stock(Protocol):
    """Has machines ready for those who have none."""

    async def __call__(self, row: Row) -> None:
        """Give the user of a row a machine, if there is one: the row tells of it then."""


async def nothing_in_stock(row: Row) -> None:
    """A L{Stock} where none is kept."""


class Fleet:
    """The machines, as one router deals with them."""

    def __init__(
        self,
        clock: IReactorTime,
        directory: IDirectory,
        provider: IProvider,
        secrets: MachineSecrets,
        connect: Callable[[Address], Backend],
        owner: str,
        has_ended: Callable[[str], bool] = has_ended,
        around: Surroundings = Surroundings(),  # noqa: B008 -- frozen
        leases: Leases | None = None,
    ) -> None:
        """
        @param connect: makes the connections to a machine at an address.
        @param owner: names this router in leases.
        @param has_ended: whether the router of a name is known to run no more.
        @param around: what machines are told of us.
        @param leases: which machines say that they are busy.
        """
        self.clock = clock
        self.directory = directory
        self.provider = provider
        self.connect = connect
        self.owner = owner
        self.knocks = Knocks(clock)
        self.saver: Saver = NoSaver()
        """Who takes snapshots; whoever can replaces it before machines are watched."""
        self.leases = leases or Leases(directory)
        self.stock: Stock = nothing_in_stock
        """Who has machines ready; whoever does replaces it before machines are made."""
        self.hearing = HEARING
        """Seconds for other routers to object to a suspend."""
        self.moves = dict.fromkeys(MOVES, 0)
        """How many machines were moved, by cause."""
        self.moved: set[UserId] = set()
        """Those whose machines answer here, and still have another one from before a move."""
        self._has_ended = has_ended
        self._secrets = secrets
        self._around = around

    # leases

    def claim(self) -> dict[str, object]:
        """The columns that keep other routers away from a machine, for a while."""
        return {"lease_owner": self.owner, "lease_expires_at": datetime.now(UTC) + LEASE}

    def taken(self, machine: Machine) -> bool:
        """Whether another router has the machine in hand."""
        return machine.lease_owner != self.owner and self.leased(machine)

    def leased(self, machine: Machine) -> bool:
        """Whether any router has the machine in hand, this one included."""
        owner, expires = machine.lease_owner, machine.lease_expires_at
        if owner is None or expires is None or expires <= datetime.now(UTC):
            return False
        return not self._has_ended(owner)

    async def advance(self, machine: Machine, event: LifecycleEvent, **fields: object) -> Machine:
        """
        Write down what follows from an event.

        @raise StaleRow: another router was faster.
        """
        return await self.directory.change(
            machine, state=next_state(machine.state, event), **fields
        )

    async def settle(self, machine: Machine, event: LifecycleEvent, **fields: object) -> Machine:
        """As L{advance}; nobody has the machine in hand any more."""
        return await self.advance(machine, event, lease_owner=None, lease_expires_at=None, **fields)

    # machines

    def environment(self, machine: Machine) -> dict[str, str]:
        """What a machine is told at boot."""
        return environment(self._secrets, self._around, machine)

    def token(self, machine: Machine) -> str:
        """What we show to a machine's daemon."""
        return self._secrets.router_to_daemon(machine.user_id, machine.secret_epoch)

    async def reach(self, machine: Machine) -> Backend | None:
        """The connections to a machine that is said to run, if it answers there."""
        if machine.address is None or not await self._is_there(machine):
            return None
        backend = self.connect(machine.address)
        if await probe(backend, PROBE_TIMEOUT):
            return backend
        backend.close()
        return None

    async def _is_there(self, machine: Machine) -> bool:
        """Whether a machine's address is surely not another machine's by now."""
        known = (at for at in (machine.last_active_at, machine.last_wake_at) if at is not None)
        latest = max(known, default=None)
        if not self.provider.moves or (latest and datetime.now(UTC) - latest < SETTLED):
            return True
        try:
            seen: Observed = await self.provider.inspect(machine)
        except ProviderError as error:
            _log.warn("cannot look at {user}: {error}", user=machine.user_id, error=error)
            return False
        return seen.state is MachineState.RUNNING and seen.address == machine.address

    def install(self, route: Route, machine: Machine, backend: Backend) -> None:
        """Let the route's requests go to the machine through C{backend}."""
        route.row = machine
        if machine.former_machine_id is not None or machine.former_volume_id is not None:
            self.moved.add(machine.user_id)
        bearer = f"Authorization: Bearer {self.token(machine)}\r\n"
        route.identity = f"X-Matrix-User: {machine.user_id}\r\n{bearer}".encode()
        route.backend = backend

    def row(self, machine: Machine) -> Row:
        """The machine's row, to be handed to the provider."""
        return Row(self, machine)

    async def ask(self, row: Row, work: Awaitable[_Answer]) -> _Answer:
        """
        Wait for the provider; its refusals are written down and become answers.

        @param row: of the machine that it works on.
        @raise Unavailable: it refused.
        """
        try:
            return await work
        except MachineGone as error:
            await self.note_failure(row.machine, LifecycleEvent.GONE, str(error))
            raise Unavailable("The machine is lost.", reason="lost", retry_after=SOON) from error
        except ProviderError as error:
            await self.note_failure(row.machine, LifecycleEvent.FAILED, str(error))
            raise Unavailable(
                "The machine could not be started.",
                reason="provider",
                retry_after=error.retry_after or SOON,
            ) from error

    # records

    async def note_failure(self, machine: Machine, event: LifecycleEvent, reason: str) -> None:
        """Write down that a machine did not come up, and why."""
        _log.warn("{user}: {reason}", user=machine.user_id, reason=reason)
        free: dict[str, object] = {"lease_owner": None, "lease_expires_at": None}
        await self.directory.wakes.change(
            machine,
            event.value,
            "wake",
            {"reason": reason},
            state=next_state(machine.state, event),
            state_reason=reason,
            **free,
        )

    async def note_death(self, user_id: UserId, boot_id: str | None) -> None:
        """
        Write down that a machine's processes ended by themselves.

        @param boot_id: the boot that ended, as far as is known.
        """
        machine = await self.directory.machine(user_id)
        if machine is None or machine.state is not MachineState.RUNNING:
            return
        if boot_id not in (None, machine.boot_id):
            return  # it was started again already
        reason = "its processes ended by themselves"
        await self.settle(machine, LifecycleEvent.DIED, state_reason=reason)
        await self.directory.record(user_id, "died", "machine")
