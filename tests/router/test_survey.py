"""All rows beside all that there is: what is corrected, what is told of, what is left alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from matrix.directory import DirectoryUnavailable
from matrix.machines import MemoryProvider, ProviderError, Sighted
from matrix.metrics import series
from matrix.model import Machine, MachineState, Stray, UserId
from matrix.router import strays as stray_rules
from matrix.router.reconcile import Reconciler
from matrix.router.strays import Strays
from matrix.router.survey import DUTY, LEASE, MASS, Surveyor
from tests.router.world import ALICE, BOB, World, run

S = MachineState
QUARANTINE = 3600.0
LONG_AGO = timedelta(hours=1)
JUST_NOW = timedelta(minutes=1)


def user(number: int) -> UserId:
    return UserId(f"0a1b2c3d-0000-4000-9000-{number:012d}")


class SurveyCase(SynchronousTestCase):
    """A router whose provider can be surveyed."""

    def setUp(self) -> None:
        self.world = World()
        self.world.provider_twin.surveys = True
        self.fleet = self.world.fleet_twin
        self.surveyor = self.made(self.world)

    def made(self, world: World, owner: str = "") -> Surveyor:
        """One of a router's."""
        if owner:
            world.fleet.owner = owner
        reconciler = Reconciler(world.fleet, world.waker, world.routes, world.registry, idle=10.0)
        strays = Strays(world.fleet, world.registry, QUARANTINE)
        return Surveyor(world.fleet, reconciler, strays, world.registry)

    def survey(self) -> None:
        surveying = run(self.surveyor.run(0.0))
        self.world.turn()
        self.assertEqual(surveying, [None])

    def row(self, state: S, who: UserId = ALICE, **fields: object) -> Machine:
        """Somebody's row, whose machine was suspended at the provider."""
        self.world.asleep(who)
        self.world.provider_twin.calls.clear()
        [row] = run(self.world.store.change(self.world.row(who), state=state, **fields))
        assert isinstance(row, Machine)
        return row

    def see(self, **fields: Any) -> Sighted:
        """Something more at the provider."""
        values: dict[str, Any] = {
            "id": "m-other", "kind": "machine", "app": "memory", "name": "u-x", "region": "here",
            "user_id": ALICE, "ours": True, "said": "stopped", "state": S.STOPPED,
        }  # fmt: skip
        found = Sighted(**{**values, **fields})
        self.fleet.others[found.id] = found
        return found

    def strays(self) -> list[Stray]:
        [found] = run(self.world.store.strays.all())
        return list(found)

    def outcome(self) -> dict[str, float]:
        outcomes = ("done", "partial", "doubtful", "failed")
        return {
            name: count
            for name in outcomes
            if (count := self.world.registry.counter(series.SURVEYS, name).value)
        }


