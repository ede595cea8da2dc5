"""What the directory keeps of snapshots: those that there are, and when the next are due."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from zope.interface import Interface

from matrix.model import Snapshot, Standing, UserId


class ISnapshots(Interface):
    """
    Snapshots of users' data, by whom they are being taken, and when the next are due.

    What L{matrix.directory.IDirectory} says of awaitables holds here too. A user has at most one
    snapshot under way, whichever routers ask. Who takes it holds a lease on it and prolongs it;
    one whose lease has expired is anybody's to close. Of those that end a snapshot each returns
    whether it was still its owner's: if not, nothing was changed.
    """

    # when they are due

    async def enroll(due_in: Mapping[UserId, float]) -> None:
        """
        See that each of these users has a time for the next snapshot: who has one keeps it, were
        it long past. Those who were never admitted are passed over.

        @param due_in: seconds from now, by user.
        """

    async def claim(
        user_ids: Collection[UserId], cause: str, owner: str, lease: float, limit: int
    ) -> Sequence[Snapshot]:
        """
        Begin those of these users' snapshots that are due, the longest due first. Of several
        routers that ask at once each user's is begun by one, and none waits for another.

        @param lease: seconds for which others leave them to C{owner}.
        @param limit: so many at most.
        """

    # taking one

    async def begin(user_id: UserId, cause: str, owner: str, lease: float) -> Snapshot | None:
        """
        Begin one now, due or not. C{None} if one is under way.

        @raise UnknownUser: the user was never admitted.
        """

    async def under_way(user_id: UserId) -> Snapshot | None:
        """The one that is being taken."""

    async def prolong(snapshot: Snapshot, lease: float) -> bool:
        """Hold it for so many seconds from now."""

    async def finish(
        snapshot: Snapshot,
        restic_id: str,
        bytes_added: int,
        bytes_total: int,
        due_in: float | None,
        *,
        partial: bool = False,
    ) -> bool:
        """
        It is taken, and good.

        @param due_in: seconds until the next; C{None}: there is nothing to be taken until the
            user is L{enroll}ed again.
        """

    async def drop(snapshot: Snapshot, due_in: float | None) -> bool:
        """It was not needed: nothing had changed since the last good one. It leaves no trace."""

    async def fail(snapshot: Snapshot, reason: str, due_in: float) -> bool:
        """
        It could not be taken.

        @param due_in: seconds until the next attempt.
        """

    async def take_over(owner: str, lease: float, limit: int) -> Sequence[Snapshot]:
        """Make those one's own whose lease has expired: their router has ended, or lost the
        directory for long."""

    # what there is

    async def of_user(user_id: UserId, limit: int = 50) -> Sequence[Snapshot]:
        """A user's snapshots and attempts, newest first."""

    async def newest(user_id: UserId) -> Snapshot | None:
        """A user's newest good one."""

    async def standings(limit: int = 1000) -> Sequence[Standing]:
        """How it is with users' snapshots: first those whose attempts fail, the most often
        failed first; then those whose newest is oldest."""

    async def failing() -> int:
        """Of how many users the last attempt failed."""

    # what becomes of them

    async def verified(user_id: UserId, restic_ids: Collection[str]) -> None:
        """Note that these were restored, or all their content read, and found right now."""

    async def keep_only(user_id: UserId, restic_ids: Collection[str]) -> int:
        """
        Forget the good ones that the repository has no more.

        @param restic_ids: those that it has. Ones begun or ended within the last hour are
            left alone, for they may be younger than this list.
        @return: how many were forgotten.
        """

    async def purge(older: float) -> int:
        """
        Forget attempts that failed so many seconds ago.

        @return: how many.
        """
