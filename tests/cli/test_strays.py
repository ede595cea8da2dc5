"""C{matrix strays}: what it asks, and how it shows what belongs to nobody."""

import json

from .test_commands import AdminApi, CommandTestCase

MACHINE = {
    "id": "3d8", "kind": "machine", "provider": "fly", "app": "users", "name": "theirs\x1b[2J",
    "region": "fra", "user": None, "reason": "Matrix did not make it", "ours": False,
    "first_seen": "2026-11-23T12:00:00+00:00", "last_seen": "2026-11-23T13:00:00+00:00",
}  # fmt: skip
VOLUME = {
    **MACHINE,
    "id": "vol_1",
    "kind": "volume",
    "user": "0a1b2c3d-0000-4000-8000-00000000000a",
    "reason": "the user has volume vol_2\x1b",
    "ours": True,
}


class StraysTests(CommandTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.running()

    def answer(self, *strays: object, following: str | None = None) -> None:
        AdminApi.answers["/admin/v1/strays"] = (200, {"strays": [*strays], "next": following})

    def test_each_with_why_and_since_when(self) -> None:
        self.answer(MACHINE, VOLUME)
        text = self.works("strays")
        self.assertEqual(AdminApi.asked, ["GET /admin/v1/strays"])
        head, machine, volume = text.splitlines()
        for column in ("KIND", "ID", "APP", "REGION", "SINCE", "USER", "WHY"):
            self.assertIn(column, head)
        self.assertIn("Matrix did not make it", machine)
        self.assertIn("2026-11-23", machine)
        self.assertIn("0a1b2c3d-0000-4000-8000-00000000000a", volume)
        self.assertNotIn("\x1b", text)

    def test_none(self) -> None:
        self.answer()
        self.assertEqual(self.works("strays"), "no strays\n")

    def test_for_programs(self) -> None:
        self.answer(MACHINE)
        self.assertEqual(json.loads(self.works("strays", "--json")), {"strays": [MACHINE]})
