"""An organization's machines and volumes, page by page."""

from __future__ import annotations

from typing import Any

from matrix.testing.fly.case import FlyCase
from matrix.testing.fly.world import rfc3339


class OrganizationTests(FlyCase):
    def pages(self, noun: str, **query: Any) -> list[list[str]]:
        """The ids on each page."""
        found, cursor = [], ""
        while True:
            more = {"cursor": cursor} if cursor else {}
            answer = self.ok("GET", f"/orgs/personal/{noun}", query={**query, **more})
            found.append([one["id"] for one in answer[noun]])
            cursor = answer["next_cursor"]
            if not cursor:
                return found

    def test_pages(self) -> None:
        machines = {self.created() for _ in range(5)}
        pages = self.pages("machines", limit=2)
        self.assertEqual([len(page) for page in pages], [2, 2, 1])
        self.assertEqual({one for page in pages for one in page}, machines)
        self.assertEqual(self.pages("machines", limit=5), [[one for page in pages for one in page]])
        volumes = {self.volume() for _ in range(3)}
        self.assertEqual({one for page in self.pages("volumes", limit=1) for one in page}, volumes)

    def test_what_changed_since(self) -> None:
        one, two = self.started(), self.started()
        since = rfc3339(self.now())
        self.assertEqual(self.pages("machines", updated_after=since), [[]])
        self.power(two, "suspend")
        self.assertEqual(self.pages("machines", updated_after=rfc3339(self.now() - 1)), [[two]])
        self.assertEqual(set(self.pages("machines")[0]), {one, two})

    def test_what_is_shown(self) -> None:
        config = {"metadata": {"user": "alice"}, "env": {"SECRET": "x"}}
        machine = self.started(config=config)
        answer = self.ok("GET", "/orgs/personal/machines")
        (shown,) = answer["machines"]
        self.assertEqual((shown["app_name"], shown["state"]), ("users", "started"))
        self.assertEqual(set(shown["config"]), {"image", "guest", "metadata"})
        self.assertEqual(answer["last_machine_id"], machine)
        (shown,) = self.ok("GET", "/orgs/personal/machines", query={"summary": "1"})["machines"]
        self.assertNotIn("config", shown)

    def test_regions_that_do_not_answer(self) -> None:
        self.created(region="ams")
        machine = self.created(region="fra")
        self.emulator("POST", "/error-regions", {"regions": ["ams"]})
        answer = self.ok("GET", "/orgs/personal/machines")
        self.assertEqual(answer["error_regions"], ["ams"])
        self.assertEqual([one["id"] for one in answer["machines"]], [machine])

    def test_deleted_volumes_only_when_asked_for(self) -> None:
        volume = self.volume()
        self.ok("DELETE", f"/apps/users/volumes/{volume}")
        self.assertEqual(self.pages("volumes"), [[]])
        self.assertEqual(self.pages("volumes", include_deleted="true"), [[volume]])

    def test_what_cannot_be_read(self) -> None:
        for query in ({"limit": 0}, {"limit": 1001}, {"limit": "x"}, {"cursor": "%"},
                      {"updated_after": "yesterday"}):  # fmt: skip
            self.refused(400, "invalid_argument", "GET", "/orgs/personal/machines", query=query)
        self.refused(403, "another organization", "GET", "/orgs/others/machines")
