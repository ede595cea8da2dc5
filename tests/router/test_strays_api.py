"""The admin API's list of what belongs to nobody."""

from __future__ import annotations

from datetime import UTC, datetime

from matrix.errors import Unavailable
from matrix.model import Stray
from tests.router.test_internal import ALICE, InternalTestCase


class StraysTests(InternalTestCase):
    def note(self, *ids: str) -> None:
        strays = [
            Stray(id, "machine", "fly", "users", f"u-{id}", "fra", ALICE, "why", ours=True)
            for id in ids
        ]
        self.run_now(self.directory.strays.note(strays))

    def test_everything_that_is_known_of_one(self) -> None:
        self.note("m1")
        found = self.ask("/admin/v1/strays").json
        now = datetime.fromtimestamp(self.clock.seconds(), UTC).isoformat()
        self.assertEqual(
            found,
            {
                "strays": [
                    {
                        "id": "m1", "kind": "machine", "provider": "fly", "app": "users",
                        "name": "u-m1", "region": "fra", "user": ALICE, "reason": "why",
                        "ours": True, "first_seen": now, "last_seen": now,
                    }
                ],
                "next": None,
            },
        )  # fmt: skip

    def test_in_pages(self) -> None:
        self.note("m1", "m2", "m3")
        first = self.ask("/admin/v1/strays?limit=2").json
        self.assertEqual(first["next"], "m2")
        rest = self.ask(f"/admin/v1/strays?limit=2&after={first['next']}").json
        self.assertEqual([one["id"] for one in rest["strays"]], ["m3"])
        self.assertIsNone(rest["next"])

    def test_the_database_is_gone(self) -> None:
        self.directory.lose()
        self.refusal("/admin/v1/strays", Unavailable)
