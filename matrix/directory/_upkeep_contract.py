"""What the directory knows of the upkeep of users' snapshots: the contract, and its values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from zope.interface import Interface

from matrix.model import UserId


class Erasing(Exception):
    """What a deleted user had is being erased, or is: they cannot be let in again."""


class Chore(StrEnum):
    """What is done with one user's snapshots, by one process at a time."""

    THIN = "thin"
    """Old snapshots go by the rules of retention, and what only they needed."""
    SCRUB = "scrub"
    """Every stored byte is read and compared with its name."""
    DRILL = "drill"
    """The newest snapshot is restored and looked at."""
    ERASE = "erase"
    """All that a deleted user had goes for good."""


@dataclass(frozen=True, slots=True)
class Upkeep:
    """One row of C{upkeep}."""

    user_id: UserId
    thinned_at: datetime | None = None
    scrubbed_at: datetime | None = None
    """When all of it was last found right."""
    drilled_at: datetime | None = None
    drill_seconds: float | None = None
    """What the last drill took; C{None} also if it failed."""
    drill_bytes: int | None = None
    mark: str | None = None
    """What there was of snapshots when they were last thinned out: if that is so still, there
    is nothing to be done."""
    trouble: str | None = None
    """Why the last attempt at something failed, for the operator."""
    trouble_of: str | None = None
    """Of what: a L{Chore}. It is over when that goes well."""
    failures: int = 0
    """Of that in a row."""
    deleted_at: datetime | None = None
    """When the user was deleted. From then on the repository takes nothing any more."""
    erasing_at: datetime | None = None
    """Since when there is no way back."""
    erased_at: datetime | None = None
    wanted: str | None = None
    """The snapshot that the machine's next empty boot is to restore; C{None} for the newest."""
    wanted_at: datetime | None = None
    """Since when: it is so until one is taken that is newer than that."""


class IUpkeep(Interface):
    """
    When which chore is due for whom, and what came of it.

    What L{IDirectory} says of awaitables holds here too. There is a row for each user who has
    or had a machine, or was deleted. A user is in one pair of hands at a time.
    """

    async def find(user_id: UserId) -> Upkeep | None:
        """The user's row."""

    async def claim(chore: Chore, owner: str, lease: float, spell: float = 0.0) -> Upkeep | None:
        """
        The user for whom this is due longest, claimed for a while; C{None} if it is due for
        nobody. Nobody's row is claimed twice at a time, whatever the chore.

        With L{Chore.ERASE} there is no way back from here on for the user (C{erasing_at}).

        @param lease: seconds until another may claim the user, see L{hold}.
        @param spell: of L{Chore.ERASE}, the seconds that must have passed since the user was
            deleted; of L{Chore.DRILL}, since the last drill with anybody.
        """

    async def hold(user_id: UserId, owner: str, lease: float) -> bool:
        """Claim a user anew who is claimed; whether it was this owner's still."""

    async def done(
        user_id: UserId, owner: str, chore: Chore, again: float, facts: Mapping[str, object]
    ) -> bool:
        """
        It went well; whether it was this owner's still, else nothing is written.

        @param again: seconds after which it is due again.
        @param facts: what came of it: C{mark}, C{drill_seconds}, C{drill_bytes}. Of
            L{Chore.ERASE} C{erased}: whether there was nothing left to be erased, so that it
            is never due again.
        """

    async def failed(user_id: UserId, owner: str, chore: Chore, again: float, why: str) -> bool:
        """
        It did not go well; as L{done}. A drill counts as held all the same, and of several
        chores in trouble the last is on record.
        """

    async def put_off(user_id: UserId, owner: str, chore: Chore, again: float) -> bool:
        """It cannot be done now, which is nobody's fault; as L{failed}, but it does not count."""

    async def want(user_id: UserId, snapshot: str | None) -> None:
        """Set which snapshot the machine's next empty boot is to restore."""

    async def troubled(limit: int = 100) -> Sequence[Upkeep]:
        """Users with whom the last attempt at something failed, most failures first."""
