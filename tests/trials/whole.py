"""A whole Matrix under snapshots: one user's large home, and another user who must not notice."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from matrix.testing.running import environment_of
from matrix.testing.running_case import MatrixCase
from matrix.testing.wire import Answer
from tests.trials import elsewhere
from tests.trials.asking import snapshot
from tests.trials.bystander import Bystander
from tests.trials.home import (
    DATABASE_SHARE,
    MIB,
    SMALL_FILES,
    Base,
    Listing,
    change,
    differences,
    give,
    listing,
    make_home,
    verify,
)

READY_SECONDS = 180.0
"""For the S3 server to be there: 2.5 s, on a busy host much longer."""
BACK_SECONDS = 600.0
"""For a machine that was destroyed to answer again, its data restored."""
IDLE = "idle"
NOTES = "base/notes"


class WholeCase(MatrixCase):
    """
    An embedded Matrix; alice's home is the large one. Her machine and the S3 server have a
    processor apart, as on hosts of their own.
    """

    SETTINGS = {
        "snapshots": "true",
        "snapshot_interval": 3600,
        "keeping_hours": "off",
        "local_command": elsewhere.command("alice"),
    }
    MEGABYTES: int
    CHANGED: int
    """Megabytes that are new at the second snapshot: a third of them in the database."""
    MOVED: float
    """Megabytes that the second snapshot may move."""
    QUIET: float
    """Seconds for which nothing goes on, before and after each thing that does."""
    PAUSE: float = 0.005
    """Seconds between bob's requests."""
    SEED: int = 1

    def setUp(self) -> None:
        self.chance = random.Random(self.SEED)
        with ThreadPoolExecutor(2) as pool:
            answers = list(pool.map(self.home_page, ("alice", "bob")))
        self.assertEqual([answer.status for answer in answers], [200, 200])
        self.matrix.until(
            lambda: "snapshots are kept in" in self.matrix.output(), READY_SECONDS, "there is S3"
        )
        elsewhere.move_store(self.matrix)

    def home_page(self, user: str) -> Answer:
        """Which makes the user's machine."""
        return self.ask(user, "GET", "/v1/files/")

    @property
    def home(self) -> Path:
        workspace: Path = self.matrix.workspace("alice")
        return workspace

    def make(self) -> Base:
        """Fill alice's home; the program with its database goes on writing to it."""
        owner = self.home.stat()
        make_home(self.home, self.MEGABYTES, self.chance)
        (self.home / "base").mkdir()
        give(self.home, owner)
        daemon = self.matrix.machine_processes("alice")[0]
        environment = dict(
            word.decode().split("=", 1) for word in environment_of(daemon) if b"=" in word
        )
        base = Base(self.home / "base" / "notes.sqlite", owner, environment)
        self.addCleanup(base.close)
        base.do("fill", int(self.MEGABYTES * MIB * DATABASE_SHARE))
        return base

    @contextmanager
    def watched(self) -> Iterator[Bystander]:
        """Bob sends requests all the time."""
        self.assertEqual(self.ask("bob", "PUT", "/v1/files/note", b"bob's").status, 201)
        matrix = self.matrix
        bystander = Bystander(
            matrix.door, matrix.token("bob"), matrix.memory, "/v1/files/note", self.PAUSE
        )
        bystander.start()
        try:
            yield bystander
        finally:
            bystander.stop()

    def rest(self, bystander: Bystander) -> None:
        """Let nothing go on for a while."""
        with bystander.during(IDLE):
            time.sleep(self.QUIET)

    def taken(self, bystander: Bystander, what: str) -> dict[str, Any]:
        """A snapshot of alice's, which is good."""
        with bystander.during(what):
            done = snapshot(self.matrix, "alice")
        self.assertEqual((done["kind"], done.get("partial")), ("done", False), done)
        self.rest(bystander)
        return done

    def uploaded(self) -> float:
        """Bytes that machines have sent to the repository service."""
        return float(self.matrix.metric("matrix_repository_bytes_total", direction="in"))

    def destroy(self) -> None:
        """Alice's machine is gone with all its data, as if their host had burnt."""
        self.matrix.kill_machine("alice")
        shutil.rmtree(self.home.parent.parent)

    def come_back(self) -> int:
        """Ask until there is an answer; its status."""
        deadline = time.monotonic() + BACK_SECONDS
        while time.monotonic() < deadline:
            answer = self.ask("alice", "GET", "/v1/files/", seconds=120)
            if answer.status != 503:
                return answer.status
            time.sleep(float(answer.headers.get("retry-after", 1)))
        return answer.status

    # the whole of it

    def whole_path(self) -> Bystander:
        """First snapshot, changes, second snapshot, the machine's end, and all is there again."""
        base = self.make()
        self.tell("home", MB=self.MEGABYTES, small_files=SMALL_FILES * self.MEGABYTES)
        with self.watched() as bystander:
            self.rest(bystander)
            self.first(bystander)
            row = self.alter(base)
            before = listing(self.home, without=NOTES)
            committed = self.second(bystander, base)
            self.destroy()
            base.close()
            with bystander.during("restore"):
                self.assertEqual(self.come_back(), 200)
            self.tell("restore", seconds_to_first_byte=round(bystander.seconds("restore"), 1))
            self.rest(bystander)
        self.compare(before, committed, row)
        self.report(bystander)
        return bystander

    def first(self, bystander: Bystander) -> None:
        """The home's first snapshot."""
        sent = self.uploaded()
        done = self.taken(bystander, "first snapshot")
        self.tell_of("first snapshot", done, sent)

    def alter(self, base: Base) -> int:
        """Change what is to be changed; the row that was altered."""
        owner = self.home.stat()
        part = self.CHANGED * MIB // 3
        last = base.do("fill", part)
        base.do("alter", last // 2)
        change(self.home, self.CHANGED * MIB - part, self.chance)
        give(self.home, owner)
        return last // 2

    def second(self, bystander: Bystander, base: Base) -> int:
        """The changes' snapshot; the last row that was committed before it."""
        committed, sent = base.do("tell"), self.uploaded()
        done = self.taken(bystander, "second snapshot")
        moved = self.tell_of("second snapshot", done, sent)
        self.assertLess(moved, self.MOVED * MIB)
        return committed

    def tell_of(self, what: str, done: dict[str, Any], before: float) -> float:
        """Figures of a snapshot; bytes that came in for it."""
        moved = self.uploaded() - before
        self.tell(
            what,
            seconds=round(done["seconds"], 1),
            MiB_at_the_service=round(moved / MIB, 1),
            MiB_in_its_row=round(done["bytes_added"] / MIB, 1),
            MiB_in_all=round(done["bytes_total"] / MIB),
        )
        return moved

    def compare(self, before: Listing, committed: int, row: int) -> None:
        """Everything is what it was, byte for byte."""
        after = listing(self.home, without=NOTES)
        self.assertEqual(differences(before, after)[:20], [])
        owner = self.home.stat()
        owners = {(path.lstat().st_uid, path.lstat().st_gid) for path in self.home.rglob("*")}
        self.assertEqual(owners, {(owner.st_uid, owner.st_gid)})
        rows, altered = verify(self.home / "base" / "notes.sqlite")
        self.assertGreaterEqual(rows, committed, "what was committed is there")
        self.assertEqual(altered, [row])
        self.tell("compared", paths=len(after), rows=rows, committed_before=committed)

    def report(self, bystander: Bystander) -> None:
        """What bob saw."""
        least = bystander.mebibytes(IDLE, min)
        for what in (IDLE, "first snapshot", "second snapshot", "restore"):
            self.tell(
                f"bob, {what}",
                p99_ms=round(bystander.p99(what), 1),
                times_idle=round(bystander.p99(what) / bystander.p99(IDLE), 2),
                usual_p99_ms=round(bystander.usual_p99(what), 1),
                slowest_ms=round(bystander.slowest(what)),
                memory_above_idle_MiB=round(bystander.mebibytes(what) - least, 1),
            )
        self.tell("bob was answered", **bystander.outcomes)
        self.assertEqual(set(bystander.outcomes), {"200"})
