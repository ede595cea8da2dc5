"""The upkeep of snapshots in this process: what it takes, from the store's readiness to the end."""

from __future__ import annotations

from functools import partial

from twisted.internet.threads import deferToThread
from twisted.logger import Logger

from matrix.auth import MachineSecrets
from matrix.errors import ConfigurationError
from matrix.router.caretaker import DAY, Caretaker, Times, Window
from matrix.router.engine import Engine, Machinery
from matrix.router.erasing import destroy_machine
from matrix.router.reverting import Reverting
from matrix.router.vault import keeping_place
from matrix.settings import Settings
from matrix.snapshots import (
    Desk,
    Keeper,
    Rules,
    S3Place,
    S3Store,
    Shape,
    find_restic,
    span,
    sweep_drills,
)

_log = Logger()


class Care:
    """Looks after users' snapshots once there is a store for them."""

    def __init__(self, engine: Engine, live: Machinery, master: str) -> None:
        self._engine = engine
        self._live = live
        self._secrets = MachineSecrets(master)
        self._store: S3Store | None = None
        self._caretaker: Caretaker | None = None
        self._keeper: Keeper | None = None
        take = None if live.taker is None else live.taker.take_now
        self.reverting = Reverting(live.fleet, live.waker, take, lambda: self._keeper)
        """Who puts snapshots back onto machines."""

    def begin(self, place: S3Place) -> None:
        """There is a store: see to it from now on."""
        engine, settings, live = self._engine, self._engine.settings, self._live
        try:
            find_restic()
        except ConfigurationError as error:
            _log.error("snapshots are not looked after: {error}", error=error)
            return
        place = keeping_place(settings, place)
        deferToThread(sweep_drills).addErrback(
            lambda failure: _log.failure("what drills left is not removed", failure)
        )
        self._store = store = S3Store(place, engine.reactor)
        store.start()
        desk = Desk(place, Shape().prefix)
        rules = rules_from(settings)
        password = self._secrets.restic_password
        self._keeper = keeper = Keeper(engine.reactor, store, desk, password, rules)
        self._caretaker = Caretaker(
            engine.reactor,
            live.directory,
            keeper,
            partial(destroy_machine, live.fleet),
            live.fleet.owner,
            times_from(settings),
            engine.registry,
        )
        self._caretaker.start()

    async def close(self) -> None:
        """Break off what is under way."""
        self._keeper = None
        if self._caretaker is not None:
            self._caretaker.stop()
        if self._store is not None:
            store, self._store = self._store, None
            await deferToThread(store.stop)


def rules_from(settings: Settings) -> Rules:
    """For how long snapshots are kept, as configured."""
    return Rules(*map(span, (settings.keep_hourly, settings.keep_daily, settings.keep_weekly)))


def times_from(settings: Settings) -> Times:
    """How often things are done, as configured."""
    return Times(
        Window(settings.keeping_window),
        settings.scrub_days * DAY,
        settings.drill_days * DAY,
        settings.delete_grace,
    )
