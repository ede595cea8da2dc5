"""A worker's process ends with its supervisor, even if its loop hangs."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time

from twisted.trial.unittest import SynchronousTestCase

HANGS = """
import socket, sys
from matrix.router.workers.lifeline import die_with
die_with(socket.socket(fileno=int(sys.argv[1])), 0.05)
print("hangs", flush=True)
while True:
    pass
"""


class LifelineTests(SynchronousTestCase):
    def test_it_is_killed_soon_after_the_other_end_is_gone(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            number = theirs.fileno()
            child = subprocess.Popen(
                [sys.executable, "-c", HANGS, str(number)],
                pass_fds=[number],
                stdout=subprocess.PIPE,
            )
        self.addCleanup(child.kill)
        assert child.stdout is not None
        with child.stdout, ours:
            self.assertEqual(child.stdout.readline(), b"hangs\n")
            time.sleep(0.2)
            self.assertIsNone(child.poll(), "not while we are there")
        self.assertEqual(child.wait(10), -signal.SIGKILL)
