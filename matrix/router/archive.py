"""The repositories of snapshots that this daemon serves: from which store, and since when."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.logger import Logger
from twisted.python.failure import Failure

from matrix.auth import MachineProof, MachineSecrets
from matrix.directory import IDirectory
from matrix.errors import ConfigurationError, Forbidden, Unavailable
from matrix.http import Exchange, Request
from matrix.metrics import Registry, series
from matrix.router.engine import Engine
from matrix.router.idle import Periodic
from matrix.settings import Settings
from matrix.snapshots import (
    EmbeddedSeaweed,
    Keeping,
    MachineAdmission,
    Repositories,
    S3Place,
    S3Store,
    Shape,
    StoreUnavailable,
)

PLACE: Final = b"/restic/"
"""The paths on the internal listener that are restic's."""

METHODS: Final = frozenset({b"GET", b"HEAD", b"POST", b"DELETE"})
"""Those of restic; whatever else somebody sends is counted together."""

AGAIN_SECONDS = 5.0
"""Between attempts to make the bucket ready while the store is away."""

REFUSED_SECONDS = 60.0
"""Between those while it refuses us: an operator must do something first."""

SWEEP_SECONDS = 3600.0
STALE_SECONDS = 24 * 3600.0
"""After so long nobody goes on with an upload: restic gives each up within minutes."""

_log = Logger()


class Served(Protocol):
    """As much of an exchange that is over as is counted."""

    status: int
    body_bytes: int
    bytes_out: int

    @property
    def request(self) -> Request: ...


class Archive:
    """
    A handler of requests (L{matrix.http.interfaces.Handler}) for the paths below L{PLACE}.

    Users never wait for the store: it is made ready while the router serves already, and
    until it is, machines are told to come again.
    """

    def __init__(self, engine: Engine) -> None:
        """
        @raise ConfigurationError: the store's settings cannot be right.
        """
        self._engine = engine
        self._place = place_from(engine.settings)
        self._seaweed: EmbeddedSeaweed | None = None
        self._store: S3Store | None = None
        self._repositories: Repositories | None = None
        self._sweeping: Periodic | None = None
        self._starting: Deferred[None] | None = None
        self._off = not engine.settings.snapshots or (
            self._place is None and not engine.settings.embedded
        )

    def open(
        self,
        directory: IDirectory,
        master: str,
        ready: Callable[[S3Place], None] = lambda place: None,
    ) -> None:
        """
        Begin to make the store ready.

        @param ready: called once it is.
        """
        if self._off:
            return
        secret = MachineSecrets(master).restic_account
        admission = MachineAdmission(MachineProof(directory, secret, self._engine.reactor))
        self._starting = Deferred.fromCoroutine(self._start(admission, ready))
        self._starting.addErrback(self._could_not)

    def __call__(self, exchange: Exchange) -> None:
        """
        @raise Forbidden: there are no snapshots.
        @raise Unavailable: not yet.
        """
        if self._repositories is not None:
            self._repositories(exchange)
        elif self._off:
            raise Forbidden("snapshots are off: set MATRIX_S3_ENDPOINT", reason="snapshots-off")
        else:
            raise Unavailable(
                "the store of snapshots is not ready yet", reason="store", retry_after=AGAIN_SECONDS
            )

    @property
    def ready(self) -> bool:
        """Whether repositories can be used now."""
        return self._repositories is not None and self._repositories.well

    def measure(self, registry: Registry) -> Callable[[Served], None]:
        """
        Have it counted what machines ask.

        @return: is to be told of each exchange that is over.
        """
        if not self._off:
            registry.watch(series.REPOSITORY_READY, lambda: float(self.ready))
        taken = registry.counter(series.REPOSITORY_BYTES, "in")
        given = registry.counter(series.REPOSITORY_BYTES, "out")

        def finished(exchange: Served) -> None:
            request = exchange.request
            if request.path.startswith(PLACE):
                method = request.method.decode() if request.method in METHODS else "other"
                status = str(exchange.status)
                registry.counter(series.REPOSITORY_REQUESTS, method, status).value += 1
                taken.value += exchange.body_bytes
                given.value += exchange.bytes_out

        return finished

    async def close(self) -> None:
        """Let go of the store. Requests must be over."""
        self._repositories = None
        if self._starting is not None:
            self._starting.cancel()
        if self._sweeping is not None:
            self._sweeping.stop()
        if self._store is not None:
            store, self._store = self._store, None
            await deferToThread(store.stop)
        if self._seaweed is not None:
            await self._seaweed.stop()

    async def _start(self, admission: MachineAdmission, ready: Callable[[S3Place], None]) -> None:
        reactor, settings = self._engine.reactor, self._engine.settings
        shape = Shape(quota=settings.snapshot_quota or None)
        place = self._place
        if place is None:
            self._seaweed = EmbeddedSeaweed(settings.state_dir / "s3", reactor)
            place = await self._seaweed.start()
        self._store = store = S3Store(place, reactor)
        store.start()
        await self._prepare(store, Keeping(shape.prefix, settings.snapshot_undelete))
        self._repositories = Repositories(store, admission, reactor, shape)
        self._sweeping = Periodic(reactor, SWEEP_SECONDS, self._sweep)
        self._sweeping.start(now=True)
        _log.info("snapshots are kept in {endpoint}", endpoint=place.endpoint)
        ready(place)

    async def _prepare(self, store: S3Store, keeping: Keeping) -> None:
        """Make the bucket ready, however long that takes."""
        told = ""
        while True:
            try:
                for line in await store.prepare(keeping):
                    _log.warn("{line}", line=line)
            except (StoreUnavailable, ConfigurationError) as error:
                if str(error) != told:
                    told = str(error)
                    _log.error("snapshots cannot be kept yet: {error}", error=told)
                refused = isinstance(error, ConfigurationError)
                pause = REFUSED_SECONDS if refused else AGAIN_SECONDS
                await deferLater(self._engine.reactor, pause)
            else:
                return

    async def _sweep(self) -> None:
        assert self._store is not None  # it was made ready
        try:
            swept = await self._store.sweep(STALE_SECONDS)
        except StoreUnavailable:
            return  # the next sweep will do
        if swept:
            _log.info("freed the parts of {swept} uploads that were broken off", swept=swept)

    def _could_not(self, failure: Failure) -> None:
        if failure.check(CancelledError):  # type: ignore[no-untyped-call]
            return
        self._off = True
        if failure.check(ConfigurationError):  # type: ignore[no-untyped-call]
            _log.error("there will be no snapshots: {error}", error=str(failure.value))
        else:
            _log.failure("there will be no snapshots", failure=failure)


def place_from(settings: Settings) -> S3Place | None:
    """
    The store that the operator supplies, if any.

    @raise ConfigurationError: it cannot be one.
    """
    if settings.s3_endpoint is None:
        return None
    assert settings.s3_secret_key is not None  # the settings see to it
    place = S3Place(
        settings.s3_endpoint,
        settings.s3_bucket,
        settings.s3_access_key,
        settings.s3_secret_key.get_secret_value(),
        settings.s3_region,
        None if settings.s3_ca is None else str(settings.s3_ca),
    )
    try:
        place.check()
    except ConfigurationError as error:
        raise ConfigurationError(f"MATRIX_S3_ENDPOINT: {error}") from None
    return place
