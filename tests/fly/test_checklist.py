"""The emulator does what Fly does: each item of the checklist in facts/fly.md, section 9."""

from __future__ import annotations

from typing import Any

from matrix.testing.fly.case import CONFIG, FlyCase
from matrix.testing.fly.refusals import NOBODY

ONE = "/apps/users/machines"


class AccessTests(FlyCase):
    """1. Authorization, rate limits, and the id of each request."""

    def test_no_token_and_wrong_tokens_get_401(self) -> None:
        for token in ("", "wrong", "fly-emulator2"):
            self.refused(401, "unauthorized", "GET", "/apps/users", token=token)

    def test_each_answer_has_an_id_of_its_own(self) -> None:
        ids = [
            self.call("GET", path).headers["fly-request-id"]
            for path in ("/apps/users", "/apps/users", "/apps/nobody", "/nowhere")
        ]
        self.assertEqual(len(set(ids)), 4)

    def test_an_action_on_a_machine_has_a_burst_of_three_and_one_per_second(self) -> None:
        machine, other = self.started(), self.started()
        self.tuning.set("rate_limits", "on")
        path = f"{ONE}/{machine}/start"
        for _ in range(3):
            self.ok("POST", path)
        self.refused(429, "rate limit", "POST", path)
        self.ok("POST", f"{ONE}/{other}/start")
        self.ok("POST", f"{ONE}/{machine}/suspend")
        self.clock.advance(1.0)
        self.ok("POST", path)
        self.refused(429, "rate limit", "POST", path)

    def test_reading_a_machine_has_ten_and_five_per_second(self) -> None:
        machine = self.started()
        self.tuning.set("rate_limits", "on")
        for _ in range(10):
            self.get(machine)
        self.refused(429, "rate limit", "GET", f"{ONE}/{machine}")
        self.clock.advance(0.2)
        self.get(machine)

    def test_creating_counts_by_app(self) -> None:
        self.tuning.set("rate_limits", "on")
        for _ in range(3):
            self.created()
        answer = self.call("POST", ONE, {"config": dict(CONFIG)})
        self.assertEqual(answer.status, 429)
        self.assertNotIn("retry-after", answer.headers)
        self.tuning.set("retry_after", "yes")
        answer = self.call("POST", ONE, {"config": dict(CONFIG)})
        self.assertEqual(answer.headers["retry-after"], "1")

    def test_an_app_of_another_organization_gets_403(self) -> None:
        self.parts = self.made(tokens={"fly-emulator": "personal", "theirs": "others"})
        self.refused(403, "another organization", "GET", "/apps/users", token="theirs")
        self.refused(403, "another organization", "GET", "/orgs/personal/machines", token="theirs")


class CreatedTests(FlyCase):
    """2. What a machine is like just after it was made."""

    def test_it_is_created_while_its_image_is_prepared_and_cannot_be_started(self) -> None:
        machine = self.created()
        self.clock.advance(1.9)
        self.assertEqual(self.state(machine), "created")
        self.refused(412, "current state: 'created'", "POST", f"{ONE}/{machine}/start")
        self.clock.advance(0.2)
        self.assertEqual(self.state(machine), "starting")
        self.clock.advance(0.5)
        self.assertEqual(self.state(machine), "started")

    def test_it_cannot_be_read_for_a_moment(self) -> None:
        self.tuning.set("unseen", "0.5")
        machine = self.created()
        self.refused(404, "machine not found", "GET", f"{ONE}/{machine}")
        self.refused(404, "machine not found", "GET", f"{ONE}/{machine}/wait")
        self.assertEqual(len(self.ok("GET", ONE)), 1)
        self.tuning.set("late_in_lists", "yes")
        self.assertEqual(self.ok("GET", ONE), [])
        self.clock.advance(0.5)
        self.get(machine)
        self.assertEqual(len(self.ok("GET", ONE)), 1)

    def test_without_a_launch_it_stays_created_until_it_is_started(self) -> None:
        machine = self.created(skip_launch=True)
        self.pass_time()
        self.assertEqual(self.state(machine), "created")
        self.assertEqual(self.power(machine, "start")["previous_state"], "created")
        self.pass_time()
        self.assertEqual(self.state(machine), "started")


