"""Machines of the emulated Fly: what their programs get, and what becomes of them."""

from __future__ import annotations

import signal

from zope.interface.verify import verifyClass, verifyObject

from matrix.testing.fly.case import CONFIG, FlyCase
from matrix.testing.fly.programs import IPrograms, LocalPrograms
from matrix.testing.fly.states import EDGES, SETTLED, ImpossibleChange, check_change

ONE = "/apps/users/machines"


class ProgramTests(FlyCase):
    def test_the_twin_is_one(self) -> None:
        self.assertTrue(verifyObject(IPrograms, self.programs))
        self.assertTrue(verifyClass(IPrograms, LocalPrograms))

    def test_what_it_is_started_with(self) -> None:
        volume = self.volume()
        env = {"MATRIX_USER": "alice", "FLY_REGION": "mine"}
        mounts = [{"volume": volume, "path": "/data"}]
        checks = {"up": {"type": "tcp", "port": 9000}}
        config = {"env": env, "mounts": mounts, "services": [], "checks": checks}
        machine = self.started(config=config)
        (boot,) = self.programs.boots
        self.assertEqual((boot.machine_id, boot.port), (machine, 9000))
        self.assertEqual(boot.address, self.get(machine)["private_ip"])
        self.assertEqual(boot.data, self.parts.world.store.volume(volume))
        self.assertEqual(boot.environment["MATRIX_USER"], "alice")
        self.assertEqual(boot.environment["FLY_REGION"], "mine")
        self.assertEqual(boot.environment["FLY_MACHINE_ID"], machine)
        self.assertEqual(boot.environment["FLY_APP_NAME"], "users")
        self.assertEqual(boot.environment["FLY_VM_MEMORY_MB"], "256")

    def test_each_has_an_address_of_its_own(self) -> None:
        addresses = {self.get(self.created())["private_ip"] for _ in range(20)}
        self.assertEqual(len(addresses), 20)
        self.assertTrue(all(address.startswith("127.") for address in addresses))

    def test_a_stop_as_the_config_or_the_call_says(self) -> None:
        machine = self.started(config={"stop_config": {"signal": "SIGTERM", "timeout": "30s"}})
        self.power(machine, "stop", {})
        self.pass_time()
        self.power(machine, "start")
        self.pass_time()
        self.power(machine, "stop", {"signal": "SIGQUIT", "timeout": "1500ms"})
        self.pass_time()
        other = self.started()
        self.power(other, "stop")
        self.pass_time()
        self.assertEqual(
            self.programs.endings,
            [
                (machine, signal.SIGTERM, 30.0),
                (machine, signal.SIGQUIT, 1.5),
                (other, signal.SIGINT, 5.0),
            ],
        )

    def test_start_right_after_stop_is_refused_for_a_moment(self) -> None:
        machine = self.started()
        self.power(machine, "stop", {})
        self.refused(412, "state: 'stopping'", "POST", f"{ONE}/{machine}/start")
        self.clock.advance(0.11)
        self.assertEqual(self.state(machine), "stopped")
        self.refused(412, "machine still active", "POST", f"{ONE}/{machine}/start")
        self.clock.advance(0.3)
        self.power(machine, "start")
        self.refused(409, "still attempting to start", "POST", f"{ONE}/{machine}/start")

    def test_a_start_of_what_runs(self) -> None:
        machine = self.started()
        self.assertEqual(self.power(machine, "start")["previous_state"], "started")
        self.tuning.set("start_when_started", "conflict")
        self.refused(409, "already started", "POST", f"{ONE}/{machine}/start")
        self.assertEqual(len(self.programs.boots), 1)

    def test_restart_and_signal(self) -> None:
        machine = self.started()
        self.power(machine, "signal", {"signal": "SIGUSR1"})
        self.assertEqual(self.programs.signals, [(machine, signal.SIGUSR1)])
        self.power(machine, "restart", query={"timeout": "2s", "signal": "SIGHUP"})
        self.assertEqual(self.state(machine), "restarting")
        self.pass_time()
        self.assertEqual(self.state(machine), "started")
        self.assertEqual(self.programs.endings, [(machine, signal.SIGHUP, 2.0)])
        self.assertEqual(len(self.programs.boots), 2)
        self.refused(400, "no signal 'SIGX'", "POST", f"{ONE}/{machine}/restart",
                     query={"signal": "SIGX"})  # fmt: skip

    def test_cordon(self) -> None:
        machine = self.started()
        self.power(machine, "cordon")
        self.assertTrue(self.get(machine)["cordoned"])
        self.power(machine, "uncordon")
        self.assertFalse(self.get(machine)["cordoned"])


