"""What a directory is: the record of who has which machine, and in which state."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from zope.interface import Interface

from matrix.model import Event, Machine, User, UserId

Watcher = Callable[[UserId | None], None]
"""Told which user's row changed, or C{None} when any may have."""


class StaleRow(Exception):
    """The row changed since it was read: another process acted first. Read it again."""


class UnknownUser(LookupError):
    """There is no row for this user, so nothing can hang on it: admit the user first."""


class DirectoryUnavailable(Exception):
    """
    The database cannot be reached now, or cannot do it now.

    Nothing was changed; only when the connection broke while a write was under way is that
    uncertain, and then the write was done whole or not at all: read the row again.
    """


class IDirectory(Interface):
    """
    Users, machines and events.

    Every method but L{watch} and L{stale_since} returns an awaitable and raises
    L{DirectoryUnavailable} while the database cannot be reached. Writes are one statement
    or one transaction each: done whole, or not at all. Cancelling an awaitable abandons its
    result; a write that was sent is still done.
    """

    async def user(user_id: UserId) -> User | None:
        """The user, or C{None} if never seen."""

    async def admit(user_id: UserId, email: str) -> User:
        """The user, made now if never seen. Many callers at once make one row. An address
        that is not empty replaces the one on record."""

    async def find_user(text: str) -> User | None:
        """
        The user an operator means: a UUID, an e-mail address, or the part before the C{@}
        if exactly one user has it (case-insensitive).
        """

    async def machine(user_id: UserId) -> Machine | None:
        """The user's machine, or C{None}."""

    async def machines(after: UserId | None = None, limit: int = 1000) -> Sequence[Machine]:
        """A page of all machines in order of user id, after C{after}."""

    async def create_machine(user_id: UserId, provider: str) -> Machine:
        """
        The user's machine row, made now in state C{provisioning} if there is none.

        @raise UnknownUser: the user was never admitted.
        """

    async def change(machine: Machine, **fields: object) -> Machine:
        """
        Set columns of a machine's row, if it still has C{machine.generation}; the result
        has the next generation. All routers are told (C{NOTIFY machine}).

        @param fields: attributes of L{Machine} with their new values (C{state=...}, ...).
        @raise StaleRow: the row has another generation, or is gone.
        @raise TypeError: no such attribute, one that is not to be changed (C{user_id},
            C{generation}), or a value of another type.
        """

    async def touch(last_active: Mapping[UserId, float]) -> None:
        """Note when machines were last used (unix seconds). Never goes back in time, does
        not count as a change of the row: no new generation, no notification. Users without
        a machine are passed over."""

    async def record(
        user_id: UserId, kind: str, cause: str, detail: Mapping[str, object] | None = None
    ) -> None:
        """
        Add an event, at the database's time.

        @raise UnknownUser: the user was never admitted.
        """

    async def events(user_id: UserId, limit: int = 50) -> Sequence[Event]:
        """The user's events, newest first."""

    def watch(changed: Watcher) -> None:
        """
        Call C{changed} with the user id whenever a machine's row or a user's state or idle
        timeout changed, in this process or another, and with C{None} when changes may have
        been missed (the listening connection was lost and is back): then everything known
        must be re-read. The call may come before the change's own awaitable has fired.
        """

    def stale_since() -> float | None:
        """Since when (the clock's seconds) changes may go unnoticed; C{None} while all is well."""