class WaitTests(FlyCase):
    """3. Waiting. (The refusals that can be asked for are in test_faults.)"""

    def waits(self, machine: str, **query: Any) -> Any:
        return self.begin("GET", f"{ONE}/{machine}/wait", query=query)

    def test_it_answers_when_the_state_is_reached(self) -> None:
        machine = self.created()
        waiting = self.waits(machine, state="started", timeout=10)
        self.clock.advance(2.0)
        self.assertNoResult(waiting)
        self.clock.advance(0.5)
        answer = self.successResultOf(waiting)
        self.assertEqual((answer.status, answer.value["state"]), (200, "started"))
        self.assertEqual(answer.value["version"], self.get(machine)["instance_id"])
        self.assertEqual(answer.value["event_id"], self.get(machine)["events"][0]["id"])

    def test_when_the_time_is_over_it_gets_408_with_the_state(self) -> None:
        machine = self.created()
        self.tuning.set("timeout_wording", "old")
        old, self.tuning.switches.timeout_wording = self.waits(machine, timeout=1), "new"
        new = self.waits(machine, timeout=1)
        self.clock.advance(1)
        wanted = "machine failed to reach desired state, started, currently created"
        for waiting, text in ((old, wanted), (new, "deadline_exceeded: " + wanted)):
            answer = self.successResultOf(waiting)
            self.assertEqual((answer.status, answer.value["error"]), (408, text))

    def test_only_one_to_sixty_seconds(self) -> None:
        machine = self.created()
        for timeout in (0, 61):
            self.refused(
                400, "must be inside range [1s, 1m0s]", "GET", f"{ONE}/{machine}/wait",
                query={"timeout": timeout},
            )  # fmt: skip
        self.clock.advance(0)
        waiting = self.waits(self.created(skip_launch=True), state="started")
        self.clock.advance(59.9)
        self.assertNoResult(waiting)
        self.clock.advance(0.1)
        self.assertEqual(self.successResultOf(waiting).status, 408)

    def test_waiting_for_stopped_needs_a_version(self) -> None:
        machine = self.stopped()
        path = f"{ONE}/{machine}/wait"
        self.refused(400, "instance_id is required", "GET", path, query={"state": "stopped"})
        for name in ("version", "instance_id"):
            version = self.get(machine)["instance_id"]
            self.ok("GET", path, query={"state": "stopped", name: version})
        self.tuning.set("stopped_wait_needs_version", "no")
        self.ok("GET", path, query={"state": "stopped"})

    def test_several_states_settled_and_later_events(self) -> None:
        machine = self.suspended()
        path = f"{ONE}/{machine}/wait"
        for state in ("suspended,failed", ["failed", "suspended"], "settled"):
            self.assertEqual(self.ok("GET", path, query={"state": state})["state"], "suspended")
        last = self.get(machine)["events"][0]["id"]
        waiting = self.waits(machine, state="suspended", from_event_id=last)
        self.power(machine, "start")
        self.pass_time()
        self.assertNoResult(waiting)
        self.power(machine, "suspend")
        self.pass_time()
        self.assertEqual(self.successResultOf(waiting).status, 200)
        self.refused(400, "State", "GET", path, query={"state": "starting"})

    def test_a_machine_that_is_destroyed_meanwhile_gets_404(self) -> None:
        machine = self.suspended()
        waiting, destroyed = self.waits(machine), self.waits(machine, state="destroyed")
        self.ok("DELETE", f"{ONE}/{machine}")
        self.pass_time()
        self.assertEqual(self.successResultOf(waiting).status, 404)
        self.assertEqual(self.successResultOf(destroyed).status, 200)

    def test_whoever_leaves_is_forgotten(self) -> None:
        waiting = self.waits(self.created(skip_launch=True))
        self.assertEqual(len(self.parts.world.waits), 1)
        waiting.cancel()
        self.failureResultOf(waiting)
        self.assertEqual(len(self.parts.world.waits), 0)


