"""What the directory knows of machines that wait for a user."""

from __future__ import annotations

from collections.abc import Sequence

from zope.interface import Interface

from matrix.model import Machine


class IStock(Interface):
    """
    Machines that were made before anybody asked for them.

    What L{IDirectory} says of awaitables holds here too. A machine in stock is a L{Machine} whose
    C{user_id} is nobody's: it names the place that the machine has in stock, and is new for each
    machine.
    """

    async def begin(provider: str, size: int, made_of: str, owner: str) -> Machine | None:
        """
        A place to be filled: one that somebody began and left, or a new one if there are fewer
        than C{size}. For some time nobody else gets it. C{None} if there is nothing to be done.

        @param made_of: what machines are made of now: those of something else are no good.
        """

    async def surplus(provider: str, size: int, made_of: str, owner: str) -> Machine | None:
        """
        A place to be emptied: one too many, or one whose machine has been made of something else
        for long. Nobody gets its machine, nor, for some time, the place. C{None} if there is none.
        """

    async def change(place: Machine, **fields: object) -> Machine:
        """
        Set columns of a place that is being filled; the lease on it is prolonged.

        @param fields: as for L{IDirectory.change}, those that a machine without a user has.
        @raise StaleRow: somebody else has it by now.
        """

    async def ready(place: Machine) -> None:
        """
        Its machine is there for whoever comes.

        @raise StaleRow: somebody else has it by now.
        """

    async def drop(place: Machine) -> None:
        """
        There is nothing there any more.

        @raise StaleRow: somebody else has it by now.
        """

    async def claim(machine: Machine, made_of: str, step: str) -> Machine | None:
        """
        Give a machine in stock to a user who has none, in one transaction: the place is free, and
        the result is the user's row with all that is known of the machine, its next generation.
        C{None} if none is ready.

        @param machine: the user's row.
        @param step: the row's C{provision_step} then.
        @raise StaleRow: the row has another generation, or is gone.
        """

    async def places(provider: str) -> Sequence[Machine]:
        """All that there are, filled or not."""

    async def count(provider: str, made_of: str) -> int:
        """How many are ready."""