class RowTests(SurveyCase):
    def test_nothing_is_asked_of_a_machine_in_whose_row_nothing_is_wrong(self) -> None:
        self.row(S.SUSPENDED)
        self.world.awake(BOB)
        asked = self.world.asked("inspect")
        self.survey()
        self.assertEqual(self.world.asked("inspect"), asked)
        self.assertEqual(self.outcome(), {"done": 1})

    def test_a_row_that_is_wrong_is_corrected(self) -> None:
        for said in (S.RUNNING, S.STARTING, S.DRAINING, S.SUSPENDING, S.STOPPED, S.PROVISIONING):
            self.setUp()
            self.row(said)
            self.survey()
            self.assertEqual(self.world.row().state, S.SUSPENDED, said)
            self.assertEqual(self.world.events()[-1], ("reconciled", "router"))

    def test_a_machine_that_runs_although_it_should_sleep_is_adopted(self) -> None:
        for said in (S.SUSPENDED, S.STOPPED, S.LOST):
            self.setUp()
            self.row(said)
            self.fleet.machines[ALICE].state = S.RUNNING
            self.survey()
            self.assertEqual(self.world.row().state, S.RUNNING, said)
            self.assertIsNotNone(self.world.route().backend)
            self.assertEqual(self.world.asked("start"), 0)

    def test_one_that_is_there_is_not_lost(self) -> None:
        self.row(S.LOST)
        self.survey()
        self.assertEqual(self.world.row().state, S.SUSPENDED)

    def test_one_that_is_gone_is_lost(self) -> None:
        for said in (S.RUNNING, S.SUSPENDED, S.STOPPED, S.FAILED, S.SUSPENDING, S.PROVISIONING):
            self.setUp()
            self.row(said)
            del self.fleet.machines[ALICE]
            self.survey()
            self.assertEqual(self.world.row().state, S.LOST, said)

    def test_somebody_at_work_is_not_disturbed(self) -> None:
        until = datetime.now(UTC) + timedelta(minutes=1)
        lease = {"lease_owner": "router:0", "lease_expires_at": until}
        self.row(S.STARTING, **lease)
        self.survey()
        self.assertEqual(self.world.row().state, S.STARTING)
        del self.fleet.machines[ALICE]
        self.survey()
        self.assertEqual(self.world.row().state, S.STARTING)

    def test_what_is_being_destroyed_or_was_is_nobodys_business(self) -> None:
        for said in (S.DESTROYING, S.DESTROYED):
            self.setUp()
            self.row(said)
            del self.fleet.machines[ALICE]
            self.survey()
            self.assertEqual(self.world.row().state, said)

    def test_a_row_that_changed_since_it_was_seen_is_right(self) -> None:
        """The survey shows it as it was; the look that follows as it is."""
        self.row(S.RUNNING)

        async def woken_meanwhile(name: str, user_id: UserId) -> None:
            if name == "inspect":
                self.fleet.machines[ALICE].state = S.RUNNING
            await MemoryProvider._pass(self.world.provider_twin, name, user_id)

        self.world.provider_twin._pass = woken_meanwhile  # type: ignore[method-assign]
        self.survey()
        self.assertEqual(self.world.row().state, S.RUNNING)

    def test_a_failed_machine_that_rests_keeps_its_reason(self) -> None:
        self.row(S.FAILED, state_reason="no answer")
        self.survey()
        row = self.world.row()
        self.assertEqual((row.state, row.state_reason), (S.FAILED, "no answer"))
        self.assertEqual(self.world.asked("inspect"), 0)

    def test_a_failed_machine_that_answers_runs(self) -> None:
        self.row(S.FAILED)
        self.fleet.machines[ALICE].state = S.RUNNING
        self.survey()
        self.assertEqual(self.world.row().state, S.RUNNING)

    def test_a_failed_machine_that_runs_and_answers_nobody_is_stopped(self) -> None:
        self.row(S.FAILED, state_reason="no answer")
        self.fleet.machines[ALICE].state = S.RUNNING
        self.world.place().deaf = True
        surveying = run(self.surveyor.run(0.0))
        self.world.let_pass(3.0)
        self.assertEqual(surveying, [None])
        row = self.world.row()
        self.assertEqual(self.world.real(), S.STOPPED)
        self.assertEqual((row.state, row.state_reason), (S.FAILED, "no answer"))
        self.assertIsNone(row.lease_owner)

    def test_a_machine_on_its_way_is_left_alone_until_it_is_stuck(self) -> None:
        self.row(S.RUNNING)
        self.fleet.on_their_way[ALICE] = datetime.now(UTC) - JUST_NOW
        self.survey()
        self.assertEqual(self.world.row().state, S.RUNNING)
        self.assertEqual(self.world.asked("inspect"), 0)
        self.fleet.on_their_way[ALICE] = datetime.now(UTC) - LONG_AGO
        self.survey()
        self.assertEqual(self.world.row().state, S.SUSPENDED)
        self.assertEqual(self.world.registry.gauge(series.STUCK_MACHINES).value, 1)

    def test_a_volume_that_was_moved_with_its_machine_is_written_down(self) -> None:
        row = self.row(S.SUSPENDED, volume_id="v1")
        self.see(id="v2", kind="volume", state=None, attached=row.machine_id)
        self.survey()
        self.assertEqual(self.world.row().volume_id, "v2")
        self.assertIn(("moved", "provider"), self.world.events())
        self.assertEqual(self.strays(), [])

    def test_one_row_that_cannot_be_looked_at_does_not_end_the_pass(self) -> None:
        self.row(S.RUNNING)
        self.row(S.RUNNING, BOB)
        self.world.provider_twin.fail("inspect", ProviderError("busy"))
        self.survey()
        states = {self.world.row(who).state for who in (ALICE, BOB)}
        self.assertEqual(states, {S.RUNNING, S.SUSPENDED})