class SuspendTests(FlyCase):
    """4. Suspending, a start in the midst of it, and memory that is lost."""

    def test_it_takes_a_while_and_resumes_as_it_was(self) -> None:
        machine = self.started()
        self.assertEqual(self.power(machine, "suspend"), {"ok": True})
        self.assertEqual(self.state(machine), "suspending")
        self.assertIn(machine, self.programs.frozen)
        self.clock.advance(0.6)
        self.assertEqual(self.state(machine), "suspended")
        answer = self.power(machine, "start")
        self.assertEqual(answer, {"previous_state": "suspended", "migrated": False, "new_host": ""})
        self.assertEqual(self.state(machine), "starting")
        self.clock.advance(0.3)
        self.assertEqual(self.state(machine), "started")
        self.assertNotIn(machine, self.programs.frozen)
        self.assertEqual(len(self.programs.boots), 1)

    def test_a_start_interrupts_it(self) -> None:
        machine = self.started()
        self.power(machine, "suspend")
        self.assertEqual(self.power(machine, "start")["previous_state"], "suspending")
        self.pass_time()
        self.assertEqual(self.state(machine), "started")
        self.assertNotIn(machine, self.programs.frozen)
        self.assertEqual(len(self.programs.boots), 1)

    def test_or_is_refused_as_it_once_was(self) -> None:
        self.tuning.set("start_while_suspending", "refused")
        machine = self.started()
        self.power(machine, "suspend")
        self.refused(412, "state: 'suspending'", "POST", f"{ONE}/{machine}/start")

    def test_without_its_memory_it_boots_though_it_says_suspended(self) -> None:
        machine = self.suspended()
        self.emulator("POST", f"/machines/{machine}/lose-snapshot")
        self.assertEqual(self.state(machine), "suspended")
        self.assertEqual(self.power(machine, "start")["previous_state"], "suspended")
        self.pass_time()
        self.assertEqual(self.state(machine), "started")
        self.assertEqual(len(self.programs.boots), 2)

    def test_chance_may_lose_it(self) -> None:
        self.tuning.set("snapshot_loss", "1")
        machine = self.suspended()
        self.power(machine, "start")
        self.pass_time()
        self.assertEqual(len(self.programs.boots), 2)

    def test_a_stop_drops_it(self) -> None:
        machine = self.suspended()
        self.power(machine, "stop", {})
        self.pass_time()
        self.assertEqual(self.power(machine, "start")["previous_state"], "stopped")
        self.pass_time()
        self.assertEqual(len(self.programs.boots), 2)

    def test_some_machines_cannot_be_suspended(self) -> None:
        large = {"guest": {"cpu_kind": "shared", "cpus": 2, "memory_mb": 4096}}
        for config, why in (
            (large, "2048 MB"), ({"init": {"swap_size_mb": 64}}, "swap"),
            ({"schedule": "daily"}, "schedule"),
        ):  # fmt: skip
            self.refused(412, why, "POST", f"{ONE}/{self.started(config=config)}/suspend")
        self.tuning.set("suspend_memory_max", "4096")
        self.power(self.started(config=large), "suspend")


