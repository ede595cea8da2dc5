"""
The store of a whole Matrix hangs amid the backups of many users: all are completed afterwards.

For C{script/snapshots}, not for every run of the tests: by default fifty users and two minutes.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import time
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from matrix.testing.running_case import MatrixCase
from tests.trials.asking import snapshot
from tests.trials.bystander import Bystander
from tests.trials.home import MIB
from tests.trials.store import hanging

USERS = int(os.environ.get("SNAPSHOT_TRIAL_USERS", "50"))
USER_MB = int(os.environ.get("SNAPSHOT_TRIAL_USER_MB", "16"))
OUTAGE = float(os.environ.get("SNAPSHOT_TRIAL_OUTAGE", "120"))
"""Seconds."""
QUIET = float(os.environ.get("SNAPSHOT_TRIAL_QUIET", "15"))
SEED = int(os.environ.get("SNAPSHOT_TRIAL_SEED", "1"))

GATHER_SECONDS = 300.0
"""For all to be amid their backups, on a busy host."""
BOTS = 6
"""Machines that are made at a time."""
AFTER_SECONDS = 600.0
"""For the backups to be completed: restic tries again after pauses of up to a minute."""
SENT = 2 * MIB
"""By which a backup is under way: its repository is open, and content on its way."""
POLL_SECONDS = 0.02
ASK_SECONDS = 0.2
"""Between two requests of users whose backups hang."""
SLOWER = 2.0
"""By how much the slowest hundredth of another user's requests may take longer in the outage."""

IDLE, GATHERING, HANGING, AFTER = "idle", "backups", "outage", "after the outage"

Running = dict[str, Future[dict[str, Any]]]


class OutageTests(MatrixCase):
    """An embedded Matrix with many small machines."""

    SETTINGS = {
        "snapshots": "true",
        "snapshot_interval": 7200,
        "snapshot_at_once": USERS,
        "keeping_hours": "off",
        "wake_timeout": 120,
    }

    def setUp(self) -> None:
        self.users = [f"user{number}" for number in range(USERS)]
        self.chance = random.Random(SEED)
        self.held: set[int] = set()
        """Processes of restic's that are stopped by us."""

    def test_it_hangs(self) -> None:
        self.make()
        matrix = self.matrix
        bob = Bystander(matrix.door, matrix.token("bob"), matrix.memory, "/v1/files/note")
        with ThreadPoolExecutor(USERS) as pool:
            bob.start()
            try:
                self.rest(bob)
                with bob.during(GATHERING):
                    running = {user: pool.submit(snapshot, matrix, user) for user in self.users}
                    self.gather(running)
                with bob.during(HANGING), hanging(matrix):
                    self.tell("the store hangs", under_way=len(self.held))
                    self.release()
                    self.outage(running)
                with bob.during(AFTER):
                    self.all_complete(running)
                self.rest(bob)
            finally:
                self.release()
                bob.stop()
        self.report(bob)

    def rest(self, bob: Bystander) -> None:
        """Let nothing go on for a while."""
        with bob.during(IDLE):
            time.sleep(QUIET)

    def make(self) -> None:
        """Everybody's machine, with a first snapshot and then something new."""
        with ThreadPoolExecutor(BOTS) as pool:
            list(pool.map(self.arrive, [*self.users, "bob"]))
            list(pool.map(lambda user: snapshot(self.matrix, user), self.users))
        for user in self.users:
            content = self.chance.randbytes(USER_MB * MIB)
            (self.matrix.workspace(user) / "much").write_bytes(content)
        self.tell("users", machines=USERS, MB_each=USER_MB)

    def arrive(self, user: str) -> None:
        """A user's machine is made by the first request."""
        answer = self.ask(user, "PUT", "/v1/files/note", user.encode(), seconds=180)
        self.assertEqual(answer.status, 201, answer.body[:300])

    # at the start

    def gather(self, running: Running) -> None:
        """
        Have all amid their backups at the same time: a restic that has sent something is stopped
        until all others have, too.
        """
        deadline = time.monotonic() + GATHER_SECONDS
        while len(self.held) < USERS:
            self.assertLess(time.monotonic(), deadline, f"only {len(self.held)} are under way")
            for pid in set(self.matrix.processes()) - self.held:
                if is_backup(pid) and written(pid) >= SENT:
                    os.kill(pid, signal.SIGSTOP)
                    self.held.add(pid)
            over = [user for user, one in running.items() if one.done()]
            self.assertEqual(over, [], "over before all were under way: give them more to do")
            time.sleep(POLL_SECONDS)

    def release(self) -> None:
        """Let those go on that were stopped."""
        while self.held:
            with suppress(ProcessLookupError):
                os.kill(self.held.pop(), signal.SIGCONT)

    # then

    def outage(self, running: Running) -> None:
        """It lasts; no backup can be completed meanwhile, and their users notice nothing."""
        end = time.monotonic() + OUTAGE
        asked: Counter[int] = Counter()
        for user in itertools.cycle(self.users):
            if time.monotonic() >= end:
                break
            asked[self.ask(user, "GET", "/v1/files/note").status] += 1
            time.sleep(ASK_SECONDS)
        self.tell("those whose backups hang were answered", **{str(k): n for k, n in asked.items()})
        self.assertEqual(set(asked), {200})
        over = [user for user, one in running.items() if one.done()]
        states = Counter(
            self.matrix.admin(f"users/{user}/snapshots?limit=1")["snapshots"][0]["status"]
            for user in self.users
        )
        self.tell("at the outage's end", **states)
        self.assertEqual(over, [], "none has ended, well or not")

    def all_complete(self, running: Running) -> None:
        """Each is good, in its row too, at the first attempt."""
        began = time.monotonic()
        ended = {user: one.result(AFTER_SECONDS) for user, one in running.items()}
        self.tell("all complete", seconds_after_it=round(time.monotonic() - began, 1))
        kinds = Counter(f"{one['kind']}, {one.get('reason')}" for one in ended.values())
        self.assertEqual(kinds, {"done, None": USERS})
        for user in self.users:
            [newest, *_] = self.matrix.admin(f"users/{user}/snapshots")["snapshots"]
            self.assertEqual(
                (newest["status"], newest["partial"], newest["snapshot"]),
                ("done", False, ended[user]["snapshot"]),
            )

    def report(self, bob: Bystander) -> None:
        """What another user saw."""
        least = bob.mebibytes(IDLE, min)
        for what in (IDLE, GATHERING, HANGING, AFTER):
            self.tell(
                f"bob, {what}",
                seconds=round(bob.seconds(what), 1),
                p99_ms=round(bob.p99(what), 1),
                usual_p99_ms=round(bob.usual_p99(what), 1),
                slowest_ms=round(bob.slowest(what)),
                memory_above_idle_MiB=round(bob.mebibytes(what) - least, 1),
            )
        self.tell("bob was answered", **bob.outcomes)
        self.assertEqual(set(bob.outcomes), {"200"})
        self.assertLess(bob.p99(HANGING), SLOWER * bob.p99(IDLE))


def is_backup(pid: int) -> bool:
    """Whether a process is a restic that takes a snapshot."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return words[:2] == [b"restic", b"backup"]


def written(pid: int) -> int:
    """Bytes that a process has written, to sockets too."""
    try:
        fields = Path(f"/proc/{pid}/io").read_text().split()
    except OSError:
        return 0
    return int(fields[fields.index("wchar:") + 1])
