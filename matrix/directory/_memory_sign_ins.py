"""The browsers' sign-ins of the directory's in-memory twin."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from matrix.directory.interfaces import ISignIns
from matrix.model import AccessChange, SignIn, UserState


@implementer(ISignIns)
class MemorySignIns:
    """Sign-ins in a dictionary. Made by L{matrix.directory.MemoryDirectory}."""

    def __init__(self, clock: IReactorTime, reach: Callable[[], None]) -> None:
        """
        @param reach: called first in each awaitable method; raises while there is an outage.
        """
        self._clock = clock
        self._reach = reach
        self._rows: dict[str, SignIn] = {}
        self._leases: dict[str, tuple[str, float]] = {}

    async def add(self, sign_in: SignIn) -> None:
        """See L{ISignIns.add}."""
        self._reach()
        self._rows[sign_in.id] = sign_in

    async def find(self, sign_in_id: str) -> SignIn | None:
        """See L{ISignIns.find}."""
        self._reach()
        found = self._rows.get(sign_in_id)
        return found if found is not None and found.ends_at > self._clock.seconds() else None

    async def claim(self, sign_in: SignIn, owner: str, seconds: float) -> bool:
        """See L{ISignIns.claim}."""
        self._reach()
        now = self._clock.seconds()
        holder, until = self._leases.get(sign_in.id, (owner, now))
        if not self._is_current(sign_in) or (holder != owner and until > now):
            return False
        self._leases[sign_in.id] = owner, now + seconds
        return True

    async def replace(self, sign_in: SignIn, sealed: bytes) -> SignIn | None:
        """See L{ISignIns.replace}."""
        self._reach()
        if not self._is_current(sign_in):
            return None
        self._leases.pop(sign_in.id, None)
        changed = replace(sign_in, sealed=sealed, generation=sign_in.generation + 1)
        self._rows[sign_in.id] = changed
        return changed

    async def release(self, sign_in: SignIn, owner: str) -> None:
        """See L{ISignIns.release}."""
        self._reach()
        if self._leases.get(sign_in.id, ("", 0.0))[0] == owner:
            del self._leases[sign_in.id]

    async def remove(self, sign_in_id: str) -> bool:
        """See L{ISignIns.remove}."""
        self._reach()
        return self._drop(sign_in_id)

    async def purge(self) -> int:
        """See L{ISignIns.purge}."""
        self._reach()
        now = self._clock.seconds()
        ended = [sign_in.id for sign_in in self._rows.values() if sign_in.ends_at <= now]
        return sum(map(self._drop, ended))

    def changed(self, change: AccessChange | None) -> None:
        """Forget those of a session that was revoked, and of a user who was deleted."""
        if change is None:
            return
        deleted = change.user_id if change.state is UserState.DELETED else None
        for sign_in in list(self._rows.values()):
            if sign_in.session_id == change.session_id or sign_in.user_id == deleted:
                self._drop(sign_in.id)

    def _is_current(self, sign_in: SignIn) -> bool:
        found = self._rows.get(sign_in.id)
        return found is not None and found.generation == sign_in.generation

    def _drop(self, sign_in_id: str) -> bool:
        self._leases.pop(sign_in_id, None)
        return self._rows.pop(sign_in_id, None) is not None
