"""
Snapshots of a whole Matrix whose parts are killed again and again.

For C{script/snapshots}, not for every run of the tests: by default a hundred times, a daemon, the
router, the S3 server or a prune is killed at a random moment of a backup, a prune or a restore.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from urllib.error import URLError
from urllib.parse import quote

from matrix.auth import MachineSecrets
from matrix.daemon.volume import COPIES
from matrix.processes import read_pid_file, signal_process
from matrix.snapshots import Dated, Desk, EmbeddedSeaweed, ResticFailed, Shelf
from matrix.testing.running import RunningMatrix
from matrix.testing.running_case import MatrixCase

KILLS = int(os.environ.get("SNAPSHOT_TRIAL_KILLS", "100"))
SEED = int(os.environ.get("SNAPSHOT_TRIAL_SEED", "1"))

LATEST = 2.5
"""Seconds after which a piece of work is hit at the latest: some are over by then."""
BACK_SECONDS = 180.0
"""For everything to be well again after a kill, on a busy host."""
FILE_BYTES = 1 << 20
KEPT = 6
"""Snapshots that a prune leaves."""

FILES = "/v1/files/"
USER = "alice"

Files = Mapping[str, str]
"""What a machine has: the hash of each file."""

BROKEN_OFF = (AssertionError, OSError, URLError, HTTPException, ValueError, TimeoutError)
"""What a kill may do to those who wait."""


class SteadyMatrix(RunningMatrix):
    """One that is found at the same address after each start, as an operator's is: machines that
    live on know where it was."""

    def _arguments(self) -> list[str]:
        if not hasattr(self, "_internal_port"):
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                self._internal_port = probe.getsockname()[1]
        place = f"127.0.0.1:{self._internal_port}"
        return [place if word == "127.0.0.1:0" else word for word in super()._arguments()]


class KillTests(MatrixCase):
    """An embedded Matrix: everything on this host, an S3 server of its own."""

    @classmethod
    def setUpClass(cls) -> None:
        cls.matrix = SteadyMatrix(snapshots="true", snapshot_interval=3600, keeping_hours="off")
        cls.addClassCleanup(cls.forget)
        cls.matrix.start()

    def setUp(self) -> None:
        self.chance = random.Random(SEED)
        self.pool = ThreadPoolExecutor(1)
        self.addCleanup(self.pool.shutdown)
        self.known: dict[str, Files] = {}
        """What each snapshot must hold, as far as it was heard that it was taken."""
        self.tally: Counter[str] = Counter()
        self.number = 0

    # the parts

    def desk(self) -> Desk:
        """With full rights, as keeping has them."""
        return Desk(EmbeddedSeaweed.find(self.matrix.state / "s3"), "users/")

    @property
    def password(self) -> str:
        master = (self.matrix.state / "master-secret").read_text().strip()
        return MachineSecrets(master).restic_password(self.matrix.user_id(USER))

    def restic(self, *arguments: str) -> subprocess.Popen[bytes]:
        """A run of restic on alice's repository."""
        return subprocess.Popen(
            self.desk().command(*arguments),
            env=self.desk().environment(self.matrix.user_id(USER), self.password),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def done(self, *arguments: str) -> bytes:
        """A run that succeeds."""
        with self.restic(*arguments) as process:
            out, err = process.communicate()
        self.assertEqual(process.returncode, 0, (arguments, err.decode()[-2000:]))
        return out

    def shelf(self) -> Shelf:
        return Shelf(self.desk(), self.matrix.user_id(USER), self.password)

    def present(self) -> Files:
        """What alice's machine has, by its own account."""
        found = {}
        for name in self.names():
            answer = self.ask(USER, "GET", FILES + quote(name))
            self.assertEqual(answer.status, 200, (name, answer.body[:300]))
            found[name] = hashlib.sha256(answer.body).hexdigest()
        return found

    def names(self) -> list[str]:
        listed = self.ask(USER, "GET", FILES)
        self.assertEqual(listed.status, 200, listed.body[:300])
        return [one["name"] for one in json.loads(listed.body)["entries"]]

    # the work

    def change(self) -> None:
        """Alice writes a file, and deletes an old one."""
        self.number += 1
        content = self.chance.randbytes(self.chance.randrange(FILE_BYTES))
        answer = self.ask(USER, "PUT", f"{FILES}file-{self.number}", content)
        self.assertEqual(answer.status, 201, answer.body[:300])
        names = self.names()
        if len(names) > 8:
            self.ask(USER, "DELETE", FILES + quote(self.chance.choice(names)))

    def backup(self) -> str:
        """Take a snapshot of all that there is now; its id, or nothing if there was one already."""
        token = self.matrix.announced["admin_token"]
        said = self.matrix._internal(f"/admin/v1/users/{USER}/snapshot", "POST", token)
        last = json.loads(said.splitlines()[-1])
        if last["kind"] == "unchanged":
            return ""
        if last["kind"] != "done":
            raise ValueError(last)
        return str(last["snapshot"])

    def prune(self) -> str:
        """As keeping does: forget the oldest, and what only they needed."""
        self.done("unlock")
        old = sorted(self.shelf().snapshots(), key=lambda one: one.at)[:-KEPT]
        for words in (["forget", *(one.id for one in old)] if old else [], ["prune"]):
            if words:
                self.pruning = self.restic(*words)
                err = self.pruning.communicate()[1]
                if self.pruning.returncode:
                    raise ValueError(err)
        return ""

    def restore(self) -> str:
        """Some snapshot whose content is known, onto the machine."""
        there = {one.id for one in self.shelf().snapshots()}
        chosen = self.chance.choice(sorted(there & self.known.keys()))
        self.wanted = self.known[chosen]
        self.matrix.admin(f"users/{USER}/restore?discard=true&snapshot={chosen}", "POST")
        return ""

    # the kills

    def kill_daemon(self) -> None:
        self.matrix.kill_machine(USER)

    def kill_router(self) -> None:
        self.matrix.kill()

    def kill_store(self) -> None:
        process = read_pid_file(self.matrix.state / "s3" / "seaweedfs.pid")
        if process is not None:
            signal_process(process, signal.SIGKILL)

    def kill_prune(self) -> None:
        if self.pruning is not None:
            self.pruning.kill()

    def test_kills(self) -> None:
        self.until_well()
        self.change()
        self.eventually("a first snapshot is taken", self.another)
        began = time.monotonic()
        for _ in range(KILLS):
            self.hit()
        self.tell("kills", seconds=round(time.monotonic() - began), **self.tally)
        self.verify()

    def hit(self) -> None:
        """One piece of work, and one kill amid it; then all is well, and nothing torn."""
        self.pruning: subprocess.Popen[bytes] | None = None
        self.wanted: Files | None = None
        self.change()
        before = self.present()
        work = self.chance.choice([self.backup, self.backup, self.prune, self.restore])
        victims = [self.kill_daemon, self.kill_router, self.kill_store]
        victim = self.chance.choice([*victims, self.kill_prune] if work == self.prune else victims)
        running: Future[str] = self.pool.submit(work)
        time.sleep(self.chance.uniform(0.05, LATEST))
        over = running.done()
        victim()
        outcome = self.ended(running)
        if victim == self.kill_router:
            self.matrix.start()
        self.until_well()
        after = self.present()
        if work != self.restore:
            self.assertEqual(after, before, "nothing is lost of what was not replaced")
        else:
            self.assertIn(after, (before, self.wanted), "it is as it was, or restored: whole")
        if work == self.backup and outcome:
            self.known[outcome] = before  # nobody writes while it is taken
        name = f"{work.__name__}_{victim.__name__.removeprefix('kill_')}"
        self.tally[name + ("_late" if over else "")] += 1

    def ended(self, running: Future[str]) -> str | None:
        """What a piece of work gave; C{None} if the kill ended it."""
        try:
            return running.result(BACK_SECONDS)
        except (*BROKEN_OFF, ResticFailed):
            return None

    def until_well(self) -> None:
        """Until alice's machine answers, and the store."""
        self.eventually("alice is served", lambda: bool(self.names() or True))
        self.eventually("the store answers", lambda: bool(self.store_answers()))

    def store_answers(self) -> bool:
        with self.restic("cat", "config") as process:
            said = process.communicate()[1].decode()
        return process.returncode == 0 or "key does not exist" in said

    def eventually(self, what: str, happens: Callable[[], bool]) -> None:
        deadline, error = time.monotonic() + BACK_SECONDS, ""
        while time.monotonic() < deadline:
            try:
                if happens():
                    return
            except BROKEN_OFF as caught:
                error = repr(caught)
            time.sleep(0.2)
        self.fail(
            f"after {BACK_SECONDS:.0f} s not: {what}; {error}\n{self.matrix.output()[-4000:]}"
        )

    # afterwards

    def verify(self) -> None:
        """Every snapshot called good restores, every byte is right, nothing stays locked."""
        self.change()
        self.eventually("another snapshot is taken", self.another)
        self.done("unlock")
        self.done("prune")
        self.done("check", "--read-data")
        there = {one.id: one for one in self.shelf().snapshots()}
        told = self.matrix.admin(f"users/{USER}/snapshots?limit=1000")["snapshots"]
        good = [one["snapshot"] for one in told if one["status"] == "done"]
        restored = [id for id in good if id in there]
        for id in {*restored, *there}:
            with self.brought(there[id]) as files:
                if id in self.known:
                    self.assertEqual(files, self.known[id], id)
        self.assertTrue(set(self.known) & there.keys(), "some were compared")
        self.tell("verified", called_good=len(good), kept=len(there), compared=len(restored))

    def another(self) -> bool:
        before = self.present()
        id = self.backup()
        if id:
            self.known[id] = before
        return bool(id)

    @contextmanager
    def brought(self, snapshot: Dated) -> Iterator[Files]:
        """What a snapshot holds of alice's files."""
        target = Path(self.matrix.home) / "brought"
        self.shelf().bring(snapshot, target, COPIES)
        try:
            workspace = target / "workspace"
            yield {
                one.name: hashlib.sha256(one.read_bytes()).hexdigest()
                for one in workspace.iterdir()
                if one.is_file()
            }
        finally:
            shutil.rmtree(target)