class DoubtTests(SurveyCase):
    def many(self, count: int, region: str = "here") -> None:
        for number in range(count):
            who = user(number)
            run(self.world.store.admit(who, ""))
            [row] = run(self.world.store.create_machine(who, "memory"))
            run(
                self.world.store.change(
                    row, state=S.SUSPENDED, machine_id=f"m{number}", region=region
                )
            )

    def test_of_a_region_that_does_not_answer_nothing_is_concluded(self) -> None:
        self.many(3)
        self.fleet.blind = ("here",)
        self.survey()
        self.assertEqual(self.world.row(user(0)).state, S.SUSPENDED)
        self.assertEqual(self.outcome(), {"partial": 1})
        self.fleet.blind = ()
        self.survey()
        self.assertEqual(self.world.row(user(0)).state, S.LOST)

    def test_many_do_not_vanish_at_once(self) -> None:
        self.many(MASS)
        self.survey()
        self.assertEqual(self.world.row(user(0)).state, S.SUSPENDED)
        self.assertEqual(self.outcome(), {"doubtful": 1})

    def test_a_provider_that_does_not_answer_changes_nothing(self) -> None:
        self.row(S.RUNNING)
        self.world.provider_twin.fail("survey", ProviderError("down"))
        self.survey()
        self.assertEqual(self.world.row().state, S.RUNNING)
        self.assertEqual(self.outcome(), {"failed": 1})

    def test_an_outage_of_the_directory_ends_the_pass(self) -> None:
        self.row(S.RUNNING)
        self.world.store.lose()
        self.assertIsInstance(run(self.surveyor.run(0.0))[0], DirectoryUnavailable)


class TurnTests(SurveyCase):
    def surveyed(self) -> int:
        return self.world.asked("survey")

    def test_one_router_does_it_for_all(self) -> None:
        self.row(S.SUSPENDED)
        other = self.made(self.world)
        for surveyor in (self.surveyor, other):
            run(surveyor.run(60.0))
        self.assertEqual(self.surveyed(), 1)
        self.world.let_pass(61.0, 1.0)
        run(other.run(60.0))
        self.assertEqual(self.surveyed(), 2)

    def test_not_while_another_router_is_at_it(self) -> None:
        self.row(S.SUSPENDED)
        run(self.world.store.duties.claim(f"{DUTY} memory", "router:0", LEASE))
        self.survey()
        self.assertEqual(self.surveyed(), 0)
        self.world.let_pass(LEASE + 1, 1.0)
        self.survey()
        self.assertEqual(self.surveyed(), 1)

    def test_who_lost_the_turn_stops(self) -> None:
        self.row(S.RUNNING)
        self.world.provider_twin.delays["survey"] = LEASE + 1
        result = run(self.surveyor.run(0.0))
        self.world.let_pass(LEASE + 0.5, 0.5)
        run(self.world.store.duties.claim(f"{DUTY} memory", "router:0", LEASE))
        self.world.let_pass(1.0)
        self.assertEqual(result, [None])
        self.assertEqual(self.world.row().state, S.RUNNING)
        self.assertEqual(self.outcome(), {"failed": 1})

    def test_a_router_that_stops_lets_others_begin_at_once(self) -> None:
        self.row(S.RUNNING)
        self.surveyor.stop()
        self.survey()
        self.assertEqual(self.world.row().state, S.RUNNING)
        self.surveyor = self.made(self.world, "router:2")
        self.survey()
        self.assertEqual(self.world.row().state, S.SUSPENDED)