class DeathTests(FlyCase):
    """Programs that end by themselves."""

    def test_it_is_booted_again_as_often_as_the_config_says(self) -> None:
        config = {"restart": {"policy": "on-failure", "max_retries": 2}}
        machine = self.started(config=config)
        for _ in range(2):
            self.programs.die(machine)
            self.assertEqual(self.state(machine), "restarting")
            self.pass_time()
            self.assertEqual(self.state(machine), "started")
        self.programs.die(machine)
        self.pass_time()
        self.assertEqual(self.state(machine), "stopped")
        self.power(machine, "start")
        self.pass_time()
        self.programs.die(machine)
        self.assertEqual(self.state(machine), "restarting")

    def test_or_not_at_all(self) -> None:
        machine = self.started(config={"restart": {"policy": "no"}})
        self.programs.die(machine)
        self.pass_time()
        self.assertEqual(self.state(machine), "stopped")

    def test_or_its_machine_goes_too(self) -> None:
        machine = self.started(config={"restart": {"policy": "no"}, "auto_destroy": True})
        self.programs.die(machine)
        self.clock.advance(0.51)
        self.assertEqual(self.state(machine), "destroyed")

    def test_one_that_stood_still_is_not_missed_until_it_is_started(self) -> None:
        machine = self.suspended()
        self.programs.die(machine)
        self.assertEqual(self.state(machine), "suspended")
        self.power(machine, "start")
        self.pass_time()
        self.assertEqual((self.state(machine), len(self.programs.boots)), ("started", 2))

    def test_one_that_cannot_be_started(self) -> None:
        self.programs.broken = True
        machine = self.created()
        self.pass_time()
        self.assertEqual(self.state(machine), "failed")


class DestroyTests(FlyCase):
    def test_it_is_shown_for_a_while(self) -> None:
        machine = self.stopped()
        self.assertEqual(self.ok("DELETE", f"{ONE}/{machine}"), {"ok": True})
        self.assertEqual(self.state(machine), "destroying")
        self.refused(412, "'destroying'", "POST", f"{ONE}/{machine}/start")
        self.clock.advance(0.51)
        self.assertEqual(self.state(machine), "destroyed")
        self.assertEqual(self.ok("GET", ONE), [])
        (shown,) = self.ok("GET", ONE, query={"include_deleted": "true"})
        self.assertEqual(shown["id"], machine)
        self.clock.advance(2.1)
        self.refused(404, "machine not found", "GET", f"{ONE}/{machine}")

    def test_what_runs_is_destroyed_by_force_only_and_at_any_time(self) -> None:
        machine = self.started()
        self.refused(412, "not currently stopped", "DELETE", f"{ONE}/{machine}")
        self.ok("DELETE", f"{ONE}/{machine}", query={"force": "true"})
        other = self.created()
        self.ok("DELETE", f"{ONE}/{other}", query={"kill": "true"})
        self.pass_time()
        self.assertEqual(self.programs.alive, {})
        self.assertEqual(self.emulator("GET", "/")["machines"], {"destroyed": 2})

    def test_a_name_is_unique_until_its_machine_is_gone(self) -> None:
        machine = self.created(name="mine")
        body = {"name": "mine", "config": dict(CONFIG)}
        wanted = f"unique machine name violation, machine ID {machine}"
        self.refused(409, wanted, "POST", ONE, body)
        self.pass_time()
        self.ok("DELETE", f"{ONE}/{machine}", query={"force": "true"})
        self.refused(409, wanted, "POST", ONE, body)
        self.pass_time()
        self.ok("POST", ONE, body)

    def test_a_whole_app(self) -> None:
        volume = self.volume()
        self.started(config={"mounts": [{"volume": volume, "path": "/data"}]})
        self.refused(412, "has 1 machines", "DELETE", "/apps/users")
        self.ok("DELETE", "/apps/users", query={"force": "true"}, status=202)
        self.pass_time()
        self.assertEqual(self.programs.alive, {})
        self.refused(404, "app not found", "GET", "/apps/users")

    def test_everything(self) -> None:
        self.started()
        self.suspended()
        self.volume()
        self.emulator("POST", "/reset")
        self.pass_time()
        summary = self.emulator("GET", "/")
        self.assertEqual((summary["apps"], summary["volumes"]), (0, 0))
        self.assertEqual((summary["machines"], self.programs.alive), ({"destroyed": 2}, {}))


