"""The PostgreSQL that tests share: private, gone at the end, swept up after a kill."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from matrix.processes import find, is_alive
from matrix.testing import postgres

USE = """
import os, signal, sys
from matrix.testing import postgres
server = postgres.server()
one, two = postgres.fresh_database(), postgres.fresh_database()
assert one != two
postgres.execute("INSERT INTO users (id) VALUES (gen_random_uuid())", one)
assert postgres.execute("SELECT count(*) FROM users", two) == [(0,)]
postgres.drop_database(one)
print(server.process.pid, server._cluster.root.parent, flush=True)
if sys.argv[1] == "die":
    os.kill(os.getpid(), signal.SIGKILL)
"""


class SharedServerTests(SynchronousTestCase):
    """L{matrix.testing.postgres}."""

    def setUp(self) -> None:
        postgres.server()
        # Other test runs sweep, too: not here.
        self.private = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.private)
        self.patch(tempfile, "tempdir", self.private)

    def use(self, ending: str) -> tuple[bool, Path]:
        """Use it in a process; whether the server still runs after, and its directory."""
        done = subprocess.run(
            [sys.executable, "-c", USE, ending],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": self.private},
        )
        self.assertEqual(done.returncode, -signal.SIGKILL if ending == "die" else 0)
        pid, directory = done.stdout.split()
        process = find(int(pid))
        return process is not None and is_alive(process), Path(directory)

    def test_it_is_gone_when_the_process_ends(self) -> None:
        runs, directory = self.use("exit")
        self.assertFalse(runs)
        self.assertFalse(directory.exists())

    def test_what_a_killed_process_left_is_swept_up(self) -> None:
        runs, directory = self.use("die")
        self.assertTrue(runs)
        lines = (directory / "cluster" / "data" / "postmaster.pid").read_text().splitlines()
        process = find(int(lines[0]))
        postgres.sweep()
        self.assertFalse(directory.exists())
        self.assertFalse(process and is_alive(process))
        self.assertEqual(postgres.execute("SELECT 1"), [(1,)])