class StrayTests(SurveyCase):
    def setUp(self) -> None:
        super().setUp()
        self.now = datetime.fromtimestamp(self.world.clock.seconds(), UTC)
        outer = self

        class Clockwork(datetime):
            """The test's time: that of the twin which notes when strays were seen."""

            @classmethod
            def now(cls, tz: Any = None) -> Any:
                return datetime.fromtimestamp(outer.world.clock.seconds(), tz)

        self.patch(stray_rules, "datetime", Clockwork)

    def reasons(self) -> dict[str, str]:
        return {stray.id: stray.reason for stray in self.strays()}

    def test_why_something_is_astray(self) -> None:
        row = self.row(S.SUSPENDED, volume_id="v1")
        self.see(id="m-double")
        self.see(id="m-nobody", user_id=BOB)
        self.see(id="m-foreign", user_id=None, ours=False)
        self.see(id="v1", kind="volume", state=None)
        self.see(id="v-double", kind="volume", state=None)
        self.see(id="v-held", kind="volume", state=None, attached="m-double")
        self.survey()
        self.assertEqual(
            self.reasons(),
            {
                "m-double": f"the user has machine {row.machine_id}",
                "m-nobody": "no user has it, nor is it in stock",
                "m-foreign": "Matrix did not make it",
                "v-double": "the user has volume v1",
            },
        )
        self.assertIn(("stray", "router"), self.world.events())
        self.assertEqual(self.world.registry.gauge(series.STRAYS, "machine").value, 3)
        self.assertEqual(self.world.registry.gauge(series.STRAYS, "volume").value, 1)

    def test_each_is_told_of_once(self) -> None:
        self.row(S.SUSPENDED)
        self.see()
        self.survey()
        self.world.let_pass(60, 1.0)
        self.survey()
        self.assertEqual(self.world.events().count(("stray", "router")), 1)

    def test_what_is_astray_no_more_is_forgotten(self) -> None:
        self.row(S.SUSPENDED)
        self.see()
        self.survey()
        self.fleet.others.clear()
        self.survey()
        self.assertEqual(self.strays(), [])
        self.assertEqual(self.world.registry.gauge(series.STRAYS, "machine").value, 0)

    def test_a_destroyed_users_machine_is_astray(self) -> None:
        row = self.row(S.DESTROYED)
        self.see(id=str(row.machine_id))
        self.survey()
        self.assertEqual(self.reasons(), {row.machine_id: "the user's machine was destroyed"})

    def test_a_machine_that_a_row_wants_is_adopted(self) -> None:
        for said in (S.PROVISIONING, S.FAILED, S.LOST):
            self.setUp()
            self.row(said, machine_id="m-gone" if said is S.LOST else None)
            machine = self.fleet.machines[ALICE]
            self.survey()
            row = self.world.row()
            self.assertEqual(row.machine_id, machine.machine_id, said)
            self.assertEqual(row.state, S.STOPPED)
            self.assertIsNone(row.lease_owner)
            self.assertIn(("adopted", "router"), self.world.events())
            self.assertEqual((self.strays(), self.fleet.made), ([], 1))
            self.survey()
            self.assertEqual(self.world.row().state, S.SUSPENDED, "as it really is")

    def test_not_while_somebody_makes_one(self) -> None:
        until = datetime.now(UTC) + timedelta(hours=1)
        self.row(S.PROVISIONING, machine_id=None, lease_owner="router:0", lease_expires_at=until)
        self.survey()
        self.assertIsNone(self.world.row().machine_id)
        self.assertEqual(self.strays(), [])

    def test_a_volume_that_a_making_left_is_not_astray(self) -> None:
        self.row(S.FAILED, machine_id=None, provision_step="begun 1")
        self.fleet.machines.clear()
        self.see(id="v1", kind="volume", state=None)
        self.survey()
        self.assertEqual(self.strays(), [])

    def test_what_is_in_stock_or_was_before_it_was_its_users_is_not_astray(self) -> None:
        [place] = run(self.world.store.stock.begin("memory", 1, "a digest", "router:1"))
        assert isinstance(place, Machine)
        self.see(id="m-stock", user_id=place.user_id)
        self.row(S.SUSPENDED, volume_id="v-claimed")
        self.see(id="v-claimed", kind="volume", state=None, user_id=user(7))
        self.survey()
        self.assertEqual(self.strays(), [])

    def test_while_a_machine_is_moved_nothing_of_its_users_is_astray_or_adopted(self) -> None:
        self.row(S.PROVISIONING, machine_id=None, former_machine_id="m-former")
        self.see(id="m-former")
        self.see(id="m-new")
        self.survey()
        self.assertEqual(self.strays(), [])
        self.assertIsNone(self.world.row().machine_id)

    # the quarantine

    def seen_for(self, seconds: float) -> None:
        self.survey()
        self.world.let_pass(seconds, 60.0)
        self.survey()

    def test_what_we_made_is_deleted_after_the_quarantine(self) -> None:
        self.row(S.SUSPENDED)
        self.see()
        self.see(id="v9", kind="volume", state=None, user_id=BOB)
        self.seen_for(QUARANTINE - 120)
        self.assertEqual(len(self.fleet.others), 2)
        self.seen_for(240)
        self.assertEqual((self.fleet.others, self.strays()), ({}, []))
        self.assertEqual(self.world.asked("discard"), 2)
        self.assertEqual(self.world.events()[-1], ("reaped", "router"))
        self.assertIsNone(self.world.row().lease_owner)

    def test_what_others_made_never_is(self) -> None:
        self.see(user_id=None, ours=False)
        self.seen_for(QUARANTINE + 120)
        self.assertEqual(self.world.asked("discard"), 0)
        self.assertEqual(len(self.strays()), 1)

    def test_nor_anything_without_a_quarantine(self) -> None:
        self.surveyor._strays._quarantine = timedelta(0)
        self.row(S.SUSPENDED)
        self.see()
        self.seen_for(QUARANTINE + 120)
        self.assertEqual(self.world.asked("discard"), 0)

    def test_nor_what_somebody_has_in_hand(self) -> None:
        until = datetime.now(UTC) + timedelta(hours=3)
        self.row(S.SUSPENDED, lease_owner="router:0", lease_expires_at=until)
        self.see()
        self.seen_for(QUARANTINE + 120)
        self.assertEqual(self.world.asked("discard"), 0)
        self.assertEqual(self.world.row().lease_owner, "router:0")

    def test_one_that_cannot_be_deleted_is_tried_again(self) -> None:
        self.row(S.SUSPENDED)
        self.see()
        self.world.provider_twin.fail("discard", ProviderError("not now"))
        self.seen_for(QUARANTINE + 120)
        self.assertEqual(len(self.strays()), 1)
        self.assertIsNone(self.world.row().lease_owner)
        self.survey()
        self.assertEqual(self.strays(), [])

    def test_one_that_its_user_has_come_to_want_is_not_deleted(self) -> None:
        self.row(S.SUSPENDED)
        stray = self.see(id="m9")
        self.seen_for(QUARANTINE - 60)
        noted = replace(self.strays()[0])
        run(self.world.store.change(self.world.row(), machine_id=stray.id))
        run(self.surveyor._strays._reap(noted))
        self.assertEqual(self.world.asked("discard"), 0)
