"""What a directory is to the routers' housekeeping: rows in bulk, strays, duties and paces."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from zope.interface import Interface

from matrix.model import Machine, MachineState, Stray, UserId


class Named(NamedTuple):
    """What a row knows of at its provider: as much as is needed of very many rows."""

    user_id: UserId
    state: MachineState
    region: str | None
    machine_id: str | None
    volume_id: str | None
    former_machine_id: str | None
    former_volume_id: str | None


class IRoll(Interface):
    """
    The machines' rows in bulk. What L{matrix.directory.IDirectory} says of awaitables holds
    here too. But for L{counts} and L{naming}, no more of the table is read than is returned.
    """

    async def of(user_ids: Collection[UserId]) -> Mapping[UserId, Machine]:
        """The rows of these users, as far as they have any."""

    async def in_states(
        provider: str,
        states: Collection[MachineState],
        after: UserId | None = None,
        limit: int = 500,
    ) -> Sequence[Machine]:
        """A page of a provider's rows in these states in order of user id, after C{after}."""

    async def overdue(
        provider: str, idle: float, after: UserId | None = None, limit: int = 500
    ) -> Sequence[Machine]:
        """
        A page of a provider's running machines that nobody has used for longer than they
        may run unused, in order of user id, after C{after}.

        @param idle: seconds; a user's own timeout is longer by as much as it is longer than
            this. A shorter one is not regarded.
        """

    async def made(
        provider: str, after: UserId | None = None, limit: int = 1000
    ) -> Sequence[Named]:
        """
        A page of what a provider's rows know of, without those that know of nothing, in order
        of user id, after C{after}.
        """

    async def naming(id: str) -> Sequence[Machine]:
        """The rows that name this machine or volume, now or as a former one. Reads them all."""

    async def counts() -> Mapping[MachineState, int]:
        """How many rows there are in each state that occurs."""


class IStrays(Interface):
    """
    What was found at the provider that belongs to nobody, and since when. What
    L{matrix.directory.IDirectory} says of awaitables holds here too.
    """

    async def note(strays: Collection[Stray]) -> Sequence[Stray]:
        """
        These were seen just now.

        @return: the same with the times they were seen first and last: at one time if they are
            new.
        """

    async def settle(
        provider: str, seen: Collection[str], blind: Collection[str]
    ) -> Sequence[Stray]:
        """
        Forget what is not astray any more.

        @param seen: the ids of all that are.
        @param blind: regions of which nothing is known now.
        @return: what was forgotten.
        """

    async def remove(id: str) -> None:
        """Forget one."""

    async def all(after: str | None = None, limit: int = 1000) -> Sequence[Stray]:
        """A page of all in order of their ids, after C{after}."""


class IDuties(Interface):
    """
    What is done by one router at a time. What L{matrix.directory.IDirectory} says of awaitables
    holds here too.
    """

    async def claim(name: str, owner: str, seconds: float, every: float = 0.0) -> bool:
        """
        Be the one who does it, unless somebody else is at it. Who claims it already goes on.

        @param seconds: after which another may.
        @param every: seconds from when it was last done until it is due again. Who is at it
            already need not wait.
        """

    async def release(name: str, owner: str, *, done: bool) -> None:
        """Let others have it; nothing happens if it is not this owner's."""


class IPaces(Interface):
    """
    How often all routers together may do something. What L{matrix.directory.IDirectory} says of
    awaitables holds here too.
    """

    async def turn(name: str, per_second: float, burst: int) -> float:
        """Take the next turn; in how many seconds it is. 0 is now."""

    async def hold(name: str, seconds: float) -> None:
        """No turn is before so many seconds from now but those that were given."""
