"""How many files, connections included, this process may have open."""

from __future__ import annotations

import resource

MOST = 1_048_576
"""What Linux allows at most unless told otherwise (fs.nr_open). Where the hard limit is higher,
programs that we start and that walk through all numbers up to it would take minutes."""


def allow_many_files() -> int:
    """
    Raise the soft limit, usually 1024, to the hard one: a proxy needs two for each request.

    @return: the limit as it is now.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted
