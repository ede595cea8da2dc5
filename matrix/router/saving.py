"""Saving: what is done for a machine's data before it sleeps, as its router sees it."""

from __future__ import annotations

from typing import Protocol

from matrix.http import Backend
from matrix.model import Machine, UserId


class Saver(Protocol):
    """Takes snapshots of machines."""

    def holds(self, user_id: UserId) -> bool:
        """Whether a snapshot of the user's machine is under way, which sleep would break off.
        Such a machine is not put to sleep for want of use. Asked often: it must be cheap."""

    async def before_rest(self, machine: Machine, backend: Backend, cause: str) -> None:
        """
        Take what is due before a machine sleeps, within C{MATRIX_SNAPSHOT_BUDGET}. Never fails:
        a machine sleeps all the same, and what could not be done is done when it wakes.

        Cancelled when somebody comes: the machine stays awake then.

        @param machine: its row, in state C{draining}; the lease is ours for as long as this takes.
        @param backend: connections to it, through which no user's request goes any more.
        @param cause: why it is to sleep.
        """


class NoSaver:
    """A L{Saver} where no snapshots are taken."""

    def holds(self, user_id: UserId) -> bool:
        """See L{Saver.holds}."""
        return False

    async def before_rest(self, machine: Machine, backend: Backend, cause: str) -> None:
        """See L{Saver.before_rest}."""
