"""Snapshots as a daemon takes them: the real restic, a real process, a real repository."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import re
import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from matrix.processes import descendants, find, is_alive
from matrix.snapshots import Shape
from matrix.testing.daemon_process import DaemonProcess
from matrix.testing.home_case import HomeCase
from matrix.testing.restic import ALICE

KILLS = int(os.environ.get("TEST_KILLS", "1"))
"""Lives of a machine in the test of kills, each of three deaths; more than CI has time for find
more."""

KEPT = ("whole.json", "last-snapshot.json", "restic")
"""What is in the daemon's own directory when nothing is under way."""


def furnish(data: Path) -> None:
    """Write what a user may have: folders, links, modes, times, odd names, a database in use."""
    root = data / "workspace"
    (root / "src" / "deep").mkdir(parents=True)
    (root / "src" / "deep" / "a.py").write_text("print(1)")
    (root / "run.sh").write_text("#!/bin/sh")
    (root / "run.sh").chmod(0o750)
    (root / "link").symlink_to("src/deep/a.py")
    (root / "empty").mkdir(mode=0o700)
    os.link(root / "run.sh", root / "same")
    Path(os.fsdecode(os.fsencode(root) + b"/caf\xe9 [1]*?")).write_bytes(b"odd name")
    (data / ".bashrc").write_text("alias m=matrix")
    with closing(sqlite3.connect(root / "src" / "app.db")) as database:
        database.execute("CREATE TABLE t (n)")
        database.executemany("INSERT INTO t VALUES (?)", [(n,) for n in range(1000)])
        database.commit()
    os.utime(root / "run.sh", (1_000_000_000, 1_000_000_000))
    os.utime(root / "src" / "deep", (1_100_000_000, 1_100_000_000))


def listing(data: Path) -> dict[str, tuple[object, ...]]:
    """All that is the user's: kinds, modes, times and contents."""
    found: dict[str, tuple[object, ...]] = {}
    for place, folders, names in os.walk(data):
        if place == str(data):
            folders[:] = [f for f in folders if f not in (".matrix", ".incoming", ".cache")]
        for name in (*folders, *names):
            path = Path(place, name)
            seen = path.lstat()
            content: object = None
            if path.is_symlink():
                content = path.readlink()
            elif path.is_file():
                content = hashlib.sha256(path.read_bytes()).hexdigest()
            key = str(path.relative_to(data))
            found[key] = (seen.st_mode, seen.st_mtime_ns, content)
    found.pop("workspace", None)  # its time is that of the daemon's own start
    return found


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
        events = await self.snapshot(daemon, unless_unchanged=True)
        self.assertEqual(events[-1]["kind"], "unchanged")
        (daemon.data / ".profile").write_text("outside the workspace")
        events = await self.snapshot(daemon, unless_unchanged=True)
        self.assertEqual(events[-1]["kind"], "done")

    async def test_killed_amid_a_backup_it_takes_the_next_one(self) -> None:
        await self.begin_repository()
        daemon = self.boot()
        await self.ready(daemon)
        (daemon.root / "large").write_bytes(os.urandom(150_000_000))
        call = self.call(daemon, "POST", "/-/snapshot", {"cause": "interval"})
        began = Deferred.fromCoroutine(call)
        await self.until_backing_up(daemon)
        status, _, content = await self.call(daemon, "POST", "/-/snapshot", {"cause": "suspend"})
        self.assertEqual((status, json.loads(content)["reason"]), (409, "running"))
        leader = find(daemon.process.pid)
        assert leader is not None
        [restic] = descendants(leader)
        daemon.process.kill()
        with contextlib.suppress(EOFError, OSError):
            await began
        daemon.process.wait()
        while is_alive(restic):
            await self.aside(time.sleep, 0.02)
        again = self.boot()
        await self.ready(again)
        snapshot = await self.taken(again)
        await self.done("unlock")  # what restic was just sending as it died may have come since
        self.assertEqual((await self.done("list", "locks")).out, "")
        await self.sound()
        _, _, content = await self.call(again, "GET", "/v1/snapshots")
        self.assertIn(snapshot, [each["id"] for each in json.loads(content)["snapshots"]])

    async def until_backing_up(self, daemon: DaemonProcess) -> None:
        for _ in range(400):
            _, _, content = await self.call(daemon, "GET", "/-/snapshot")
            running = json.loads(content)["running"]
            if running and running["bytes_done"]:
                return
            await self.aside(time.sleep, 0.02)
        self.fail("no bytes were backed up")

    async def test_full_quota_is_told_at_once_and_needs_somebody(self) -> None:
        await self.open_doors(Shape(quota=100_000))
        await self.begin_repository()
        daemon = self.boot()
        await self.ready(daemon)
        (daemon.root / "large").write_bytes(os.urandom(3_000_000))
        *_, last = await self.snapshot(daemon)
        self.assertEqual((last["kind"], last["retry"]), ("failed", False))
        self.assertIn("quota", last["reason"])

    async def test_without_snapshots_the_routes_say_so(self) -> None:
        daemon = self.boot(MATRIX_RESTIC_REPOSITORY="")
        await self.ready(daemon)
        for method, path in (("POST", "/-/snapshot"), ("GET", "/v1/snapshots")):
            status, _, content = await self.call(daemon, method, path, {})
            self.assertEqual(status, 501)
            self.assertIn("MATRIX_RESTIC_REPOSITORY", json.loads(content)["detail"])


