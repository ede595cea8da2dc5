"""A server of our own that runs as long as we do, and is started again when it dies."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from matrix.errors import ConfigurationError
from matrix.processes._proc import Process
from matrix.processes._watch import ExitWatch, watch_exit

T = TypeVar("T")
WhereT = TypeVar("WhereT")
WhereT_co = TypeVar("WhereT_co", covariant=True)

REVIVE_SECONDS = 1.0
"""Between a death of the server and a start of it: one that dies at once must not spin."""


class Server(Protocol[WhereT_co]):
    """A program that serves from a directory. Its methods block, but for L{give_up}."""

    process: Process | None

    @property
    def log(self) -> Path:
        """What the program has to say."""

    def where(self) -> WhereT_co:
        """How to reach it, once it was started."""

    def start(self) -> object:
        """
        Start it, or take over the one that a predecessor left running in the directory.

        @raise ConfigurationError: it does not run; says why, in one line.
        """

    def restart(self) -> None:
        """
        Start it again, where it was, after it died by itself.

        @raise ConfigurationError: it does not run.
        """

    def give_up(self) -> None:
        """Let a start under way fail soon. May be called from any thread."""

    def stop(self) -> None:
        """Shut it down; returns when none of its processes is left."""


class Supervised(Generic[WhereT]):
    """
    A L{Server} that starts and stops with us. It has a session of its own, so an interrupt
    typed at the terminal ends it only when we do; if we are killed it goes on running, and
    the next one to start in its directory takes it over. If it dies by itself it is started
    again.
    """

    NAME: ClassVar[str]
    """What it is, for the log."""

    _log = Logger()

    def __init__(self, directory: Path, reactor: Any) -> None:
        """
        @param directory: where it keeps everything; made if need be.
        @param reactor: IReactorFDSet, IReactorTime, IReactorThreads.
        """
        self._directory = directory
        self._reactor = reactor
        # Start, stop and revival take turns, whatever order they were asked for in.
        self._turns = DeferredLock()
        self._server: Server[WhereT] | None = None
        self._watch: ExitWatch | None = None
        self._revival: IDelayedCall | None = None
        self._stopping = False
        self.deaths = 0
        """How often the server has ended without having been asked to."""

    def make(self) -> Server[WhereT]:
        """
        The server, not started.

        @raise ConfigurationError: it is not installed.
        """
        raise NotImplementedError

    async def start(self) -> WhereT:
        """
        Start the server, or take over the one that runs in the directory. Cancelling lets
        the start run to its end: call L{stop} as well.

        @return: how to reach it; may hold a secret.
        @raise ConfigurationError: it does not start; says why, in one line.
        """
        return await self._in_turn(self._start)

    async def stop(self) -> None:
        """Shut the server down; returns when none of its processes is left."""
        self._stopping = True
        if self._server is not None:
            self._server.give_up()
        await self._in_turn(self._stop)

    async def _start(self) -> WhereT:
        if self._server is None:
            self._server = await self._launch()
        self._stopping = False
        return self._server.where()

    async def _launch(self) -> Server[WhereT]:
        self._server = server = self.make()
        try:
            await self._in_thread(server.start)
        except BaseException:
            self._server = None
            raise
        self._watch_over(server)
        return server

    async def _stop(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        if self._revival is not None and self._revival.active():
            self._revival.cancel()
        if self._server is not None:
            server, self._server = self._server, None
            await self._in_thread(server.stop)

    def _watch_over(self, server: Server[WhereT]) -> None:
        assert server.process is not None
        self._watch = watch_exit(server.process, self._reactor, self._died)
        if self._watch is None:
            self._died()

    def _died(self) -> None:
        if self._stopping or self._server is None:
            return
        self.deaths += 1
        self._log.error(
            "{name} ended; starting it again (log: {log})", name=self.NAME, log=self._server.log
        )
        self._revival = self._reactor.callLater(REVIVE_SECONDS, self._revive)

    def _revive(self) -> None:
        reviving = Deferred.fromCoroutine(self._in_turn(self._restart))
        reviving.addErrback(lambda failure: self._log.failure("revival failed", failure))

    async def _restart(self) -> None:
        server = self._server
        if self._stopping or server is None:
            return
        try:
            await self._in_thread(server.restart)
        except ConfigurationError as error:
            self._log.error("{error}", error=str(error))
        self._watch_over(server)

    async def _in_turn(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        turn: Deferred[T] = self._turns.run(lambda: Deferred.fromCoroutine(work()))
        # Goes on to its end though the one who waits is cancelled.
        result: Deferred[T] = Deferred()
        turn.addCallbacks(result.callback, result.errback)
        return await result

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await deferToThreadPool(self._reactor, self._reactor.getThreadPool(), work)