class ListTests(FlyCase):
    def ids(self, **query: object) -> set[str]:
        return {machine["id"] for machine in self.ok("GET", ONE, query=query)}

    def test_filters(self) -> None:
        config = {"metadata": {"user": "alice", "kind": "x"}}
        one, two = self.started(config=config), self.created(region="ams")
        self.assertEqual(self.ids(), {one, two})
        self.assertEqual(self.ids(region="ams"), {two})
        self.assertEqual(self.ids(state="started,stopped"), {one})
        self.assertEqual(self.ids(**{"metadata.user": "alice", "metadata.kind": "x"}), {one})
        self.assertEqual(self.ids(**{"metadata.user": "bob"}), set())

    def test_a_summary_has_no_config(self) -> None:
        self.created()
        (machine,) = self.ok("GET", ONE, query={"summary": "true"})
        self.assertEqual(machine["state"], "created")
        for name in ("config", "checks", "events", "nonce"):
            self.assertNotIn(name, machine)

    def test_events(self) -> None:
        machine = self.suspended()
        events = self.ok("GET", f"{ONE}/{machine}/events")
        self.assertEqual(
            [event["status"] for event in events],
            ["suspended", "suspending", "started", "starting", "created"],
        )
        self.assertEqual(len(self.ok("GET", f"{ONE}/{machine}/events", query={"limit": 2})), 2)
        self.assertTrue(0 < self.now() * 1000 - events[0]["timestamp"] < 4000)


class MetadataTests(FlyCase):
    def test_they_change_without_a_new_version(self) -> None:
        machine = self.started(config={"metadata": {"a": "1"}})
        before = self.get(machine)["instance_id"]
        path = f"{ONE}/{machine}/metadata"
        self.ok("PATCH", path, {"metadata": {"b": "2"}}, status=204)
        self.ok("POST", f"{path}/c", {"value": "3"}, status=204)
        self.assertEqual(self.ok("GET", path), {"a": "1", "b": "2", "c": "3"})
        self.ok("DELETE", f"{path}/a", status=204)
        self.assertEqual(self.ok("GET", f"{path}/b"), {"value": "2"})
        self.refused(404, "not found", "GET", f"{path}/a")
        self.ok("PUT", path, {"metadata": {"d": "4"}}, status=204)
        shown = self.get(machine)
        self.assertEqual(shown["config"]["metadata"], {"d": "4"})
        self.assertEqual(shown["instance_id"], before)
        self.assertEqual(self.ok("GET", ONE, query={"metadata.d": "4"})[0]["id"], machine)

    def test_a_stale_version_gets_412(self) -> None:
        machine = self.started()
        path = f"{ONE}/{machine}/metadata"
        body = {"metadata": {"a": "1"}, "machine_version": "old"}
        self.refused(412, "machine_version is stale", "PUT", path, body)
        body["machine_version"] = self.get(machine)["instance_id"]
        self.ok("PUT", path, body, status=204)
        self.refused(400, "metadata is missing", "PUT", path, {})
        self.refused(400, "value is missing", "POST", f"{path}/a", {})


class StateTests(FlyCase):
    def test_only_known_ways(self) -> None:
        self.assertRaises(ImpossibleChange, check_change, "stopped", "started")
        self.assertRaises(ImpossibleChange, check_change, "destroyed", "starting")
        check_change("suspending", "starting")

    def test_every_state_leads_to_destroyed(self) -> None:
        for state, ways in EDGES.items():
            if state not in ("destroying", "destroyed"):
                self.assertIn("destroying", ways)
        self.assertLessEqual(SETTLED, set(EDGES))
