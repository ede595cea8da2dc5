"""What a directory is: the record of who has which machine, and in which state."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from zope.interface import Attribute, Interface

from matrix.directory._isnapshots import ISnapshots
from matrix.directory._stock_interface import IStock
from matrix.directory._upkeep_contract import Chore, Erasing, IUpkeep, Upkeep
from matrix.directory.awake import IAwake
from matrix.directory.housekeeping import IDuties, IPaces, IRoll, IStrays
from matrix.directory.wakes import IWakes
from matrix.model import (
    AccessChange,
    Busy,
    Event,
    Machine,
    Principal,
    Session,
    SignIn,
    User,
    UserId,
    UserState,
)

__all__ = [
    "AccessWatcher",
    "Chore",
    "DirectoryUnavailable",
    "Erasing",
    "IDirectory",
    "ISessions",
    "ISignIns",
    "IStock",
    "ITickets",
    "IUpkeep",
    "StaleRow",
    "UnknownUser",
    "Upkeep",
    "Watcher",
]

Watcher = Callable[[UserId | None], None]
"""Told which user's row changed, or C{None} when any may have."""

AccessWatcher = Callable[[AccessChange | None], None]
"""Told what changed in who may come in, or C{None} when anything may have."""


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


class ISessions(Interface):
    """
    Sign-ins: which were seen, until when their tokens are good, and which were revoked.

    What L{IDirectory} says of awaitables holds here too. A session id is the canonical text of
    a UUID, as in L{matrix.model.Principal}.
    """

    async def note(seen: Mapping[str, tuple[UserId, float]]) -> None:
        """
        Note sessions of which good tokens were seen; very many in several transactions.

        @param seen: by session id, the user and when the token expires (unix seconds). What is
            on record never goes back.
        """

    async def newest(session_ids: Collection[str]) -> Mapping[str, float]:
        """When the newest token of each of these sessions expires (unix seconds). Sessions that
        are unknown, and revoked ones, are left out."""

    async def of_user(user_id: UserId, limit: int = 100) -> Sequence[Session]:
        """The user's sessions: first those whose newest token lives longest."""

    async def revoke(
        session_id: str, cause: str, user_id: UserId | None = None, *, ended: bool = False
    ) -> Session:
        """
        Let nobody in any more by this session, were it never seen. All routers are told (C{NOTIFY
        access}). An event C{revoke} is recorded if its user is known. A session that is revoked
        already keeps its time and cause.

        @param cause: who or what wants it, in a word: C{operator}, C{sign-out}, C{issuer}.
        @param user_id: whose session it is, if that is known.
        @param ended: whether it was ended at its issuer too, so that no new tokens of it can come:
            then it is remembered only until all that there may be have expired.
        """

    async def revoke_user(user_id: UserId, cause: str) -> Sequence[str]:
        """
        Revoke all sessions on record of this user, in one transaction and with one event.

        @return: the ids of those that were not revoked before.
        """

    async def revoked() -> Collection[str]:
        """The ids of all revoked sessions of which good tokens may still come."""

    async def purge() -> int:
        """
        Forget what nobody needs any more.

        @return: how many sessions were forgotten.
        """

    def watch(changed: AccessWatcher) -> None:
        """
        Call C{changed} whenever a user's state changed or a session was revoked, in this process
        or another, and with C{None} when changes may have been missed: then everything known must
        be re-read. The call may come before the change's own awaitable has fired.
        """


class ISignIns(Interface):
    """
    Browsers' sign-ins whose tokens the routers keep, sealed, and refresh in turns.

    What L{IDirectory} says of awaitables holds here too. When a session is revoked
    (L{ISessions}), and when a user is deleted, their sign-ins are gone.
    """

    async def add(sign_in: SignIn) -> None:
        """Keep a new sign-in."""

    async def find(sign_in_id: str) -> SignIn | None:
        """The sign-in, or C{None} if there is none of this id, or it has ended."""

    async def claim(sign_in: SignIn, owner: str, seconds: float) -> bool:
        """
        Be the one who replaces its tokens, unless somebody else is, or has since it was read.
        For the same owner it may be claimed again.

        @param seconds: after which another may.
        """

    async def replace(sign_in: SignIn, sealed: bytes) -> SignIn | None:
        """
        Keep new tokens instead, whoever claimed it: the result has the next generation, and is
        nobody's claim. C{None}, and nothing is changed, if it was replaced since it was read,
        or is gone.
        """

    async def release(sign_in: SignIn, owner: str) -> None:
        """Let others have the claim now; nothing happens if it is not this owner's."""

    async def remove(sign_in_id: str) -> bool:
        """
        Forget a sign-in.

        @return: whether there was one.
        """

    async def purge() -> int:
        """
        Forget those that have ended.

        @return: how many they were.
        """


