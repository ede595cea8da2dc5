"""An emulator that was killed, and started again: nothing is lost, nothing happens twice."""

from __future__ import annotations

from matrix.errors import ConfigurationError
from matrix.testing.fly.case import FlyCase

ONE = "/apps/users/machines"


class AgainTests(FlyCase):
    def test_what_runs_runs_on(self) -> None:
        machine = self.started(name="mine")
        before = self.get(machine)
        self.again()
        self.assertEqual(self.get(machine), before)
        self.assertEqual(len(self.programs.boots), 1)
        self.assertNotEqual(self.created(), machine)

    def test_each_step_is_taken_all_the_same(self) -> None:
        created = self.created()
        self.clock.advance(1.0)
        self.again()
        self.clock.advance(1.01)
        self.assertEqual(self.state(created), "starting")
        self.again()
        self.pass_time()
        self.assertEqual(self.state(created), "started")
        for what, state in (("suspend", "suspended"), ("start", "started"), ("stop", "stopped")):
            self.power(created, what)
            self.again()
            self.pass_time()
            self.assertEqual(self.state(created), state)
        self.assertEqual(len(self.programs.boots), 1)
        self.ok("DELETE", f"{ONE}/{created}")
        self.again()
        self.clock.advance(0.51)
        self.assertEqual(self.state(created), "destroyed")

    def test_what_was_booted_is_not_booted_again(self) -> None:
        machine = self.started()
        self.power(machine, "stop")
        self.pass_time()
        self.power(machine, "start")
        self.programs.alive[machine] = self.programs.boots[-1]  # killed before it wrote that down
        self.again()
        self.assertEqual(self.state(machine), "started")
        self.pass_time()
        self.assertEqual(len(self.programs.boots), 1)

    def test_one_that_stands_still_was_not_booted(self) -> None:
        machine = self.started()
        self.power(machine, "stop")
        self.pass_time()
        self.power(machine, "start")
        self.programs.alive[machine] = self.programs.boots[-1]
        self.programs.frozen.add(machine)
        self.again()
        self.assertEqual(self.state(machine), "starting")
        self.pass_time()
        self.assertEqual((self.state(machine), len(self.programs.boots)), ("started", 2))

    def test_those_who_waited_wait_on_with_the_next_one(self) -> None:
        machine = self.created()
        self.again()
        waiting = self.begin("GET", f"{ONE}/{machine}/wait")
        self.pass_time()
        self.assertEqual(self.successResultOf(waiting).status, 200)

    def test_a_program_that_died_meanwhile(self) -> None:
        runs, stands = self.started(), self.suspended()
        for machine in (runs, stands):
            self.programs.alive.pop(machine)
        self.again()
        self.assertEqual((self.state(runs), self.state(stands)), ("restarting", "suspended"))
        self.pass_time()
        self.assertEqual(self.state(runs), "started")
        self.power(stands, "start")
        self.pass_time()
        self.assertEqual(len(self.programs.boots), 4)

    def test_a_program_that_should_not_run(self) -> None:
        machine = self.started()
        boot = self.programs.alive[machine]
        self.power(machine, "stop", {})
        self.pass_time()
        self.programs.alive[machine] = boot
        self.again()
        self.assertNotIn(machine, self.programs.alive)

    def test_what_was_destroyed_long_ago_is_forgotten(self) -> None:
        machine = self.stopped()
        self.ok("DELETE", f"{ONE}/{machine}")
        self.pass_time()
        self.again()
        self.assertEqual(len(self.ok("GET", ONE, query={"include_deleted": "true"})), 1)
        self.clock.advance(86400)
        self.again()
        self.assertEqual(self.ok("GET", ONE, query={"include_deleted": "true"}), [])

    def test_a_state_of_another_version_is_refused_with_its_place(self) -> None:
        machine = self.parts.world.machines[self.created()]
        vars(machine)["unknown"] = 1
        self.parts.world.store.save(machine)
        self.parts.close()
        error = self.assertRaises(ConfigurationError, self.made)
        self.assertIn(f"machines {machine.id}", str(error))

    def test_volumes_leases_and_snapshots(self) -> None:
        volume = self.ok("POST", "/apps/users/volumes", {"name": "d", "region": "fra"})["id"]
        self.ok("POST", f"/apps/users/volumes/{volume}/snapshots")
        machine = self.started()
        lease = self.ok("POST", f"{ONE}/{machine}/lease", {"ttl": 60}, status=201)
        self.again()
        self.pass_time()
        self.assertEqual(self.ok("GET", f"/apps/users/volumes/{volume}")["state"], "created")
        (snapshot,) = self.ok("GET", f"/apps/users/volumes/{volume}/snapshots")
        self.assertEqual(snapshot["status"], "created")
        self.assertEqual(self.ok("GET", f"{ONE}/{machine}/lease")["data"], lease["data"])
