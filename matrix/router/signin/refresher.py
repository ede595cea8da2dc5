"""Refreshing the tokens of a sign-in: of all requests and all routers, one asks the issuer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from matrix.auth import ApiRefusal, ApiUnreachable, AuthApi, Latchkey
from matrix.directory import DirectoryUnavailable, ISignIns
from matrix.errors import Unavailable
from matrix.flights import Flights
from matrix.metrics import Registry, series
from matrix.model import SignIn
from matrix.router.signin.wallet import Wallet

LEASE = 15.0
"""Seconds for which one router has the issuer to itself: longer than a call may take."""

PATIENCE = 20.0
"""Seconds that others wait for it: longer than its lease, so that one of them can take over."""

POLL = 0.1
"""Seconds between two looks at whether it is done."""

RETRY = 5.0
"""Seconds before another try makes sense, when the issuer cannot be reached."""

_log = Logger()


class SignedOutError(Exception):
    """The sign-in is no more: not here, or not at the issuer."""


@dataclass(frozen=True, slots=True)
class Known:
    """A sign-in as it was read, with its tokens opened."""

    row: SignIn
    wallet: Wallet


class Refresher:
    """Reads sign-ins, and replaces their tokens when they are due."""

    def __init__(
        self,
        store: ISignIns,
        api: AuthApi,
        clock: IReactorTime,
        now: Callable[[], float],
        owner: str,
        registry: Registry,
    ) -> None:
        """
        @param now: the unix time, in seconds: C{time.time}.
        @param owner: the name of this process among all routers.
        """
        self._store = store
        self._api = api
        self._clock = clock
        self._now = now
        self._owner = owner
        self._registry = registry
        self._flights: Flights[Known] = Flights()

    def stop(self) -> None:
        """Give up what is under way."""
        self._flights.stop()

    async def read(self, latchkey: Latchkey) -> Known:
        """
        The sign-in of a latchkey.

        @raise SignedOutError: there is none.
        @raise DirectoryUnavailable: it cannot be read.
        """
        row = await self._store.find(latchkey.id)
        wallet = None if row is None else Wallet.open(latchkey, row.sealed)
        if row is None or wallet is None:
            raise SignedOutError
        return Known(row, wallet)

    async def refreshed(self, latchkey: Latchkey, known: Known) -> Known:
        """
        The sign-in with other tokens than those that are known.

        @raise SignedOutError: there are none to be had, and it is over.
        @raise Unavailable: they cannot be had now.
        @raise DirectoryUnavailable: it cannot be read.
        """
        generation = known.row.generation
        return await self._flights.join(latchkey.id, lambda: self._attempt(latchkey, generation))

    async def _attempt(self, latchkey: Latchkey, generation: int) -> Known:
        deadline = self._clock.seconds() + PATIENCE
        while True:
            known = await self.read(latchkey)
            if known.row.generation != generation:  # another was faster
                return known
            if await self._store.claim(known.row, self._owner, LEASE):
                return await self._replace(latchkey, known)
            if self._clock.seconds() >= deadline:
                raise self._not_now("another router did not get new tokens in time")
            await deferLater(self._clock, POLL)

    async def _replace(self, latchkey: Latchkey, known: Known) -> Known:
        """Get new tokens, which is our turn."""
        try:
            grant = await self._api.refresh(known.wallet.refresh_token)
        except ApiRefusal as error:
            if error.spends_refresh:
                self._count("refused")
                await self._store.remove(known.row.id)
                raise SignedOutError from None
            await self._store.release(known.row, self._owner)
            raise self._not_now(str(error)) from None
        except ApiUnreachable as error:
            await self._store.release(known.row, self._owner)
            raise self._not_now(str(error)) from None
        self._count("refreshed")
        wallet = Wallet.of(grant, self._now())
        try:
            row = await self._store.replace(known.row, wallet.seal(latchkey))
        except DirectoryUnavailable as error:
            # The issuer gives them once more to who has only the old ones (facts section 5).
            _log.warn("new tokens could not be kept: {error}", error=error)
            return Known(known.row, wallet)
        # It was ended meanwhile, or our lease had expired and another was faster.
        return await self.read(latchkey) if row is None else Known(row, wallet)

    def _not_now(self, why: str) -> Unavailable:
        self._count("failed")
        _log.warn("a session is not refreshed now: {why}", why=why)
        return Unavailable(
            "The sign-in service cannot be reached to renew your session.",
            reason="sign-in-service",
            retry_after=RETRY,
        )

    def _count(self, outcome: str) -> None:
        self._registry.counter(series.SESSION_REFRESHES, outcome).value += 1
