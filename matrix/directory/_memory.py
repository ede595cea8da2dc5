"""The directory's in-memory twin: for tests of everything that needs a directory."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from matrix.directory._lives import STATE_EVENTS
from matrix.directory._memory_awake import MemoryAwake
from matrix.directory._memory_busy import MemoryBusy
from matrix.directory._memory_housekeeping import (
    MemoryDuties,
    MemoryPaces,
    MemoryRoll,
    MemoryStrays,
)
from matrix.directory._memory_sessions import MemorySessions
from matrix.directory._memory_sign_ins import MemorySignIns
from matrix.directory._memory_snapshots import MemorySnapshots
from matrix.directory._memory_stock import MemoryStock
from matrix.directory._memory_tickets import MemoryTickets
from matrix.directory._memory_upkeep import MemoryUpkeep
from matrix.directory._memory_wakes import MemoryWakes
from matrix.directory._rows import check_changes
from matrix.directory._watchers import Watchers
from matrix.directory.interfaces import (
    DirectoryUnavailable,
    IDirectory,
    StaleRow,
    UnknownUser,
    Watcher,
)
from matrix.model import (
    AccessChange,
    Busy,
    Event,
    Machine,
    MachineState,
    Principal,
    User,
    UserId,
    UserState,
)
from matrix.model import user_id as parse_user_id


@implementer(IDirectory)
class MemoryDirectory:
    """
    A directory that forgets everything.

    What a database does of itself is done here by methods of the test's: L{lose} and
    L{recover} for its outages, L{put_user} and L{drop_machine} for what operators do to it.
    """

    def __init__(self, clock: IReactorTime) -> None:
        """
        @param clock: tells the time of events, as unix seconds.
        """
        self._clock = clock
        self._users: dict[UserId, User] = {}
        self._machines: dict[UserId, Machine] = {}
        self._events: list[Event] = []
        self._watchers: Watchers[UserId] = Watchers()
        self.sessions = MemorySessions(clock, self._reach, self._record)
        self.awake = MemoryAwake(clock, self._reach, self._look)
        self.sign_ins = MemorySignIns(clock, self._reach)
        self.sessions.watchers.add(self.sign_ins.changed)
        self.snapshots = MemorySnapshots(clock, self._reach, self._users)
        self.tickets = MemoryTickets(clock, self._reach, self._may_enter)
        self.roll = MemoryRoll(clock, self._reach, self._users, self._machines)
        self.strays = MemoryStrays(clock, self._reach)
        self.duties = MemoryDuties(clock, self._reach)
        self.paces = MemoryPaces(clock, self._reach)
        self.upkeep = MemoryUpkeep(clock, self._reach)
        self.wakes = MemoryWakes(clock, self)
        self.busy = MemoryBusy(clock, self._reach, self._is_active, self._note_busy)
        self.stock = MemoryStock(clock, self._reach, self._present, self._changed)
        self._lost_at: float | None = None
        self.calls = 0
        """How many awaitable methods were called: what must stay still on the warm path."""

    def lose(self) -> None:
        """The database goes away: calls fail, changes go unnoticed."""
        self._lost_at = self._clock.seconds()

    def recover(self) -> None:
        """The database is back; watchers hear that they may have missed something."""
        self._lost_at = None
        self._watchers.tell(None)
        self.sessions.watchers.tell(None)

    def put_user(self, user: User) -> None:
        """Write a user's row as an operator would: block, delete, set the idle timeout."""
        before = self._users.get(user.id)
        gone = user.state is UserState.DELETED
        if before is not None and gone is not (before.state is UserState.DELETED):
            self.upkeep.deleted(user.id, gone)
        self._users[user.id] = user
        if before and before.state != user.state:  # first, as PostgreSQL's triggers by their name
            self.sessions.watchers.tell(AccessChange(user_id=user.id, state=user.state))
        moved = before and (before.state, before.idle_timeout) != (user.state, user.idle_timeout)
        if moved:
            self._watchers.tell(user.id)

    def drop_machine(self, user_id: UserId) -> None:
        """Delete a machine's row."""
        if before := self._machines.pop(user_id, None):
            self.awake.changed(before, None)
            self._watchers.tell(user_id)

    async def user(self, user_id: UserId) -> User | None:
        """See L{IDirectory.user}."""
        self._reach()
        return self._users.get(user_id)

    async def admit(self, user_id: UserId, email: str) -> User:
        """See L{IDirectory.admit}."""
        self._reach()
        user = self._users.get(user_id) or User(user_id, email)
        self._users[user_id] = replace(user, email=email or user.email)
        return self._users[user_id]

    async def find_user(self, text: str) -> User | None:
        """See L{IDirectory.find_user}."""
        self._reach()
        try:
            return self._users.get(parse_user_id(text))
        except ValueError:
            wanted = text.lower()
        found = [
            user
            for user in self._users.values()
            if wanted in (user.email.lower(), user.email.lower().partition("@")[0])
        ]
        return found[0] if wanted and len(found) == 1 else None

    async def set_user_state(
        self, user_id: UserId, state: UserState, cause: str = "operator"
    ) -> User:
        """See L{IDirectory.set_user_state}."""
        self._reach()
        before = self._require(user_id)
        self.put_user(replace(before, state=state))
        if before.state is not state:
            self._record(user_id, STATE_EVENTS[state], cause, {"was": before.state.value})
        return self._users[user_id]

    async def not_active(self, user_ids: Collection[UserId]) -> Mapping[UserId, UserState]:
        """See L{IDirectory.not_active}."""
        self._reach()
        found = [self._users[one] for one in set(user_ids) if one in self._users]
        return {user.id: user.state for user in found if user.state is not UserState.ACTIVE}

    async def machine(self, user_id: UserId) -> Machine | None:
        """See L{IDirectory.machine}."""
        self._reach()
        return self._machines.get(user_id)

    async def machines(self, after: UserId | None = None, limit: int = 1000) -> Sequence[Machine]:
        """See L{IDirectory.machines}."""
        self._reach()
        later = sorted(user_id for user_id in self._machines if after is None or user_id > after)
        return [self._machines[user_id] for user_id in later[:limit]]

    async def create_machine(self, user_id: UserId, provider: str) -> Machine:
        """See L{IDirectory.create_machine}."""
        self._reach()
        self._require(user_id)
        if user_id not in self._machines:
            self._write(Machine(user_id, provider, MachineState.PROVISIONING, generation=1))
            self.upkeep.begin(user_id)
        return self._machines[user_id]

    async def change(self, machine: Machine, **fields: object) -> Machine:
        """See L{IDirectory.change}."""
        self._reach()
        check_changes(fields)
        return self._changed(machine, fields)

    async def touch(self, last_active: Mapping[UserId, float]) -> None:
        """See L{IDirectory.touch}."""
        self._reach()
        for user_id, seconds in last_active.items():
            machine = self._machines.get(user_id)
            at = datetime.fromtimestamp(seconds, UTC)
            if machine is None or machine.state is MachineState.DRAINING:
                continue
            if machine.last_active_at is None or machine.last_active_at < at:
                self._machines[user_id] = replace(machine, last_active_at=at)

    async def record(
        self, user_id: UserId, kind: str, cause: str, detail: Mapping[str, object] | None = None
    ) -> None:
        """See L{IDirectory.record}."""
        self._reach()
        self._require(user_id)
        # Through JSON and back, so that what the database could not hold fails here too.
        self._record(user_id, kind, cause, json.loads(json.dumps(detail or {})))

    async def events(self, user_id: UserId, limit: int = 50) -> Sequence[Event]:
        """See L{IDirectory.events}."""
        self._reach()
        return [event for event in reversed(self._events) if event.user_id == user_id][:limit]

    def watch(self, changed: Watcher) -> None:
        """See L{IDirectory.watch}."""
        self._watchers.add(changed)

    def stale_since(self) -> float | None:
        """See L{IDirectory.stale_since}."""
        return self._lost_at

    def _may_enter(self, principal: Principal) -> bool:
        user = self._users.get(principal.user_id)
        active = user is None or user.state is UserState.ACTIVE
        return active and not self.sessions.is_revoked(principal.session_id)

    def _is_active(self, user_id: UserId) -> bool:
        user = self._users.get(user_id)
        return user is not None and user.state is UserState.ACTIVE

    def _note_busy(self, busy: Busy, seconds: float, earliest: datetime) -> None:
        machine = self._machines.get(busy.user_id)
        if machine is not None and _may_be_put_to_sleep(machine):
            used = [at for at in (machine.last_active_at, machine.last_wake_at) if at is not None]
            if not used or max(used) > earliest:
                self._write(replace(machine, generation=machine.generation + 1))
        self._record(busy.user_id, "busy", busy.reason, {"seconds": seconds})

    def _present(self, machine: Machine) -> Machine:
        """The row as it is. @raise StaleRow: it is not as it was read."""
        present = self._machines.get(machine.user_id)
        if present is None or present.generation != machine.generation:
            raise StaleRow(f"the machine of {machine.user_id} changed since it was read")
        return present

    def _changed(self, machine: Machine, fields: Mapping[str, object]) -> Machine:
        present = self._present(machine)
        changed = replace(present, generation=present.generation + 1, **fields)  # type: ignore[arg-type]
        self._write(changed)
        return changed

    def _write(self, machine: Machine) -> None:
        self.awake.changed(self._machines.get(machine.user_id), machine)
        self._machines[machine.user_id] = machine
        self._watchers.tell(machine.user_id)

    def _look(self, user_id: UserId) -> tuple[User | None, Machine | None]:
        return self._users.get(user_id), self._machines.get(user_id)

    def _record(self, user_id: UserId, kind: str, cause: str, detail: Mapping[str, object]) -> None:
        if user_id in self._users:
            at = datetime.fromtimestamp(self._clock.seconds(), UTC)
            self._events.append(Event(user_id, at, kind, cause, detail))

    def _reach(self) -> None:
        self.calls += 1
        if self._lost_at is not None:
            raise DirectoryUnavailable("the in-memory directory was told to be unreachable")

    def _require(self, user_id: UserId) -> User:
        if user_id not in self._users:
            raise UnknownUser(f"there is no user {user_id}: admit them first")
        return self._users[user_id]


def _may_be_put_to_sleep(machine: Machine) -> bool:
    """Whether that may be under way, or about to be, for want of use."""
    return machine.state is MachineState.RUNNING or (
        machine.state is MachineState.DRAINING and machine.suspend_cause == "idle"
    )
