"""C{matrix top}: what it asks, and how it shows who is awake."""

import json

from .test_commands import AdminApi, CommandTestCase

ALICE = {
    "user": "0a1b2c3d-0000-4000-8000-00000000000a",
    "email": "alice@localhost",
    "seconds": 3725.0,
    "by_cause": {
        "alarm": {"seconds": 125.0, "wakes": 2},
        "request": {"seconds": 3600.0, "wakes": 1},
    },
    "awake_since": "2026-11-23T12:00:00+00:00",
    "awake_cause": "request",
    "last_active_at": None,
}
BOB = {
    **ALICE,
    "email": "",
    "user": "b\x1b[2J",
    "awake_since": None,
    "awake_cause": None,
    "last_active_at": "2026-11-23T12:30:00+00:00",
}
FLEET = {"request": {"machines": 3, "seconds": 1.0}, "alarm": {"machines": 1, "seconds": 1.0}}


class TopTests(CommandTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.running()

    def test_the_longest(self) -> None:
        AdminApi.answers["/admin/v1/awake"] = (
            200,
            {"days": 2, "users": [ALICE, BOB], "fleet": FLEET},
        )
        text = self.works("top", "--days", "2", "--limit", "5")
        self.assertEqual(AdminApi.asked, ["GET /admin/v1/awake?days=2&limit=5"])
        head, alice, bob, _, fleet = text.splitlines()
        for column in ("USER", "AWAKE", "BY CAUSE", "NOW", "CAUSE", "LAST USED"):
            self.assertIn(column, head)
        self.assertIn("alice@localhost  1 h 2 min", alice)
        self.assertIn("request 1 h (1 x), alarm 2 min 5 s (2 x)", alice)
        self.assertIn("since 2026-11-23", alice)
        self.assertIn("asleep", bob)
        self.assertNotIn("\x1b", bob)
        self.assertEqual(fleet, "4 awake now in the whole fleet")

    def test_nobody(self) -> None:
        AdminApi.answers["/admin/v1/awake"] = (200, {"days": 7, "users": [], "fleet": {}})
        self.assertEqual(self.works("top"), "no machine was awake\n")

    def test_one_user(self) -> None:
        path = "/admin/v1/users/alice/awake"
        AdminApi.answers[path] = (200, {**ALICE, "days": 7})
        self.assertIn("1 h 2 min", self.works("top", "alice"))
        self.assertEqual(AdminApi.asked, [f"GET {path}?days=7"])
        self.assertEqual(json.loads(self.works("top", "alice", "--json"))["seconds"], 3725.0)
        AdminApi.answers[path] = (200, {**ALICE, "days": 7, "by_cause": {}})
        self.assertEqual(
            self.works("top", "alice"), "the machine of alice@localhost was not awake\n"
        )
