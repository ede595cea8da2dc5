"""Snapshots as a daemon takes them: the real restic, a real process, a real repository."""

from __future__ import annotations

import json

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from matrix.testing.home_case import HomeCase
from matrix.testing.restic import ALICE


class TakingTests(HomeCase, TestCase):
    reactor = reactor

    async def setUp(self) -> None:
        super().setUp()
        await self.open_doors()

    async def test_first_snapshot_begins_the_repository(self) -> None:
        daemon = self.boot()
        await self.ready(daemon)
        (daemon.root / "notes.txt").write_text("hello")
        events = await self.snapshot(daemon, tags=["a-tag"])
        last = events[-1]
        self.assertEqual((last["kind"], last["partial"]), ("done", False))
        self.assertRegex(last["snapshot"], "^[0-9a-f]{64}$")
        self.assertEqual({event["stage"] for event in events[:-1]}, {"quiesce", "backup"})
        (listed,) = json.loads((await self.done("snapshots", "--json")).out)
        self.assertEqual(listed["id"], last["snapshot"])
        self.assertEqual(listed["hostname"], ALICE)
        self.assertEqual(sorted(listed["tags"]), ["a-tag", "operator"])
        _, _, content = await self.call(daemon, "GET", "/-/snapshot")
        state = json.loads(content)
        self.assertIsNone(state["running"])
        self.assertEqual(state["last"]["snapshot"], last["snapshot"])

    async def test_unchanged_data_are_not_read_again(self) -> None:
        daemon = self.boot()
        await self.ready(daemon)
        (daemon.root / "f").write_text("1")
        await self.taken(daemon)
        events = await self.snapshot(daemon, unless_unchanged=True)
        self.assertEqual(events[-1]["kind"], "unchanged")
        (daemon.data / ".profile").write_text("outside the workspace")
        events = await self.snapshot(daemon, unless_unchanged=True)
        self.assertEqual(events[-1]["kind"], "done")
