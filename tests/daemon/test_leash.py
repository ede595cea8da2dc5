"""A program on the leash lets others go first, and does not outlive who holds it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from matrix.daemon import leash
from matrix.processes import find, is_alive, signal_process

LONG = 10.0
"""Seconds, on a host that does much else."""

TOLD = (
    "import json, os; from pathlib import Path; group = Path('/proc/self/autogroup'); "
    "print(json.dumps([os.getsid(0) == os.getpid(), os.getpriority(os.PRIO_PROCESS, 0), "
    "group.read_text() if group.exists() else None]))"
)


class LeashTests(SynchronousTestCase):
    def run_leashed(self, parent: int) -> str:
        words = [sys.executable, "-I", "-S", leash.__file__, str(parent)]
        program = [sys.executable, "-I", "-S", "-c", TOLD]
        return subprocess.run([*words, *program], capture_output=True, text=True, check=True).stdout

    def test_it_goes_behind_all_others(self) -> None:
        alone, niceness, group = json.loads(self.run_leashed(os.getpid()))
        wanted = os.getpriority(os.PRIO_PROCESS, 0) + leash.NICENESS
        self.assertEqual((alone, niceness), (True, min(19, wanted)))
        if os.geteuid() == 0 and Path(leash.AUTOGROUP).exists():  # others may be told to try later
            self.assertIn(f"nice {leash.NICENESS}", group)

    def test_it_ends_with_who_holds_it_though_in_a_session_of_its_own(self) -> None:
        words = [sys.executable, "-I", "-S", leash.__file__]
        code = (
            "import os, subprocess, sys; "
            f"subprocess.run([*{words!r}, str(os.getpid()), 'sh', '-c', 'echo $$; exec sleep 60'])"
        )
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as holder:
            assert holder.stdout is not None
            program = find(int(holder.stdout.readline()))
            assert program is not None
            self.addCleanup(signal_process, program, signal.SIGKILL)
            signal_process(program, signal.SIGSTOP)  # as it may be while its machine sleeps
            holder.kill()
        deadline = time.monotonic() + LONG
        while is_alive(program):
            self.assertLess(time.monotonic(), deadline, "it lives on")
            time.sleep(0.01)

    def test_nothing_begins_for_one_who_is_gone(self) -> None:
        self.assertEqual(self.run_leashed(os.getpid() + 1), "")
