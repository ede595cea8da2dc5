"""The contract of L{IDirectory} as tests: every implementation passes all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

from twisted.internet.defer import ensureDeferred as deferred
from twisted.internet.defer import gatherResults
from zope.interface.verify import verifyObject

from matrix.directory import IDirectory, StaleRow, UnknownUser
from matrix.model import Address, Machine, MachineState, User, UserId, UserState, user_id

if TYPE_CHECKING:
    from twisted.trial.unittest import TestCase as _Case
else:
    _Case = object

NOON = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)


def anybody() -> UserId:
    """A user id that no other test has."""
    return user_id(str(uuid4()))


class DirectoryCase(_Case):
    """
    What the contracts of a directory's parts share. C{setUp} sets L{directory} to an empty one.
    """

    directory: IDirectory

    async def drop_machine(self, user_id: UserId) -> None:
        """Delete a machine's row behind the directory's back."""
        raise NotImplementedError

    async def put_user(self, user: User) -> None:
        """Overwrite a user's row behind the directory's back, as an operator would."""
        raise NotImplementedError

    async def eventually(self, condition: Callable[[], bool]) -> None:
        """Return once C{condition} is true; fail after a while."""
        raise NotImplementedError

    async def raises(self, kind: type[Exception], call: object) -> Exception:
        """The exception of this kind that awaiting C{call} raises."""
        try:
            await call  # type: ignore[misc]
        except kind as error:
            return error
        raise self.failureException(f"{kind.__name__} was not raised")


class DirectoryContract(DirectoryCase):
    """Mix into a trial C{TestCase} that is a L{DirectoryCase}."""

    async def resident(self) -> Machine:
        """The fresh machine of a fresh user."""
        who = anybody()
        await self.directory.admit(who, f"{who}@example.org")
        return await self.directory.create_machine(who, "local")

    async def test_provides_the_interface(self) -> None:
        assert verifyObject(IDirectory, self.directory)

    # Users

    async def test_nobody_is_known_at_first(self) -> None:
        assert await self.directory.user(anybody()) is None
        assert await self.directory.machine(anybody()) is None
        assert list(await self.directory.machines()) == []
        assert self.directory.stale_since() is None

    async def test_admit_makes_an_active_user(self) -> None:
        who = anybody()
        user = await self.directory.admit(who, "Ann@example.org")
        assert user == User(who, "Ann@example.org", UserState.ACTIVE, None)
        assert await self.directory.user(who) == user

    async def test_admit_keeps_what_an_operator_set(self) -> None:
        who = anybody()
        blocked = User(who, "bob@example.org", UserState.BLOCKED, 42.5)
        await self.directory.admit(who, "bob@example.org")
        await self.put_user(blocked)
        assert await self.directory.admit(who, "bob@example.org") == blocked

    async def test_admit_follows_a_new_address_but_not_an_empty_one(self) -> None:
        who = anybody()
        await self.directory.admit(who, "old@example.org")
        assert (await self.directory.admit(who, "")).email == "old@example.org"
        assert (await self.directory.admit(who, "new@example.org")).email == "new@example.org"
        user = await self.directory.user(who)
        assert user is not None
        assert user.email == "new@example.org"

    async def test_many_admissions_at_once_make_one_user(self) -> None:
        who = anybody()
        calls = [deferred(self.directory.admit(who, "c@example.org")) for _ in range(20)]
        users = await gatherResults(calls, consumeErrors=True)
        assert set(users) == {User(who, "c@example.org")}

    async def test_find_user_by_id_address_and_name(self) -> None:
        user = await self.directory.admit(anybody(), "Dora.D@Example.org")
        for text in (user.id, user.id.upper(), "dora.d@example.ORG", "DORA.D"):
            assert await self.directory.find_user(text) == user, text
        for text in (anybody(), "dora", "dora.d@example", "dora_d", "%", "", "@", "@example.org"):
            assert await self.directory.find_user(text) is None, text

    async def test_find_user_prefers_nobody_to_a_guess(self) -> None:
        one = await self.directory.admit(anybody(), "eve@one.example")
        await self.directory.admit(anybody(), "eve@two.example")
        assert await self.directory.find_user("eve") is None
        assert await self.directory.find_user("eve@one.example") == one

    # Machines

    async def test_create_machine_begins_provisioning(self) -> None:
        machine = await self.resident()
        expected = Machine(machine.user_id, "local", MachineState.PROVISIONING, generation=1)
        assert machine == expected
        assert await self.directory.machine(machine.user_id) == machine

    async def test_create_machine_returns_the_one_there_is(self) -> None:
        machine = await self.resident()
        running = await self.directory.change(machine, state=MachineState.RUNNING)
        again = await self.directory.create_machine(machine.user_id, "fly")
        assert again == running

    async def test_many_creations_at_once_make_one_machine(self) -> None:
        who = anybody()
        await self.directory.admit(who, "")
        calls = [deferred(self.directory.create_machine(who, "local")) for _ in range(20)]
        machines = await gatherResults(calls, consumeErrors=True)
        assert {machine.generation for machine in machines} == {1}
        assert len(await self.directory.machines()) == 1

    async def test_create_machine_needs_a_user(self) -> None:
        who = anybody()
        error = await self.raises(UnknownUser, self.directory.create_machine(who, "local"))
        assert who in str(error)
        assert await self.directory.machine(who) is None

    async def test_change_sets_every_attribute_and_the_next_generation(self) -> None:
        machine = await self.resident()
        new: dict[str, object] = {
            "provider": "fly",
            "state": MachineState.FAILED,
            "app": "users",
            "machine_id": "m-1",
            "volume_id": "vol_1",
            "region": "fra",
            "image": "registry.example/daemon:1",
            "address": Address(host="fdaa::3", port=8080),
            "boot_id": "b-1",
            "secret_epoch": 2,
            "last_active_at": NOON,
            "last_wake_at": NOON - timedelta(seconds=90, microseconds=1),
            "wake_cause": "request",
            "suspend_cause": 'idle; it\'s "quoted" %s ☃',
            "lease_owner": "router-1",
            "lease_expires_at": NOON + timedelta(days=1),
            "state_reason": "no space left",
            "provision_step": "volume",
            "size": "shared-cpu-2x:1gb",
            "former_machine_id": "m-0",
            "former_volume_id": "v-0",
            "on_trial": True,
            "stranded_at": NOON + timedelta(hours=1),
        }
        everything = {field.name for field in fields(Machine)} - {"user_id", "generation"}
        assert set(new) == everything
        changed = await self.directory.change(machine, **new)
        assert changed == Machine(machine.user_id, generation=2, **new)  # type: ignore[arg-type]
        assert await self.directory.machine(machine.user_id) == changed

    async def test_change_leaves_the_rest_and_can_clear(self) -> None:
        machine = await self.resident()
        address = Address(path="/run/m.sock")
        one = await self.directory.change(machine, address=address, wake_cause="request")
        two = await self.directory.change(one, address=None)
        assert two.address is None
        assert (two.wake_cause, two.generation) == ("request", 3)

    async def test_every_state_can_be_kept(self) -> None:
        machine = await self.resident()
        for state in MachineState:
            machine = await self.directory.change(machine, state=state)
            assert machine.state == state

    async def test_change_on_an_old_generation_is_refused(self) -> None:
        machine = await self.resident()
        changed = await self.directory.change(machine, state=MachineState.STARTING)
        error = await self.raises(
            StaleRow, self.directory.change(machine, state=MachineState.FAILED)
        )
        assert machine.user_id in str(error)
        assert await self.directory.machine(machine.user_id) == changed

    async def test_of_many_changes_at_once_one_wins(self) -> None:
        machine = await self.resident()
        outcomes: list[str] = []

        async def claim(name: str) -> None:
            try:
                await self.directory.change(machine, lease_owner=name)
            except StaleRow:
                return
            outcomes.append(name)

        await gatherResults([deferred(claim(f"router-{n}")) for n in range(10)])
        assert len(outcomes) == 1
        row = await self.directory.machine(machine.user_id)
        assert row is not None
        assert (row.lease_owner, row.generation) == (outcomes[0], 2)

    async def test_change_of_a_vanished_row_is_refused(self) -> None:
        machine = await self.resident()
        await self.drop_machine(machine.user_id)
        await self.raises(StaleRow, self.directory.change(machine, state=MachineState.RUNNING))
        assert await self.directory.machine(machine.user_id) is None

    async def test_change_refuses_what_is_no_attribute(self) -> None:
        machine = await self.resident()
        wrong: list[dict[str, object]] = [
            {"colour": "blue"},
            {"user_id": anybody()},
            {"generation": 7},
            {"created_at": NOON},
            {"state": "running"},
            {"state": None},
            {"address": "tcp:localhost:1"},
            {"provider": None},
            {"secret_epoch": True},
            {"lease_expires_at": datetime(2026, 1, 1)},
            {"wake_cause": 5},
        ]
        for change in wrong:
            error = await self.raises(TypeError, self.directory.change(machine, **change))
            assert next(iter(change)) in str(error)
        assert await self.directory.machine(machine.user_id) == machine

    async def test_machines_come_in_pages(self) -> None:
        made = sorted([(await self.resident()).user_id for _ in range(5)])
        seen: list[UserId] = []
        while page := await self.directory.machines(seen[-1] if seen else None, limit=2):
            assert len(page) <= 2
            seen += [machine.user_id for machine in page]
        assert seen == made

    # Use

    async def test_touch_only_moves_forward_and_counts_as_no_change(self) -> None:
        one, two = await self.resident(), await self.resident()
        noon = NOON.timestamp()
        await self.directory.touch({one.user_id: noon, two.user_id: noon + 5})
        await self.directory.touch({one.user_id: noon + 0.25, two.user_id: noon, anybody(): noon})
        await self.directory.touch({})
        first = await self.directory.machine(one.user_id)
        second = await self.directory.machine(two.user_id)
        assert first is not None
        assert second is not None
        assert first.last_active_at == NOON + timedelta(seconds=0.25)
        assert second.last_active_at == NOON + timedelta(seconds=5)
        assert (first.generation, second.generation) == (1, 1)
        await self.directory.change(one, state=MachineState.RUNNING)

    async def test_who_is_being_drained_is_not_touched(self) -> None:
        machine = await self.resident()
        noon = NOON.timestamp()
        await self.directory.touch({machine.user_id: noon})
        machine = await self.directory.change(machine, state=MachineState.DRAINING)
        await self.directory.touch({machine.user_id: noon + 5})
        found = await self.directory.machine(machine.user_id)
        assert found is not None
        assert found.last_active_at == NOON
        await self.directory.change(found, state=MachineState.RUNNING)
        await self.directory.touch({machine.user_id: noon + 5})
        found = await self.directory.machine(machine.user_id)
        assert found is not None
        assert found.last_active_at == NOON + timedelta(seconds=5)

    async def test_events_come_newest_first(self) -> None:
        machine = await self.resident()
        other = await self.resident()
        who = machine.user_id
        await self.directory.record(who, "wake", "request", {"ms": 412, "of": [1, None, "☃"]})
        await self.directory.record(other.user_id, "wake", "alarm")
        for number in range(3):
            await self.directory.record(who, "suspend", f"idle {number}")
        events = await self.directory.events(who)
        assert [(event.kind, event.cause) for event in events] == [
            ("suspend", "idle 2"),
            ("suspend", "idle 1"),
            ("suspend", "idle 0"),
            ("wake", "request"),
        ]
        assert events[-1].detail == {"ms": 412, "of": [1, None, "☃"]}
        assert (events[0].detail, events[0].user_id) == ({}, who)
        assert events[0].at.utcoffset() == timedelta(0)
        assert sorted(event.at for event in events) == [e.at for e in reversed(events)]
        assert list(await self.directory.events(who, limit=2)) == list(events[:2])
        assert list(await self.directory.events(anybody())) == []

    async def test_events_need_a_user(self) -> None:
        who = anybody()
        await self.raises(UnknownUser, self.directory.record(who, "wake", "request"))
        assert list(await self.directory.events(who)) == []

    # Changes

    async def test_watchers_hear_of_machines(self) -> None:
        heard: list[UserId | None] = []
        self.directory.watch(heard.append)
        machine = await self.resident()
        await self.eventually(lambda: heard == [machine.user_id])
        await self.directory.change(machine, state=MachineState.RUNNING)
        await self.eventually(lambda: heard == [machine.user_id] * 2)
        await self.drop_machine(machine.user_id)
        await self.eventually(lambda: heard == [machine.user_id] * 3)

    async def test_watchers_hear_nothing_of_use_events_and_refusals(self) -> None:
        machine = await self.resident()
        last = await self.resident()
        changed = await self.directory.change(machine, state=MachineState.RUNNING)
        heard: list[UserId | None] = []
        await self.settle()
        self.directory.watch(heard.append)
        await self.directory.touch({machine.user_id: NOON.timestamp()})
        await self.directory.record(machine.user_id, "wake", "request")
        await self.raises(StaleRow, self.directory.change(machine, state=MachineState.LOST))
        await self.directory.create_machine(machine.user_id, "local")
        await self.directory.admit(machine.user_id, "other@example.org")
        await self.directory.change(last, state=MachineState.RUNNING)
        await self.eventually(lambda: last.user_id in heard)
        assert heard == [last.user_id]
        assert changed.generation == 2

    async def test_watchers_hear_of_blocked_users_and_new_idle_timeouts(self) -> None:
        who = anybody()
        heard: list[UserId | None] = []
        await self.directory.admit(who, "frank@example.org")
        self.directory.watch(heard.append)
        await self.put_user(User(who, "f@example.org"))
        await self.put_user(User(who, "f@example.org", UserState.BLOCKED))
        await self.eventually(lambda: heard == [who])
        await self.put_user(User(who, "f@example.org", UserState.BLOCKED, 60.0))
        await self.eventually(lambda: heard == [who, who])

    async def test_a_failing_watcher_harms_nobody(self) -> None:
        heard: list[UserId | None] = []

        def fail(_: UserId | None) -> None:
            raise RuntimeError("the watcher's own trouble")

        self.directory.watch(fail)
        self.directory.watch(heard.append)
        machine = await self.resident()
        await self.eventually(lambda: heard == [machine.user_id])
        errors = self.flushLoggedErrors(RuntimeError)  # type: ignore[no-untyped-call]
        assert len(errors) == 1

    async def settle(self) -> None:
        """Let notifications of what was done so far arrive."""
        heard: list[UserId | None] = []
        self.directory.watch(heard.append)
        marker = await self.resident()
        await self.eventually(lambda: marker.user_id in heard)
