"""Tenure: for how long who came in may stay. Puts together who knows of it."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace

from twisted.web.client import Agent

from matrix.auth import AuthApi, IGate
from matrix.http import Exchange
from matrix.router.bonds import Sources
from matrix.router.engine import Engine, Machinery
from matrix.router.idle import Periodic
from matrix.router.recheck import Recheck
from matrix.router.rights import REFRESH_INTERVAL, Rights
from matrix.router.sightings import Sightings
from matrix.router.supplies import Supplies


class Tenure:
    """What one process does so that rights last as long as they should, and no longer."""

    def __init__(
        self,
        engine: Engine,
        supplies: Supplies,
        live: Machinery,
        gate: IGate,
        exchanges: Callable[[], Iterable[Exchange]],
    ) -> None:
        """
        @param exchanges: all that are under way at the public listeners.
        """
        clock, sessions = engine.reactor, live.directory.sessions
        self._rights = rights = Rights(
            clock, gate, live.directory, engine.routes.users, exchanges, engine.registry
        )
        self._sightings = Sightings(clock, sessions)
        self._refreshing = Periodic(clock, REFRESH_INTERVAL, rights.refresh)
        self.check = rights.check
        """Raises a L{MatrixError} for who has lost their right; see L{Rights.check}."""
        self._recheck = _recheck(engine, supplies, live, gate)
        gate.subscribe(self._sightings.seen)
        self._bonds = engine.bonds
        self._sources = Sources(gate.newest, sessions.newest)
        self._bonds.ask(self._sources)

    def renew_with(self, renew: Callable[[str], Awaitable[float | None]]) -> None:
        """Have sessions of our own renewed while they have streams; see L{Sources.renew}."""
        self._bonds.ask(replace(self._sources, renew=renew))

    async def start(self) -> None:
        """Learn who may not come in; before that nobody is to be let in."""
        await self._rights.start()
        self._refreshing.start()
        if self._recheck is not None:
            self._recheck.start()

    async def stop(self) -> None:
        """Tell others what only this process knows, and end."""
        if self._recheck is not None:
            self._recheck.stop()
        self._refreshing.stop()
        self._rights.stop()
        await self._sightings.stop()


def _recheck(engine: Engine, supplies: Supplies, live: Machinery, gate: IGate) -> Recheck | None:
    """Who asks the issuer about sessions, if that is wanted."""
    if not engine.settings.session_check:
        return None
    key, clock = engine.settings.supabase_key, engine.reactor
    api = AuthApi(
        Agent(clock),  # type: ignore[no-untyped-call]
        supplies.api_url,
        key.get_secret_value() if key is not None else "",
        clock,
    )
    return Recheck(
        clock,
        engine.bonds,
        gate,
        live.directory.sessions,
        api.user,
        supplies.issuer,
        time.time,
        engine.registry,
    )
