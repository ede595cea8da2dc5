"""The names of routers in leases: from a name on the same host it can be told who has ended."""

from __future__ import annotations

import os
import re
import socket
from functools import cache

from matrix.processes import Process, find, host_boot, is_alive

_NUMBERS = re.compile(r":([0-9]+):([0-9]+)$")


@cache
def this_router() -> str:
    """This process's name: C{HOST:PID:STARTED:PLACE}. The host is for people, the rest tells
    the process from all others, within the place."""
    process = find(os.getpid())
    assert process is not None  # it is us
    return f"{socket.gethostname()}:{process.pid}:{process.started}:{_place()}"


def has_ended(owner: str) -> bool:
    """
    Whether the router of that name is known to run no more, so that nobody need wait for its
    lease to expire. Of other places, and of names in another form, nothing is known.
    """
    numbers, _, place = owner.rpartition(":")
    if place != _place():
        return False
    found = _NUMBERS.search(numbers)
    return found is not None and not is_alive(Process(int(found[1]), int(found[2])))


@cache
def _place() -> str:
    """Where process ids mean the same: the boot of the host, and the process namespace."""
    namespace = os.stat("/proc/self/ns/pid").st_ino
    return f"{host_boot()}/{namespace}"
