"""What restic's failures mean: its exit codes say it, or else its words; pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

PARTIAL = 3
"""Exit code: some files could not be read, the rest is in the snapshot (restic 0.10 on)."""
_NO_REPOSITORY, _LOCKED, _WRONG_PASSWORD = 10, 11, 12
"""Exit codes of restic 0.17 on; before, all of these are 1."""

_REFUSED = re.compile(r"\((401|403|413|507)\)")
"""How restic writes the status of an answer that will stay the same. Older ones try these again
for a quarter of an hour."""


_MARK = re.compile(r": (?:\S*[Xx]attr\S*|l?chown|chmod|UtimesNano|utimes?\w*) ")
"""The system calls that set marks of a file, as Go's errors name them."""
_COUNT = re.compile(r"^Fatal: There were \d+ errors")


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a run failed."""

    reason: str
    """One sentence."""
    retry: bool
    """Whether the same may succeed later without anybody's help."""
    no_repository: bool = False
    """Whether there may be none: restic says the same of one that it cannot reach."""
    locked: bool = False
    """Whether somebody else has the repository, or had."""


def is_refusal(line: str) -> bool:
    """Whether a line of standard error tells of an answer that will stay the same."""
    return _REFUSED.search(line) is not None and not _is_deletion(line)


def explain(code: int, complaint: str) -> Fault:
    """
    What the end of a run means.

    @param complaint: its standard error, free of secrets.
    """
    refused = [
        match
        for line in complaint.splitlines()
        if is_refusal(line)
        for match in _REFUSED.findall(line)
    ]
    if refused:
        return _refusals[refused[-1]]
    if code == _WRONG_PASSWORD or "wrong password or no key found" in complaint:
        return Fault("the repository's password is not the one that the router gave us", False)
    if code == _LOCKED or "repository is already locked" in complaint:
        return Fault("the repository is locked by another run", True, locked=True)
    if code == _NO_REPOSITORY or "unable to open config file" in complaint:
        return Fault(f"the repository cannot be opened: {_last(complaint)}", True, True)
    if "no space left on device" in complaint:
        return Fault("the machine's disk is full", True)
    return Fault(_last(complaint) or f"restic ended with {code} and said nothing", True)


def harmless(complaint: str) -> list[str]:
    """
    What a restore complains of, if that is only marks of files (owners, times, attributes) that
    this file system or user cannot set; empty if anything else is among it.
    """
    faults = [line for line in complaint.splitlines() if line.startswith("ignoring error for ")]
    fatal = [line for line in complaint.splitlines() if line.startswith("Fatal:")]
    own = all(_COUNT.search(line) for line in fatal)
    return faults if own and all(_MARK.search(line) for line in faults) else []


_refusals = {
    "401": Fault("the router refused this machine's credential for its repository", True),
    "403": Fault("the router refused what restic wanted to do to the repository", False),
    "413": Fault("the router refused a file that was too large for the repository", False),
    "507": Fault("the repository is full: the user's quota or the store's space is used up", False),
}


def _last(complaint: str) -> str:
    """The line that says most: the last that begins with C{Fatal:}, or the last of all."""
    lines = [line.strip() for line in complaint.splitlines() if line.strip()]
    fatal = [line.removeprefix("Fatal:").strip() for line in lines if line.startswith("Fatal:")]
    return (fatal or lines or [""])[-1][:300]


def _is_deletion(line: str) -> bool:
    """restic deletes what it failed to save before it tries again, and goes on without minding
    that it may not."""
    return line.startswith(("Remove(", "remove "))