class ITickets(Interface):
    """
    What stands for a credential for a moment, known by digests alone.

    What L{IDirectory} says of awaitables holds here too.
    """

    async def keep(digest: bytes, principal: Principal, life: float) -> None:
        """
        Note a new ticket; forget some old ones.

        @param digest: of the ticket, 32 bytes.
        @param life: seconds for which it is good.
        """

    async def take(digest: bytes) -> Principal | None:
        """
        Whose ticket this is, if it is good: nobody can take it again, through whichever
        router. C{None} if it was taken, is too old or unknown, or if its user or its session
        may not come in any more.
        """


class IBusy(Interface):
    """
    What machines say that they are busy with, so that they are not put to sleep for want of use.

    What L{IDirectory} says of awaitables holds here too. There is one lease for a machine.
    """

    async def hold(user_id: UserId, reason: str, seconds: float, longest: float) -> Busy:
        """
        Keep a machine awake, from now for so many seconds, instead of for as long as it said
        before. One that is being put to sleep for want of use stays awake: its row has another
        generation then. A lease where there was none is an event C{busy}, its cause the reason.

        @param longest: seconds without use for which leases count.
        @raise UnknownUser: there is no such user, or they may not come in.
        """

    async def end(user_id: UserId) -> bool:
        """
        It is busy no more.

        @return: whether it was.
        """

    async def of(user_ids: Collection[UserId]) -> Mapping[UserId, Busy]:
        """What those of these users' machines are busy with that are."""


class IDirectory(Interface):
    """
    Users, machines, events, sessions, sign-ins, tickets, leases, and the upkeep of snapshots.

    Every method but L{watch} and L{stale_since} returns an awaitable and raises
    L{DirectoryUnavailable} while the database cannot be reached. Writes are one statement
    or one transaction each: done whole, or not at all. Cancelling an awaitable abandons its
    result; a write that was sent is still done.
    """

    awake: IAwake = Attribute("For how long machines are awake, and what for.")
    sessions: ISessions = Attribute("Sign-ins, and which of them were revoked.")
    sign_ins: ISignIns = Attribute("The tokens of those that routers look after for browsers.")
    snapshots: ISnapshots = Attribute("Which snapshots there are, and when the next are due.")
    tickets: ITickets = Attribute("What stands for a credential for a moment.")
    busy: IBusy = Attribute("What machines are busy with though nobody uses them.")
    roll: IRoll = Attribute("The machines' rows in bulk.")
    strays: IStrays = Attribute("What belongs to nobody at the provider.")
    duties: IDuties = Attribute("What is done by one router at a time.")
    paces: IPaces = Attribute("How often all routers together may do something.")
    upkeep: IUpkeep = Attribute("What is due for users' snapshots.")
    wakes: IWakes = Attribute("What a wake asks for, at once.")
    stock: IStock = Attribute("Machines that wait for a user.")

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

    async def set_user_state(user_id: UserId, state: UserState, cause: str = "operator") -> User:
        """
        Let a user in, or no more. Those who watch L{sessions} are told of a change, on all
        routers; it is recorded as an event: C{unblock}, C{block} or C{delete}.

        @raise UnknownUser: the user was never admitted.
        @raise Erasing: they were deleted, and it is too late to let them in again.
        """

    async def not_active(user_ids: Collection[UserId]) -> Mapping[UserId, UserState]:
        """Which of these users are blocked or deleted."""

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
        a machine are passed over, and so are machines that are being drained: the row goes on
        saying what was known of use when that was decided."""

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