class UpdateTests(FlyCase):
    """5. An update replaces the config, and never starts what was not started."""

    def update(self, machine: str, **members: Any) -> Any:
        body = {"config": {**CONFIG, "image": "daemon:2"}, **members}
        return self.ok("POST", f"{ONE}/{machine}", body)

    def test_it_needs_the_whole_config(self) -> None:
        machine = self.started(config={"env": {"A": "1"}})
        self.refused(400, "config is missing", "POST", f"{ONE}/{machine}", {})
        body = {"config": {"env": {"A": "2"}}}
        self.refused(400, "config.image is missing", "POST", f"{ONE}/{machine}", body)
        self.update(machine)
        self.assertNotIn("env", self.get(machine)["config"])

    def test_it_mints_a_version_and_boots_a_started_machine(self) -> None:
        machine = self.started()
        before = self.get(machine)["instance_id"]
        after = self.update(machine)["instance_id"]
        self.assertGreater(after, before)
        self.refused(412, "getting replaced", "POST", f"{ONE}/{machine}/start")
        self.pass_time()
        self.assertEqual(self.state(machine), "started")
        self.assertEqual(self.programs.boots[-1].environment["FLY_IMAGE_REF"], "daemon:2")
        versions = self.ok("GET", f"{ONE}/{machine}/versions")
        self.assertEqual([one["version"] for one in versions], [after, before])

    def test_what_rests_is_stopped_afterwards(self) -> None:
        for machine in (self.suspended(), self.stopped()):
            self.update(machine)
            self.assertEqual(self.state(machine), "replacing")
            self.pass_time()
            self.assertEqual(self.state(machine), "stopped")
            self.assertNotIn(machine, self.programs.alive)

    def test_what_cannot_change(self) -> None:
        volume, other = self.volume(), self.volume()
        machine = self.started(config={"mounts": [{"volume": volume, "path": "/data"}]})
        config = {**CONFIG, "mounts": [{"volume": volume, "path": "/data"}]}
        path = f"{ONE}/{machine}"
        for body, what in (
            ({"region": "ams", "config": config}, "region"),
            ({"name": "other", "config": config}, "name"),
            ({"config": {**config, "mounts": [{"volume": other, "path": "/data"}]}}, "volume"),
        ):
            self.refused(400, f"the {what} of a machine cannot", "POST", path, body)

    def test_a_version_that_is_not_the_current_one_gets_409(self) -> None:
        machine = self.started()
        body = {"config": dict(CONFIG), "current_version": "old"}
        self.refused(409, "aborted", "POST", f"{ONE}/{machine}", body)
        self.update(machine, current_version=self.get(machine)["instance_id"])

    def test_two_at_once_get_409(self) -> None:
        machine = self.started()
        self.update(machine)
        self.refused(409, "concurrent update", "POST", f"{ONE}/{machine}", {"config": dict(CONFIG)})


class LeaseTests(FlyCase):
    """6. Leases."""

    def test_others_get_409_until_it_is_released(self) -> None:
        machine = self.started()
        lease = self.ok("POST", f"{ONE}/{machine}/lease", {"ttl": 30}, status=201)
        self.assertEqual(lease["status"], "success")
        nonce = lease["data"]["nonce"]
        self.assertEqual(self.get(machine)["nonce"], nonce)
        update = {"config": dict(CONFIG)}
        for method, path, body in (
            ("POST", "", update), ("DELETE", "", None), ("POST", "/lease", {}),
            ("POST", "/suspend", None), ("POST", "/start", None), ("POST", "/cordon", None),
        ):  # fmt: skip
            self.refused(409, "lease currently held", method, f"{ONE}/{machine}{path}", body)
        self.power(machine, "suspend", nonce=nonce)
        self.pass_time()
        self.tuning.set("lease_guards_start", "no")
        self.power(machine, "start")
        released = self.ok("DELETE", f"{ONE}/{machine}/lease", nonce=nonce)
        self.assertEqual(released, {"status": "success", "data": {"ok": True}})
        self.pass_time()
        self.ok("POST", f"{ONE}/{machine}", update)

    def test_it_expires(self) -> None:
        machine = self.started()
        self.ok("POST", f"{ONE}/{machine}/lease", query={"ttl": 10}, status=201)
        self.clock.advance(9)
        self.refused(409, "expires at 2027", "POST", f"{ONE}/{machine}/lease", {})
        self.clock.advance(1)
        self.assertNotIn("nonce", self.get(machine))
        self.refused(404, "lease not found", "GET", f"{ONE}/{machine}/lease")
        self.ok("POST", f"{ONE}/{machine}/lease", {}, status=201)

    def test_its_holder_may_keep_it_longer(self) -> None:
        machine = self.started()
        first = self.ok("POST", f"{ONE}/{machine}/lease", {"ttl": 10}, status=201)["data"]
        self.clock.advance(5)
        again = self.ok(
            "POST", f"{ONE}/{machine}/lease", {"ttl": 10}, status=201, nonce=first["nonce"]
        )["data"]
        self.assertEqual(again["nonce"], first["nonce"])
        self.assertEqual(again["expires_at"], first["expires_at"] + 5)

    def test_the_flat_answer(self) -> None:
        self.tuning.set("lease_envelope", "flat")
        machine = self.started()
        lease = self.ok("POST", f"{ONE}/{machine}/lease", {"description": "x"}, status=201)
        self.assertEqual(lease["description"], "x")
        self.assertEqual(self.ok("GET", f"{ONE}/{machine}/lease"), lease)

    def test_one_that_a_machine_is_made_with(self) -> None:
        body = {"config": dict(CONFIG), "lease_ttl": 30}
        machine = self.ok("POST", ONE, body)
        self.refused(409, "lease", "DELETE", f"{ONE}/{machine['id']}")
        self.ok("DELETE", f"{ONE}/{machine['id']}", nonce=machine["nonce"])


