"""C{matrix machine provision}: what it asks, and how it tells of what was made."""

import json

from .test_commands import AdminApi, CommandTestCase

ERIN = "0a1b2c3d-0000-4000-8000-00000000000e"
MADE = {
    "user": ERIN, "email": "", "made": True, "state": "stopped", "machine_id": "3d8",
    "volume_id": "vol_1", "region": "fra", "size": None, "ms": 1480,
}  # fmt: skip


class ProvisionTests(CommandTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.running()

    def answer(self, **members: object) -> None:
        AdminApi.answers[f"/admin/v1/users/{ERIN}/provision"] = (200, {**MADE, **members})

    def test_what_was_made(self) -> None:
        self.answer()
        head, *lines = self.works("machine", "provision", ERIN).splitlines()
        self.assertEqual(AdminApi.asked, [f"POST /admin/v1/users/{ERIN}/provision"])
        self.assertRegex(head, rf"\A{ERIN}: +made in 1480 ms\Z")
        found = [line.split() for line in lines]
        self.assertEqual(found, [["machine", "3d8"], ["volume", "vol_1"], ["region", "fra"]])

    def test_what_was_there(self) -> None:
        self.answer(
            made=False, state="suspended", email="erin@example.org", size="shared-cpu-2x:1gb"
        )
        text = self.works("machine", "provision", ERIN)
        self.assertRegex(text, r"\Aerin@example\.org: +there already, suspended\n")
        self.assertRegex(text, r"size +shared-cpu-2x:1gb\n\Z")

    def test_as_json(self) -> None:
        self.answer()
        self.assertEqual(json.loads(self.works("machine", "provision", ERIN, "--json")), MADE)

    def test_a_failure_says_why(self) -> None:
        problem = {"title": "Your machine is not ready yet", "detail": "no room"}
        AdminApi.answers[f"/admin/v1/users/{ERIN}/provision"] = (503, problem)
        self.assertIn("no room", self.fails("machine", "provision", ERIN))
