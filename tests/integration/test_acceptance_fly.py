"""A whole router whose users' machines are at Fly: provision, suspend, resume, and be killed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, ClassVar

from matrix.testing.fly.running import RunningEmulator
from matrix.testing.running_case import MatrixCase
from matrix.testing.supplied import SuppliedMatrix

IDLE = 1.0
"""Seconds without use before a machine sleeps."""

TIMINGS = {"unseen": 0.1, "pull": 0.3, "start": 0.1, "resume": 0.2, "suspend": 0.2, "volume": 0.1}

FILE = "/v1/files/notes.txt"

HEARD = {"machines.get": 1, "machines.wait": 1}
"""What a start takes besides itself: a look for its address, and a wait while it is knocked at."""


class FlyCase(MatrixCase):
    """Our daemon, at the emulator, with Fly's rate limits."""

    fly: ClassVar[RunningEmulator]

    @classmethod
    def setUpClass(cls) -> None:
        cls.fly = RunningEmulator("daemon", "--check-answers", **TIMINGS)
        cls.addClassCleanup(cls.fly.close)
        cls.fly.start()
        cls.fly.ask("POST", "/v1/apps", {"name": "users", "org_slug": "personal"})
        cls.matrix = SuppliedMatrix(
            idle=IDLE,
            provider="fly",
            fly_api=cls.fly.url,
            fly_token=cls.fly.token,
            fly_app="users",
            fly_regions="fra,ams",
            fly_image="registry.example/daemon:1",
        )
        cls.addClassCleanup(cls.forget)
        cls.matrix.start()

    def setUp(self) -> None:
        self.fly.ask("DELETE", "/_emulator/calls")

    def calls(self) -> Mapping[str, int]:
        """How often Fly was asked for what since the test, or the last L{forget_calls}."""
        counts: Mapping[str, int] = self.fly.calls()["by_action"]
        return counts

    def forget_calls(self) -> None:
        self.fly.ask("DELETE", "/_emulator/calls")

    def at_fly(self, user: str) -> list[Any]:
        """The user's machines."""
        query = f"metadata.matrix_user={self.matrix.user_id(user)}"
        found: list[Any] = self.fly.ask("GET", f"/v1/apps/users/machines?{query}")
        return found

    def until_asleep(self, user: str) -> None:
        self.matrix.until(
            lambda: self.row(user)["state"] == "suspended", IDLE + 15, f"{user}'s machine sleeps"
        )