class VolumeTests(FlyCase):
    """7. Volumes and their snapshots."""

    def mounted(self, volume: str) -> dict[str, Any]:
        return {"config": {"mounts": [{"volume": volume, "path": "/data"}]}}

    def shown(self, volume: str) -> Any:
        return self.ok("GET", f"/apps/users/volumes/{volume}")

    def test_names(self) -> None:
        for name in ("a-b", "A", "", "x" * 31, "ü"):
            body = {"name": name, "region": "fra"}
            self.refused(422, "Name may only contain", "POST", "/apps/users/volumes", body)
        self.volume(name="x" * 30)
        self.volume(name="x" * 30)

    def test_one_machine_for_each(self) -> None:
        volume = self.volume()
        machine = self.started(**self.mounted(volume))
        self.assertEqual(self.shown(volume)["attached_machine_id"], machine)
        body = {"region": "fra", "config": {**CONFIG, **self.mounted(volume)["config"]}}
        self.refused(412, f"already claimed by machine {machine}", "POST", ONE, body)
        self.ok("DELETE", f"{ONE}/{machine}", query={"force": "true"})
        self.refused(412, f"already claimed by machine {NOBODY}", "POST", ONE, body)
        self.pass_time()
        self.assertIsNone(self.shown(volume)["attached_machine_id"])
        self.ok("POST", ONE, body)

    def test_one_that_is_not_there_or_elsewhere(self) -> None:
        body = {"region": "fra", "config": {**CONFIG, **self.mounted("vol_x")["config"]}}
        self.refused(400, "volume not found", "POST", ONE, body)
        mounted = self.mounted(self.volume(region="ams"))
        body = {"region": "fra", "config": {**CONFIG, **mounted["config"]}}
        self.refused(400, "not in fra", "POST", ONE, body)

    def test_a_bound_one_is_not_deleted_and_a_deleted_one_lingers(self) -> None:
        volume = self.volume()
        machine = self.started(**self.mounted(volume))
        path = f"/apps/users/volumes/{volume}"
        self.refused(412, f"currently bound to machine: {machine}", "DELETE", path)
        self.ok("DELETE", f"{ONE}/{machine}", query={"force": "true"})
        self.refused(412, "currently bound to machine", "DELETE", path)
        self.pass_time()
        self.assertEqual(self.ok("DELETE", path)["state"], "scheduling_destroy")
        self.pass_time()
        self.assertEqual(self.ok("GET", "/apps/users/volumes")[0]["state"], "pending_destroy")
        self.clock.advance(86400)
        self.assertEqual(self.ok("GET", "/apps/users/volumes"), [])
        self.refused(404, "volume not found", "GET", path)

    def test_it_only_grows(self) -> None:
        volume = self.volume()
        path = f"/apps/users/volumes/{volume}/extend"
        for size in (1, 0, 501, None):
            self.refused(400, "can only grow", "PUT", path, {"size_gb": size} if size else {})
        answer = self.ok("PUT", path, {"size_gb": 2})
        self.assertEqual((answer["volume"]["state"], answer["needs_restart"]), ("extending", False))
        self.pass_time()
        self.assertEqual(
            (self.shown(volume)["state"], self.shown(volume)["size_gb"]), ("created", 2)
        )

    def snapshot(self, volume: str) -> str:
        self.ok("POST", f"/apps/users/volumes/{volume}/snapshots")
        self.pass_time()
        (snapshot, *_) = self.ok("GET", f"/apps/users/volumes/{volume}/snapshots")
        self.assertEqual(snapshot["status"], "created")
        return str(snapshot["id"])

    def test_a_snapshot_makes_progress_and_there_is_one_at_a_time(self) -> None:
        path = f"/apps/users/volumes/{self.volume()}/snapshots"
        self.ok("POST", path)
        for status in ("pending", "running"):
            self.assertEqual([one["status"] for one in self.ok("GET", path)], [status])
            self.refused(412, "snapshot is already scheduled", "POST", path)
            self.clock.advance(1.0)
        self.assertEqual([one["status"] for one in self.ok("GET", path)], ["created"])
        self.ok("POST", path)

    def test_a_snapshot_is_restored_onto_a_volume_even_after_a_deletion(self) -> None:
        volume = self.volume()
        store = self.parts.world.store
        (store.volume(volume) / "file").write_text("before")
        snapshot = self.snapshot(volume)
        (store.volume(volume) / "file").write_text("after")
        self.ok("DELETE", f"/apps/users/volumes/{volume}")
        body = {"name": "data", "region": "fra", "snapshot_id": snapshot, "size_gb": 1}
        restored = self.ok("POST", "/apps/users/volumes", body)["id"]
        self.assertEqual(self.shown(restored)["state"], "creating")
        self.clock.advance(0.21)
        self.assertEqual(self.shown(restored)["state"], "restoring")
        body = {"region": "fra", "config": {**CONFIG, **self.mounted(restored)["config"]}}
        self.refused(412, "is restoring", "POST", ONE, body)
        self.clock.advance(1.0)
        self.assertEqual(self.shown(restored)["state"], "created")
        self.assertEqual((store.volume(restored) / "file").read_text(), "before")

    def test_a_fork_is_on_another_host_and_can_be_used_while_it_hydrates(self) -> None:
        volume = self.volume()
        store = self.parts.world.store
        (store.volume(volume) / "file").write_text("kept")
        body = {"name": "data", "region": "fra", "source_volume_id": volume}
        fork = self.ok("POST", "/apps/users/volumes", body)["id"]
        body = {"region": "fra", "config": {**CONFIG, **self.mounted(fork)["config"]}}
        for state in ("creating", "enabling_remote_export"):
            self.assertEqual(self.shown(fork)["state"], state)
            self.refused(412, f"is {state}", "POST", ONE, body)
            self.clock.advance(0.21)
        self.assertEqual(self.shown(fork)["state"], "hydrating")
        self.assertNotEqual(self.shown(fork)["zone"], self.shown(volume)["zone"])
        self.started(**self.mounted(fork))
        self.assertEqual((store.volume(fork) / "file").read_text(), "kept")
        self.assertEqual(self.shown(fork)["state"], "created")

    def test_neither_is_smaller_than_what_it_comes_from(self) -> None:
        volume = self.volume(size_gb=5)
        body = {"name": "data", "region": "fra", "source_volume_id": volume, "size_gb": 4}
        self.refused(400, "out of range", "POST", "/apps/users/volumes", body)
        body = {"name": "data", "region": "fra", "source_volume_id": "vol_x"}
        self.refused(400, "volume not found", "POST", "/apps/users/volumes", body)
        body = {"name": "data", "region": "fra", "snapshot_id": "vs_x"}
        self.refused(404, "snapshot not found", "POST", "/apps/users/volumes", body)


