"""
The way from us to a program that must not outlive us: C{python -I -S leash.py PARENT PROGRAM …}.

Were the daemon killed, a restic that goes on would write into what the next daemon sweeps. So
the kernel ends it with the thread that waits for it. It is a program of its own because a
process with threads may do next to nothing between fork and exec.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from contextlib import suppress

PR_SET_PDEATHSIG = 1
NICENESS = 10
"""Behind the user's own programs."""
AUTOGROUP = "/proc/self/autogroup"
"""Where the kernel shares the processor out by sessions (sched(7)) the niceness that counts is the
session's. So the program has one of its own. A kernel without that has no such file; others may
refuse who is not root for 0.1 s after a change of any session's."""


def main() -> None:
    """Become the program."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(sys.argv[1]):
        return  # Its death came before the wish to hear of it.
    os.setsid()
    os.nice(NICENESS)
    with suppress(OSError), open(AUTOGROUP, "w") as file:  # None, or not now.
        file.write(f"{NICENESS}")
    os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606 -- no shell is what is wanted


if __name__ == "__main__":
    main()
