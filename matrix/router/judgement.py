"""What a survey's finds mean beside the rows: in order, suspect, wanted, or nobody's. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta

from matrix.directory import Named
from matrix.machines import Sighted
from matrix.model import Machine, MachineState

STUCK = timedelta(minutes=5)
"""After which a transition at the provider is taken to go on no more (facts/fly.md section 4)."""
STUCK_UPDATE = timedelta(minutes=10)
"""The same for a change of config."""

_UPDATES = frozenset({"updating", "replacing"})

_S = MachineState

_ENDING = frozenset({_S.DESTROYING, _S.DESTROYED})

_WANTING = frozenset({_S.PROVISIONING, _S.FAILED, _S.LOST})
"""States of rows whose user is to have a machine that the row may not know."""

_CONTENT = {
    _S.RUNNING: frozenset({_S.RUNNING}),
    _S.SUSPENDED: frozenset({_S.SUSPENDED}),
    _S.STOPPED: frozenset({_S.STOPPED}),
    _S.FAILED: frozenset({_S.SUSPENDED, _S.STOPPED}),
}
"""What may be seen of a machine in whose row nothing is wrong. One that failed and rests costs
nothing, and its row says why."""


def is_stuck(seen: Sighted, now: datetime) -> bool:
    """Whether a machine's transition has taken longer than any does."""
    if seen.kind != "machine" or seen.state is not None or seen.since is None:
        return False
    return now - seen.since > (STUCK_UPDATE if seen.said in _UPDATES else STUCK)


def is_suspect(row: Machine, seen: Sighted, now: datetime) -> bool:
    """
    Whether the row may be wrong about its machine. That is to be looked at once more before
    anything is concluded: the survey may be older than the row.
    """
    if row.state in _ENDING:
        return False
    if seen.state is None:
        return is_stuck(seen, now)
    if row.state is _S.FAILED and seen.since is not None and now - seen.since < STUCK:
        return False  # it may still come up
    return seen.state not in _CONTENT.get(row.state, frozenset())


def is_vanished(row: Named, seen: set[str], blind: set[str]) -> bool:
    """Whether a row's machine should have been in a survey and was not."""
    return (
        row.machine_id is not None
        and row.machine_id not in seen
        and row.region not in blind
        and row.state is not _S.LOST
        and row.state not in _ENDING
    )


def moved_volume(row: Machine, seen: Sighted) -> bool:
    """Whether a machine has got another volume: so it is when the provider moves it."""
    return (
        seen.kind == "volume"
        and seen.attached is not None
        and seen.attached == row.machine_id
        and seen.id not in named(row)
    )


def is_wanted(row: Machine, seen: Sighted) -> bool:
    """Whether a row's user is to have a machine, and this one, unknown to the row, is theirs."""
    unknown = row.machine_id is None or row.state is _S.LOST
    if seen.kind != "machine" or not seen.ours or _is_moving(row):
        return False
    return unknown and row.state in _WANTING and seen.id not in named(row)


def why_astray(row: Machine | None, seen: Sighted) -> str | None:
    """
    Why something belongs to nobody, for the operator; C{None} if it does not, or may yet be
    taken up.

    @param row: of the user whose it says that it is.
    """
    if seen.user_id is None:
        return "Matrix did not make it"
    if row is None:
        return "no user has it, nor is it in stock"
    if row.state is _S.DESTROYED:
        return "the user's machine was destroyed"
    if seen.id in named(row) or row.state is _S.DESTROYING or _is_moving(row):
        return None
    if seen.kind == "machine":
        return None if is_wanted(row, seen) else f"the user has machine {row.machine_id}"
    if seen.attached is not None:  # the machine that has it is judged by itself
        return None
    if row.volume_id is None and row.provision_step is not None:
        return None  # the next attempt to make their machine finds it by its name
    return f"the user has volume {row.volume_id}"


def named(row: Machine | Named) -> set[str]:
    """All that the row knows of."""
    known = (row.machine_id, row.volume_id, row.former_machine_id, row.former_volume_id)
    return {one for one in known if one is not None}


def _is_moving(row: Machine) -> bool:
    """Whether the row has more than one machine in hand: whose each is, is not for us to say."""
    return row.former_machine_id is not None or row.former_volume_id is not None