class HostTests(FlyCase):
    """8. What befalls hosts: migrations and outages; and names in the private network."""

    def test_a_migration_changes_address_and_volume(self) -> None:
        volume = self.volume()
        (self.parts.world.store.volume(volume) / "file").write_text("kept")
        machine = self.suspended(config={"mounts": [{"volume": volume, "path": "/data"}]})
        before = self.get(machine)
        moved = self.emulator("POST", f"/machines/{machine}/migrate")
        after = self.get(machine)
        self.assertEqual(after["state"], "suspended")
        self.assertNotEqual(after["private_ip"], before["private_ip"])
        self.assertEqual(after["private_ip"], moved["private_ip"])
        self.assertEqual(after["config"]["mounts"][0]["volume"], moved["volume"])
        self.assertNotEqual(moved["volume"], volume)
        self.power(machine, "start")
        self.pass_time()
        boot = self.programs.boots[-1]
        self.assertEqual((len(self.programs.boots), boot.address), (2, after["private_ip"]))
        self.assertEqual((boot.data / "file").read_text(), "kept")
        old = self.ok("GET", f"/apps/users/volumes/{volume}")
        self.assertEqual((old["state"], old["attached_machine_id"]), ("pending_destroy", None))

    def test_chance_may_migrate_at_a_start(self) -> None:
        self.tuning.set("migration", "1")
        machine = self.stopped()
        before = self.get(machine)["private_ip"]
        answer = self.power(machine, "start")
        self.assertTrue(answer["migrated"])
        self.assertTrue(answer["new_host"])
        self.pass_time()
        self.assertNotEqual(self.get(machine)["private_ip"], before)

    def test_names_are_those_of_started_machines(self) -> None:
        machine, other = self.started(), self.started()
        address = self.get(machine)["private_ip"]
        name = f"/dns?name={machine}.vm.users.internal"
        self.assertEqual(self.emulator("GET", name), [address])
        self.assertEqual(len(self.emulator("GET", "/dns?name=users.internal")), 2)
        self.assertEqual(len(self.emulator("GET", "/dns?name=fra.users.internal.")), 2)
        self.assertEqual(self.emulator("GET", "/dns?name=ams.users.internal"), [])
        self.assertEqual(self.emulator("GET", "/dns?name=nobody"), [])
        self.power(machine, "suspend")
        self.assertEqual(self.emulator("GET", name), [])
        self.assertNotEqual(self.emulator("GET", f"/dns?name={other}.vm.users.internal"), [])

    def test_a_host_that_is_down(self) -> None:
        machine = self.started()
        self.emulator("POST", f"/machines/{machine}/unreachable")
        shown = self.get(machine)
        self.assertEqual((shown["state"], shown["host_status"]), ("started", "unreachable"))
        self.assertNotIn("config", shown)
        self.assertIn("incomplete_config", shown)
        for what in ("start", "suspend"):
            self.refused(408, "could not be reached", "POST", f"{ONE}/{machine}/{what}")
        self.assertEqual(self.emulator("GET", "/dns?name=users.internal"), [])
        self.emulator("POST", f"/machines/{machine}/reachable")
        self.pass_time()
        shown = self.get(machine)
        self.assertEqual((shown["state"], shown["host_status"]), ("started", "ok"))
        self.assertEqual(len(self.programs.boots), 2)

    def test_what_was_under_way_waits_for_its_host(self) -> None:
        machine = self.created()
        self.emulator("POST", f"/machines/{machine}/unreachable")
        self.pass_time()
        self.assertEqual(self.state(machine), "created")
        self.emulator("POST", f"/machines/{machine}/reachable")
        self.pass_time()
        self.assertEqual(self.state(machine), "started")


