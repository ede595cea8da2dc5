"""restic as a process: what it inherits, what is read of it, and its end."""

from __future__ import annotations

import os
import threading
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from matrix.daemon.briefing import Briefing
from matrix.daemon.restic import Restic
from matrix.daemon.volume import Volume
from matrix.testing.scratch import scratch

BRIEFING = Briefing(
    user="alice",
    router_url="http://box:8001",
    router_token="s3cret-token",
    repository="http://box:8001/restic/alice/",
    account="s3cret-account",
    password="s3cret-password",
)
SHOW = """#!/usr/bin/python3
import json, os
print(json.dumps({**os.environ, "alone": os.getsid(0) == os.getpid()}))
"""
COMPLAIN = """#!/bin/sh
echo "wrong: $RESTIC_PASSWORD" >&2
exit 3
"""
HANG = """#!/bin/sh
echo '{}'
exec sleep 60
"""


class ResticTests(SynchronousTestCase):
    """With programs in its place that take no repository."""

    def restic(self, program: str) -> Restic:
        folder = scratch(self)
        (folder / "restic").write_text(program)
        (folder / "restic").chmod(0o755)
        self.patch(os, "environ", {"PATH": f"{folder}:/usr/bin:/bin", **self.inherited})
        volume = Volume(folder / "data")
        volume.data.mkdir()
        volume.make()
        return Restic(BRIEFING, volume)

    inherited: dict[str, str] = {}

    def shown(self) -> dict[str, Any]:
        told: list[dict[str, Any]] = []
        self.assertEqual(self.restic(SHOW).run("backup", said=told.append).code, 0)
        [found] = told
        return found

    def test_nothing_of_the_users_own_settings_reaches_it(self) -> None:
        self.inherited = {"https_proxy": "http://elsewhere", "RESTIC_REPOSITORY2": "/tmp"}
        self.assertLessEqual(
            set(self.shown()) - {"LC_CTYPE", "alone"},  # the first is Python's own
            {"PATH", "HOME", "RESTIC_CACHE_DIR", "RESTIC_PROGRESS_FPS", "RESTIC_REPOSITORY",
             "RESTIC_PASSWORD"},
        )  # fmt: skip

    def test_in_a_session_of_its_own_it_bears_its_machines_mark(self) -> None:
        self.inherited = {"MATRIX_MACHINE_ID": "alice-1"}
        shown = self.shown()
        self.assertEqual((shown["alone"], shown["MATRIX_MACHINE_ID"]), (True, "alice-1"))

    def test_its_complaint_without_our_secrets(self) -> None:
        ran = self.restic(COMPLAIN).run("backup")
        self.assertEqual((ran.code, ran.complaint, ran.stopped), (3, "wrong: ***\n", False))

    def test_what_runs_is_ended_and_nothing_begins_any_more(self) -> None:
        restic = self.restic(HANG)
        begun = threading.Event()
        killer = threading.Thread(target=lambda: (begun.wait(), restic.stop()))
        killer.start()
        ran = restic.run("backup", said=lambda line: begun.set())
        killer.join()
        self.assertTrue(ran.stopped)
        self.assertEqual(restic.run("backup").code, -1)