class RouterTests(FlyCase):
    """One router, as an operator runs it."""

    def test_provision_suspend_resume(self) -> None:
        answer = self.ask("alice", "PUT", FILE, b"remember the milk")
        self.assertEqual(answer.status, 201, answer.body)
        made = dict(self.calls())
        made.pop("machines.start")  # again and again while its image is prepared
        heard = {action: made.pop(action) for action in HEARD}
        self.assertLessEqual(max(heard.values()), 3, "for a boot that takes seconds")
        self.assertEqual(made, {"volumes.create": 1, "machines.create": 1})
        self.until_asleep("alice")
        [machine] = self.at_fly("alice")
        self.assertEqual(machine["state"], "suspended")

        self.forget_calls()
        began = time.monotonic()
        answer = self.ask("alice", "GET", FILE)
        seconds = time.monotonic() - began
        self.assertEqual((answer.status, answer.body), (200, b"remember the milk"))
        self.assertEqual(self.calls(), {"machines.start": 1, **HEARD})
        wake = self.matrix.events("alice", "wake")[0]
        self.assertEqual(wake["detail"]["was"], "suspended")
        self.tell("resume at Fly", seconds=round(seconds, 3), **wake["detail"])

        self.forget_calls()
        for _ in range(50):
            self.assertEqual(self.ask("alice", "GET", FILE).status, 200)
        self.assertEqual(self.calls(), {})
        self.until_asleep("alice")
        self.assertEqual(self.calls(), {"machines.suspend": 1, "machines.wait": 1})

    def test_a_request_while_fly_takes_long_to_suspend(self) -> None:
        """It interrupts that: the same boot answers, and nothing is asked for twice."""
        self.ask("carol", "PUT", FILE, b"in memory")
        boot = self.row("carol")["boot_id"]
        self.tune(suspend=60)
        try:
            self.matrix.until(
                lambda: self.row("carol")["state"] == "suspending",
                IDLE + 15,
                "carol's is on its way",
            )
            time.sleep(1)  # until Fly has agreed to it
            self.assertEqual(self.at_fly("carol")[0]["state"], "suspending")
            self.forget_calls()
            began = time.monotonic()
            answer = self.ask("carol", "GET", FILE)
            seconds = time.monotonic() - began
        finally:
            self.tune(suspend=TIMINGS["suspend"])
        self.assertEqual((answer.status, answer.body), (200, b"in memory"))
        self.assertLess(seconds, 10, "not as long as it takes to suspend")
        self.assertRegex(answer.headers["matrix-wake"], r"^suspended;dur=\d+$")
        self.assertEqual(self.row("carol")["boot_id"], boot)
        self.assertEqual(self.calls().get("machines.start"), 1)
        self.tell("interrupted suspend", seconds=round(seconds, 3))
        slept = self.matrix.events("carol", "suspend")[0]
        self.assertEqual((slept["cause"], slept["detail"]), ("idle", {"interrupted": True}))
        self.until_asleep("carol")

    def test_a_lost_machine_without_room_beside_its_data(self) -> None:
        """It is made in another region, with a copy; what was before goes when it answers."""
        self.ask("dora", "PUT", FILE, b"remember the milk")
        self.until_asleep("dora")
        [before] = self.at_fly("dora")
        self.fly.ask("DELETE", f"/v1/apps/users/machines/{before['id']}?force=true")
        self.fly.ask("POST", "/_emulator/capacity", {"fra": 0})
        try:
            began = time.monotonic()
            self.matrix.until(
                lambda: self.ask("dora", "GET", FILE).body == b"remember the milk", 60, "it is back"
            )
            seconds = time.monotonic() - began
        finally:
            self.fly.ask("POST", "/_emulator/capacity", {"fra": None})
        [moved] = self.matrix.events("dora", "moved")
        self.assertEqual(moved["cause"], "no-room")
        self.assertEqual((moved["detail"]["from"], moved["detail"]["to"]), ("fra", "ams"))
        self.tell("moved to another region", seconds=round(seconds, 3))
        [after] = self.at_fly("dora")
        volume = after["config"]["mounts"][0]["volume"]
        name = before["config"]["mounts"][0]["name"]

        def theirs() -> list[str]:
            time.sleep(1.5)  # for Fly's rate limits
            found = self.fly.ask("GET", "/v1/apps/users/volumes")
            return [one["id"] for one in found
                    if one["name"] == name and "destroy" not in one["state"]]  # fmt: skip

        self.matrix.until(lambda: theirs() == [volume], 30, "the former volume is deleted")
        self.until_asleep("dora")

    def test_an_operator_has_a_machine_made(self) -> None:
        found = self.matrix.admin(f"users/{self.matrix.user_id('erin')}/provision", "POST")
        self.assertEqual((found["made"], found["state"], found["region"]), (True, "stopped", "fra"))
        [machine] = self.at_fly("erin")
        self.assertEqual((machine["id"], machine["state"]), (found["machine_id"], "created"))
        self.forget_calls()
        self.assertEqual(self.ask("erin", "PUT", FILE, b"first").status, 201)
        self.assertNotIn("machines.create", self.calls())
        again = self.matrix.admin(f"users/{self.matrix.user_id('erin')}/provision", "POST")
        self.assertFalse(again["made"])
        self.until_asleep("erin")

    def tune(self, **settings: float) -> None:
        """Change the emulator's timings."""
        told = {name: str(value) for name, value in settings.items()}
        self.fly.ask("POST", "/_emulator/settings", told)

    def test_a_router_killed_while_it_provisions(self) -> None:
        """Killed when the volume is asked for, and again when the machine is."""
        self.matrix.token("bob")
        for action in ("volumes.create", "machines.create"):
            self.killed_at(action)
        answer = self.ask("bob", "PUT", FILE, b"still here")
        self.assertEqual(answer.status, 201, answer.body)
        [machine] = self.at_fly("bob")
        volumes = self.fly.ask("GET", "/v1/apps/users/volumes")
        name = "u_" + machine["name"].removeprefix("u-")
        [volume] = [each for each in volumes if each["name"] == name]
        self.assertEqual(machine["config"]["mounts"][0]["volume"], volume["id"])
        self.until_asleep("bob")
        self.assertEqual(self.ask("bob", "GET", FILE).body, b"still here")
        self.until_asleep("bob")  # so that nothing more is asked of Fly

    def killed_at(self, action: str) -> None:
        """A request has the machine made; Fly does as it is asked, and the router is dead."""
        self.fly.fault("slow", action=action, seconds=1.0, times=1)
        before = self.calls().get(action, 0)
        with self.background("bob"):
            self.matrix.until(lambda: self.calls().get(action, 0) > before, 20, action)
            self.matrix.kill()
        self.matrix.start()

    @contextmanager
    def background(self, user: str) -> Iterator[None]:
        """A request that is never answered."""
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(self.ask, user, "GET", FILE)
            yield
            self.assertIsNotNone(asked.exception(30))