class FormTests(FlyCase):
    """9. Forms and statuses that are not what one would expect."""

    def test_autostop_comes_back_as_something_else(self) -> None:
        for sent, answered in (("off", False), ("stop", True), ("suspend", "suspend")):
            config = {"services": [{"internal_port": 80, "protocol": "tcp", "autostop": sent}]}
            (service,) = self.get(self.created(config=config))["config"]["services"]
            self.assertEqual(service["autostop"], answered)

    def test_what_comes_back_can_be_sent(self) -> None:
        config = {"services": [{"internal_port": 80, "protocol": "tcp", "autostop": "stop"}]}
        machine = self.started(config=config)
        answered = self.get(machine)["config"]
        updated = self.ok("POST", f"{ONE}/{machine}", {"config": answered})
        self.assertEqual(updated["config"], answered)

    def test_regions_begin_with_a_capital(self) -> None:
        answer = self.ok("GET", "/platform/regions")
        self.assertEqual(set(answer), {"Regions", "Nearest"})
        self.tuning.set("regions_capitalised", "no")
        self.assertEqual(set(self.ok("GET", "/platform/regions")), {"regions", "nearest"})

    def test_statuses(self) -> None:
        app = {"name": "more", "org_slug": "personal"}
        made = self.call("POST", "/apps", app)
        self.assertEqual((made.status, set(made.value)), (201, {"id", "created_at"}))
        machine = self.started()
        path = f"{ONE}/{machine}"
        for method, where, body, status in (
            ("POST", ONE, {"config": dict(CONFIG)}, 200),
            ("POST", f"{path}/lease", {"ttl": 1}, 201),
            ("PUT", f"{path}/metadata", {"metadata": {}}, 204),
            ("DELETE", "/apps/more", None, 202),
        ):
            self.assertEqual(self.call(method, where, body).status, status, where)
