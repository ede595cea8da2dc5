"""Tenure: for how long who came in may stay. Puts together who knows of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from matrix.auth import IGate
from matrix.http import Exchange
from matrix.router.bonds import Sources
from matrix.router.engine import Engine, Machinery
from matrix.router.idle import Periodic
from matrix.router.rights import REFRESH_INTERVAL, Rights
from matrix.router.sightings import Sightings


class Tenure:
    """What one process does so that rights last as long as they should, and no longer."""

    def __init__(
        self,
        engine: Engine,
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
        gate.subscribe(self._sightings.seen)
        engine.bonds.ask(Sources(gate.newest, sessions.newest))

    async def start(self) -> None:
        """Learn who may not come in; before that nobody is to be let in."""
        await self._rights.start()
        self._refreshing.start()

    async def stop(self) -> None:
        """Tell others what only this process knows, and end."""
        self._refreshing.stop()
        self._rights.stop()
        await self._sightings.stop()
