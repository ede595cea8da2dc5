"""What machines at Fly are to be like, from the settings: images, sizes, and those in stock."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from matrix.errors import ConfigurationError
from matrix.machines._fly_plans import FlyPlace, FlyPlans
from matrix.model import UserId

WHO = UserId("0a1b2c3d-0000-4000-8000-00000000000a")
TOKEN = {"MATRIX_MACHINE_TOKEN": "t" * 32}


def plans(image: str = "registry.example/daemon:1", *sizes: str) -> FlyPlans:
    return FlyPlans(FlyPlace("personal", "users", ("fra", "ams"), image, sizes=sizes))


class StartTests(SynchronousTestCase):
    """What is wrong is told before there are machines."""

    def test_images(self) -> None:
        digest = "@sha256:" + "0a" * 32
        for image in (
            "daemon", "daemon:1", "registry.fly.io/example-users:2026-11-23",
            "localhost:5000/team/daemon_x:v1.2-rc.3", "registry.fly.io/x" + digest,
            "ghcr.io/team/daemon:1" + digest,
        ):  # fmt: skip
            plans(image)

    def test_what_is_no_image(self) -> None:
        for image in (
            "", "https://registry.fly.io/x:1", "Daemon:1", "daemon:", "daemon 1", "daemon:1 ",
            "daemon@sha256:xyz", "registry/daemon:-1", "daemon:1\n", "/daemon",
        ):  # fmt: skip
            error = self.assertRaises(ConfigurationError, plans, image)
            self.assertIn("MATRIX_FLY_IMAGE", str(error))

    def test_what_is_no_size(self) -> None:
        for size in ("shared-cpu-1x:100mb", "performance-1x:1gb", "shared-cpu-1x:4gb"):
            error = self.assertRaises(ConfigurationError, plans, "daemon:1", size)
            self.assertIn(f"MATRIX_FLY_SIZES: {size}: ", str(error))


class SizeTests(SynchronousTestCase):
    """A size replaces the template's, and no more."""

    def test_the_guest(self) -> None:
        found = plans().wanted(WHO, TOKEN, "ams", "shared-cpu-2x:1gb")
        guest = {"cpu_kind": "shared", "cpus": 2, "memory_mb": 1024}
        self.assertEqual(found.config("vol_1")["guest"], guest)
        self.assertEqual(found.volume()["compute"], guest)
        self.assertEqual((found.region, found.size), ("ams", "shared-cpu-2x:1gb"))
        usual = plans().wanted(WHO, TOKEN, "ams")
        self.assertTrue(found.differs(usual.config("vol_1")["metadata"], "vol_1"))

    def test_one_that_is_too_large_to_be_suspended_is_stopped(self) -> None:
        self.assertEqual(plans().on_idle(None), "suspend")
        self.assertEqual(plans().on_idle("shared-cpu-2x:2gb"), "suspend")
        self.assertEqual(plans().on_idle("shared-cpu-2x:4gb"), "stop")


class StockTests(SynchronousTestCase):
    """A machine without a user."""

    def test_it_holds_nothing_of_anybody(self) -> None:
        config = plans().stock(WHO).config("vol_1")
        self.assertEqual(config["metadata"]["matrix_stock"], WHO)
        self.assertNotIn("matrix_user", config["metadata"])
        self.assertEqual(config["env"]["MATRIX_MACHINE_TOKEN"], "redacted")

    def test_its_names_are_no_users(self) -> None:
        mine, stock = plans().wanted(WHO, TOKEN), plans().stock(WHO)
        self.assertRegex(stock.machine_name, r"\As-[a-z0-9]{26}\Z")
        self.assertRegex(stock.volume_name, r"\As_[a-z0-9]{26}\Z")
        self.assertNotIn(stock.machine_name, mine.machine_name)

    def test_what_it_is_made_of(self) -> None:
        self.assertEqual(plans().made_of, plans("registry.example/daemon:1").made_of)
        self.assertNotEqual(plans().made_of, plans("registry.example/daemon:2").made_of)