class RestoringTests(HomeCase, TestCase):
    reactor = reactor

    async def setUp(self) -> None:
        super().setUp()
        await self.open_doors()

    def moved_house(self, name: str = "machine-2") -> Path:
        """Where the user's next machine is: a new, empty volume."""
        top = self.folder / name
        top.mkdir()
        return top

    def left_over(self, data: Path) -> list[str]:
        return [p.name for p in (data / ".matrix").iterdir() if p.name not in KEPT]

    async def test_what_was_there_is_there_again_and_until_then_it_says_how_far_it_is(self) -> None:
        await self.begin_repository()
        first = self.boot()
        await self.ready(first)
        furnish(first.data)
        (first.root / "large").write_bytes(os.urandom(40_000_000))
        await self.taken(first)
        before = listing(first.data)
        await self.aside(first.stop)
        self.router.down = True
        second = self.boot(self.moved_house())
        said = await self.answers(second, "waiting")
        self.assertIn("restoring; waiting=the router answered 503", said[-1])
        self.router.down = False
        said = await self.answers(second, "whole")
        amounts = [re.match(r"restoring; done=(\d+); total=(\d+)$", each) for each in said]
        done = [(int(each[1]), int(each[2])) for each in amounts if each]
        self.assertGreater(min(total for _, total in done[1:]), 40_000_000)
        self.assertGreater(len({amount for amount, _ in done}), 2)
        self.assertEqual(listing(second.data), before)
        self.assertEqual(self.left_over(second.data), [])

    async def answers(self, daemon: DaemonProcess, until: str) -> list[str]:
        """What it says of itself until that is among it, or until it serves."""
        said: list[str] = []
        for _ in range(1000):
            try:
                status, fields, _ = await self.call(daemon, "GET", "/healthz")
            except OSError:
                await self.aside(time.sleep, 0.02)
                continue
            if status == 200:
                return said
            self.assertEqual((status, fields["retry-after"]), (503, "1"))
            said.append(fields["matrix-machine"])
            await self.aside(time.sleep, 0.02)
            if until in said[-1]:
                return said
        raise AssertionError(said[-1])

    async def test_killed_at_any_moment_it_comes_home_at_the_next_boot(self) -> None:
        await self.begin_repository()
        first = self.boot()
        await self.ready(first)
        furnish(first.data)
        for number in range(300):
            (first.root / f"file-{number}").write_bytes(os.urandom(2000))
        (first.root / "large").write_bytes(os.urandom(20_000_000))
        await self.taken(first)
        before = listing(first.data)
        await self.aside(first.stop)
        chance = random.Random(KILLS)
        for life in range(KILLS):
            top = self.moved_house(f"life-{life}")
            for _ in range(3):
                daemon = self.boot(top)
                await self.aside(time.sleep, chance.uniform(0.2, 3.0))
                daemon.process.kill()
                daemon.process.wait()
            last = self.boot(top)
            await self.ready(last)
            self.assertEqual(listing(last.data), before)
            self.assertEqual(self.left_over(last.data), [])
            await self.aside(last.stop)


