"""Which machine a backup credential belongs to, as the directory knows it."""

from __future__ import annotations

import hmac
from collections import OrderedDict
from dataclasses import dataclass

from twisted.internet.interfaces import IReactorTime

from matrix.directory.interfaces import DirectoryUnavailable, IDirectory
from matrix.errors import Unavailable
from matrix.http.interfaces import Request
from matrix.model import UserId, user_id
from matrix.snapshots._heads import bad_credentials, basic_credentials
from matrix.snapshots.interfaces import Access, AccountSecret

FRESH_SECONDS = 30.0
"""For how long an epoch is believed without asking: how long a rotated credential lives on."""

AGAIN_SECONDS = 1.0
"""An epoch younger than this is not asked for again because a credential does not fit it: wrong
ones must not become a load on the database."""

STALE_SECONDS = 600.0
"""For how long an epoch is believed while the directory cannot be reached: a backup under way
goes on, as requests of users do."""

MEMORY = 10_000
"""Users whose epochs are remembered."""


@dataclass(frozen=True, slots=True)
class _Known:
    epoch: int
    at: float


class MachineAdmission:
    """
    Lets each machine into its own user's repository (L{matrix.snapshots.interfaces.Admission}).

    The user is the user's id, the password the backup credential derived for the secret
    epoch of the user's machine.
    """

    def __init__(self, directory: IDirectory, secret: AccountSecret, clock: IReactorTime) -> None:
        self._directory = directory
        self._secret = secret
        self._clock = clock
        self._known: OrderedDict[UserId, _Known] = OrderedDict()

    async def admit(self, request: Request) -> Access:
        """See L{matrix.snapshots.interfaces.Admission.admit}."""
        user, password = basic_credentials(request)
        try:
            who = user_id(user)
        except ValueError:
            raise bad_credentials("credential") from None
        given = password.encode()
        known = self._known.get(who)
        if known is not None and self._age(known) < FRESH_SECONDS and self._fits(who, known, given):
            return Access(who)
        if known is None or self._age(known) >= AGAIN_SECONDS:
            known = await self._look_up(who, known)
        if known is None or not self._fits(who, known, given):
            raise bad_credentials("credential")
        return Access(who)

    def _age(self, known: _Known) -> float:
        return self._clock.seconds() - known.at

    def _fits(self, who: UserId, known: _Known, given: bytes) -> bool:
        return hmac.compare_digest(self._secret(who, known.epoch).encode(), given)

    async def _look_up(self, who: UserId, known: _Known | None) -> _Known | None:
        """
        What the directory says now; C{None} if the user has no machine.

        @raise Unavailable: it says nothing, and what it said last is too old.
        """
        try:
            machine = await self._directory.machine(who)
        except DirectoryUnavailable:
            if known is not None and self._age(known) < STALE_SECONDS:
                return known
            raise Unavailable(
                "whose credential this is cannot be said now", reason="directory", retry_after=1.0
            ) from None
        if machine is None:
            self._known.pop(who, None)
            return None
        self._known[who] = found = _Known(machine.secret_epoch, self._clock.seconds())
        self._known.move_to_end(who)
        if len(self._known) > MEMORY:
            self._known.popitem(last=False)
        return found
