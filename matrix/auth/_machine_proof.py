"""Whether a secret is the one of a user's machine, as the directory knows its epoch."""

from __future__ import annotations

import hmac
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace

from twisted.internet.interfaces import IReactorTime

from matrix.directory.interfaces import DirectoryUnavailable, IDirectory
from matrix.errors import Forbidden, Unavailable
from matrix.model import UserId, UserState

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
    deleted: bool


class MachineProof:
    """Knows machines by one kind of the secrets that are derived for them
    (L{matrix.auth.MachineSecrets})."""

    def __init__(
        self,
        directory: IDirectory,
        secret: Callable[[UserId, int], str],
        clock: IReactorTime,
    ) -> None:
        """@param secret: the kind of secret, of a user and their machine's secret epoch."""
        self._directory = directory
        self._secret = secret
        self._clock = clock
        self._known: OrderedDict[UserId, _Known] = OrderedDict()
        self._changes = 0
        directory.watch(self._changed)

    async def fits(self, who: UserId, given: bytes) -> bool:
        """
        Whether this is the secret of the user's machine; compared in constant time.

        @raise Forbidden: it is, and the user was deleted.
        @raise Unavailable: that cannot be said now.
        """
        known = self._known.get(who)
        fresh = known is not None and self._age(known) < FRESH_SECONDS
        if known is None or not (fresh and self._same(who, known, given)):
            if known is None or self._age(known) >= AGAIN_SECONDS:
                known = await self._look_up(who, known)
            if known is None or not self._same(who, known, given):
                return False
        if known.deleted:
            raise Forbidden("this user was deleted; nothing more is taken", reason="deleted")
        return True

    def _changed(self, who: UserId | None) -> None:
        """Something about this user changed, or perhaps about any: what is known is asked again,
        or believed for a while if nobody can be asked."""
        self._changes += 1
        for one in list(self._known) if who is None else [who]:
            if (known := self._known.get(one)) is not None:
                aged = min(known.at, self._clock.seconds() - FRESH_SECONDS)
                self._known[one] = replace(known, at=aged)

    def _age(self, known: _Known) -> float:
        return self._clock.seconds() - known.at

    def _same(self, who: UserId, known: _Known, given: bytes) -> bool:
        return hmac.compare_digest(self._secret(who, known.epoch).encode(), given)

    async def _look_up(self, who: UserId, known: _Known | None) -> _Known | None:
        """
        What the directory says now; C{None} if the user has no machine.

        @raise Unavailable: it says nothing, and what it said last is too old.
        """
        changes = self._changes
        try:
            machine = await self._directory.machine(who)
            user = None if machine is None else await self._directory.user(who)
        except DirectoryUnavailable:
            if known is not None and self._age(known) < STALE_SECONDS:
                return known
            raise Unavailable(
                "whose credential this is cannot be said now", reason="directory", retry_after=1.0
            ) from None
        if machine is None:
            self._known.pop(who, None)
            return None
        deleted = user is None or user.state is UserState.DELETED
        # What changed meanwhile may be this: then it is good for this once.
        at = self._clock.seconds() - (FRESH_SECONDS if self._changes != changes else 0.0)
        self._known[who] = found = _Known(machine.secret_epoch, at, deleted)
        self._known.move_to_end(who)
        if len(self._known) > MEMORY:
            self._known.popitem(last=False)
        return found
