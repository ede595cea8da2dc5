"""What the emulated Fly refuses to do to what is in no state for it, each with its reason."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from matrix.machines._fly_rates import READING, USUAL
from matrix.testing.fly.case import CONFIG, FlyCase
from matrix.testing.fly.rates import SWEEP_SIZE, Rates

ONE = "/apps/users/machines"
VOLUMES = "/apps/users/volumes"


class MachineTests(FlyCase):
    def test_in_the_midst_of_something(self) -> None:
        machine = self.created()
        for what in ("stop", "suspend", "restart", "signal"):
            body = {"signal": "SIGHUP"} if what == "signal" else None
            wanted = f"unable to {what} machine from current state: 'created'"
            self.refused(412, wanted, "POST", f"{ONE}/{machine}/{what}", body)
        self.emulator("POST", f"/machines/{machine}/migrate", status=412)
        self.pass_time()
        self.refused(400, "signal is missing", "POST", f"{ONE}/{machine}/signal", {})

    def test_what_is_so_already_is_no_error(self) -> None:
        machine = self.stopped()
        self.power(machine, "stop", {})
        self.assertEqual(self.state(machine), "stopped")
        machine = self.suspended()
        self.power(machine, "suspend")
        self.ok("DELETE", f"{ONE}/{machine}")
        self.ok("DELETE", f"{ONE}/{machine}")

    def test_of_what_is_gone(self) -> None:
        machine = self.stopped()
        self.ok("DELETE", f"{ONE}/{machine}")
        self.clock.advance(0.51)
        self.refused(404, "not found", "POST", f"{ONE}/{machine}", {"config": dict(CONFIG)})
        for method, path in (("GET", ""), ("POST", "/start"), ("GET", "/lease")):
            self.refused(404, "machine not found", method, f"{ONE}/00000000000000{path}")

    def test_leases_that_nobody_has(self) -> None:
        machine = self.started()
        self.refused(404, "lease not found", "DELETE", f"{ONE}/{machine}/lease")
        self.refused(400, "ttl is -1", "POST", f"{ONE}/{machine}/lease", {"ttl": -1})

    def test_by_force(self) -> None:
        machine = self.started()
        self.power(machine, "restart", query={"force_stop": "true"})
        self.pass_time()
        self.assertEqual(self.programs.endings[0][1].name, "SIGKILL")
        self.refused(400, "force is true or false", "DELETE", f"{ONE}/{machine}",
                     query={"force": "maybe"})  # fmt: skip


class VolumeTests(FlyCase):
    def test_settings_of_snapshots(self) -> None:
        volume = self.volume()
        body = {"snapshot_retention": 7, "auto_backup_enabled": False}
        self.ok("PUT", f"{VOLUMES}/{volume}", body)
        shown = self.ok("GET", f"{VOLUMES}/{volume}")
        self.assertEqual((shown["snapshot_retention"], shown["auto_backup_enabled"]), (7, False))
        for days in (0, 61):
            body = {"snapshot_retention": days}
            self.refused(400, f"retention is {days}", "PUT", f"{VOLUMES}/{volume}", body)

    def test_regions(self) -> None:
        for region in ("eu", None):
            body = {"name": "data", **({"region": region} if region else {})}
            self.refused(400, "region", "POST", VOLUMES, body)

    def test_what_its_data_have_not_reached(self) -> None:
        volume = self.volume()
        body = {"name": "data", "region": "fra", "source_volume_id": volume}
        fork = self.ok("POST", VOLUMES, body)["id"]
        self.refused(412, "is creating", "PUT", f"{VOLUMES}/{fork}/extend", {"size_gb": 9})
        self.ok("POST", f"{VOLUMES}/{volume}/snapshots")
        (snapshot,) = self.ok("GET", f"{VOLUMES}/{volume}/snapshots")
        body = {"name": "data", "region": "fra", "snapshot_id": snapshot["id"]}
        self.refused(412, "snapshot is not ready", "POST", VOLUMES, body)

    def test_of_what_is_gone(self) -> None:
        volume = self.volume()
        self.ok("DELETE", f"{VOLUMES}/{volume}")
        self.refused(400, "volume not found", "POST", f"{VOLUMES}/{volume}/snapshots")
        self.refused(400, "volume not found", "PUT", f"{VOLUMES}/{volume}/extend", {"size_gb": 9})
        mounts = [{"volume": volume, "path": "/data"}]
        body = {"region": "fra", "config": {**CONFIG, "mounts": mounts}}
        self.refused(400, "volume not found", "POST", ONE, body)

    def test_a_fork_of_what_cannot_be_reached(self) -> None:
        volume = self.volume()
        mounts = [{"volume": volume, "path": "/data"}]
        machine = self.started(config={"mounts": mounts})
        self.emulator("POST", f"/machines/{machine}/unreachable")
        self.assertEqual(self.ok("GET", f"{VOLUMES}/{volume}")["host_status"], "unreachable")
        body = {"name": "data", "region": "fra", "source_volume_id": volume}
        self.refused(503, "unavailable", "POST", VOLUMES, body)
        self.ok("DELETE", f"{ONE}/{machine}", query={"force": "true"})
        self.pass_time()
        body = {"region": "fra", "config": {**CONFIG, "mounts": mounts}}
        self.refused(412, f"existing volume id '{volume}'", "POST", ONE, body)


class AppTests(FlyCase):
    def test_listing(self) -> None:
        self.refused(400, "org_slug is missing", "GET", "/apps")
        self.refused(403, "another", "GET", "/apps", query={"org_slug": "others"})


class RateTests(SynchronousTestCase):
    def test_full_buckets_are_dropped_and_others_kept(self) -> None:
        now = 0.0
        rates = Rates(lambda: now)
        for number in range(SWEEP_SIZE):
            rates.take(number, USUAL)
        now = 10.0
        for _ in range(3):
            self.assertEqual(rates.take("busy", USUAL), 0.0)
        rates.take("more", READING)
        self.assertEqual(len(rates._buckets), 2)
        self.assertAlmostEqual(rates.take("busy", USUAL), 1.0)
        rates.clear()
        self.assertEqual(rates.take("busy", USUAL), 0.0)