class PastTests(HomeCase, TestCase):
    """Snapshots are looked into, and a file is brought back."""

    reactor = reactor

    async def setUp(self) -> None:
        super().setUp()
        await self.open_doors()

    async def test_one_file_of_many_comes_back(self) -> None:
        await self.begin_repository()
        daemon = self.boot()
        await self.ready(daemon)
        furnish(daemon.data)
        with closing(sqlite3.connect(daemon.root / "live.db", isolation_level=None)) as live:
            live.execute("PRAGMA journal_mode = WAL")
            live.execute("CREATE TABLE t (n)")
            live.execute("INSERT INTO t VALUES (7)")
            snapshot = await self.taken(daemon)
        _, _, content = await self.call(daemon, "GET", "/v1/snapshots")
        self.assertEqual([each["id"] for each in json.loads(content)["snapshots"]], [snapshot])
        names = await self.names(daemon, snapshot, "workspace")
        self.assertEqual(names["src"], "directory")
        self.assertEqual((names["live.db"], names["link"]), ("file", "link"))
        self.assertEqual((await self.names(daemon, snapshot, ""))["workspace"], "directory")
        place = f"/-/snapshots/{snapshot}/file?path=workspace/src/deep/a.py"
        status, fields, content = await self.call(daemon, "GET", place)
        self.assertEqual((status, content), (200, b"print(1)"))
        self.assertIn("a.py", fields["content-disposition"])
        shutil.rmtree(daemon.root)
        for path in ("workspace/src/deep/a.py", "workspace/live.db"):
            body = {"snapshot": snapshot, "path": path}
            status, _, content = await self.call(daemon, "POST", "/v1/snapshots/restore", body)
            self.assertEqual(status, 201, content)
        self.assertEqual((daemon.root / "src" / "deep" / "a.py").read_text(), "print(1)")
        with closing(sqlite3.connect(daemon.root / "live.db")) as again:
            self.assertEqual(again.execute("SELECT n FROM t").fetchall(), [(7,)])
        await self.refusals(daemon, snapshot)

    async def refusals(self, daemon: DaemonProcess, snapshot: str) -> None:
        script = {"snapshot": snapshot, "path": "workspace/run.sh"}
        for wanted, status in (
            ({**script, "to": "src/deep/a.py"}, 409),
            ({**script, "to": "src/deep/a.py", "overwrite": True}, 200),
            ({**script, "path": "workspace/src"}, 409),
            ({**script, "path": "workspace/none"}, 404),
            ({**script, "path": "workspace/../x"}, 400),
            ({**script, "path": ".bashrc"}, 400),
            ({**script, "snapshot": "ab" * 32}, 404),
            ({**script, "snapshot": "--help"}, 400),
            ({"path": "x"}, 400),
        ):
            answer = await self.call(daemon, "POST", "/-/restore", wanted)
            self.assertEqual(answer[0], status, (wanted, answer[2]))
        self.assertEqual((daemon.root / "src" / "deep" / "a.py").read_text(), "#!/bin/sh")

    async def names(self, daemon: DaemonProcess, snapshot: str, path: str) -> dict[str, str]:
        place = f"/v1/snapshots/{snapshot}/files?path={path}"
        status, _, content = await self.call(daemon, "GET", place)
        self.assertEqual(status, 200, content)
        return {each["name"]: each["kind"] for each in json.loads(content)["entries"]}
