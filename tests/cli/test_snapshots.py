"""C{matrix snapshot} and C{matrix snapshots}: what they ask, and how they show it."""

import json

from .test_commands import AdminApi, CommandTestCase

NAME = "0123456789abcdef" * 4
GOOD = {
    "snapshot": NAME,
    "status": "done",
    "cause": "suspend",
    "started_at": "2026-11-23T12:00:00+00:00",
    "finished_at": "2026-11-23T12:00:03.5+00:00",
    "seconds": 3.5,
    "bytes_added": 3_000_000,
    "bytes_total": 20_000_000_000,
    "partial": False,
    "reason": None,
    "verified_at": None,
}
FAILED = {
    **GOOD,
    "snapshot": None,
    "status": "failed",
    "bytes_added": None,
    "bytes_total": None,
    "reason": "no space\x1b[2J left",
}
RUNNING = {**FAILED, "status": "started", "seconds": None, "finished_at": None, "reason": None}
PROGRESS = {
    "kind": "progress",
    "stage": "backup",
    "files_done": 1,
    "bytes_done": 5,
    "bytes_total": 9,
}
DONE = {"kind": "done", "snapshot": NAME, "bytes_added": 700, "bytes_total": 5000, "partial": False}
TAKE = "/admin/v1/users/alice/snapshot"


class SnapshotTests(CommandTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.running()

    def answer(self, *lines: object) -> None:
        AdminApi.answers[TAKE] = (200, b"".join(json.dumps(one).encode() + b"\n" for one in lines))

    def test_one_that_was_taken(self) -> None:
        self.answer(PROGRESS, DONE)
        self.assertEqual(
            self.works("snapshot", "alice"), "snapshot 01234567: 700 B new, 4.9 KiB in all\n"
        )
        self.assertEqual(AdminApi.asked, [f"POST {TAKE}"])

    def test_one_that_lacks_files(self) -> None:
        self.answer({**DONE, "partial": True})
        self.assertIn("some files could not be read", self.works("snapshot", "alice"))

    def test_one_that_was_not_needed(self) -> None:
        self.answer({"kind": "unchanged"})
        self.assertIn("nothing has changed", self.works("snapshot", "alice"))

    def test_one_that_failed(self) -> None:
        self.answer(PROGRESS, {"kind": "failed", "reason": "no space\x1b[2J left", "retry": True})
        self.assertIn("no snapshot: no space", self.fails("snapshot", "alice"))
        self.assertNotIn("\x1b", self.fails("snapshot", "alice"))

    def test_one_that_nobody_tells_the_end_of(self) -> None:
        self.answer(PROGRESS)
        self.assertIn("broke off", self.fails("snapshot", "alice"))
        self.answer()
        self.assertIn("broke off", self.fails("snapshot", "alice"))

    def test_what_is_no_matrix(self) -> None:
        AdminApi.answers[TAKE] = (200, b"<html>")
        self.assertIn("is not Matrix", self.fails("snapshot", "alice"))
        AdminApi.answers[TAKE] = (403, {"title": "Not allowed", "detail": "no snapshots here"})
        self.assertIn("no snapshots here", self.fails("snapshot", "alice"))

    def test_json(self) -> None:
        self.answer(PROGRESS, DONE)
        lines = self.works("snapshot", "alice", "--json").splitlines()
        self.assertEqual([json.loads(line)["kind"] for line in lines], ["progress", "done"])


class SnapshotsTests(CommandTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.running()

    def test_a_users(self) -> None:
        path = "/admin/v1/users/alice/snapshots"
        listed = [RUNNING, FAILED, GOOD, {**GOOD, "verified_at": "2026-11-23T13:00:00+00:00"}]
        AdminApi.answers[path] = (200, {"on": True, "snapshots": listed})
        text = self.works("snapshots", "alice", "--limit", "4")
        self.assertEqual(AdminApi.asked, [f"GET {path}?limit=4"])
        head, running, failed, good, tried = text.splitlines()
        for column in ("STARTED", "SNAPSHOT", "CAUSE", "TOOK", "NEW", "IN ALL"):
            self.assertIn(column, head)
        self.assertIn("started", running)
        self.assertIn("no space", failed)
        self.assertNotIn("\x1b", failed)
        self.assertRegex(good, "01234567 +suspend +3.5 s +2.9 MiB +19 GiB")
        self.assertIn("tried 2026-11-23", tried)

    def test_everybodys(self) -> None:
        alice = {"user": "id", "email": "alice@localhost", "due_at": None, "failures": 0}
        bob = {"user": "bobs-id", "email": "", "due_at": None, "failures": 3}
        users = [
            {**bob, "newest": None, "reason": "no space"},
            {**alice, "newest": GOOD, "reason": None},
        ]
        AdminApi.answers["/admin/v1/snapshots"] = (200, {"on": True, "users": users})
        _, first, second = self.works("snapshots").splitlines()
        self.assertRegex(first, "bobs-id +never +3 +no space")
        self.assertRegex(second, "alice@localhost +2026-11-23 .* 01234567 +19 GiB")

    def test_none(self) -> None:
        AdminApi.answers["/admin/v1/snapshots"] = (200, {"on": True, "users": []})
        self.assertEqual(self.works("snapshots"), "no snapshots yet\n")
        AdminApi.answers["/admin/v1/snapshots"] = (200, {"on": False, "users": []})
        self.assertIn("docs/snapshots.md", self.works("snapshots"))
