"""C{twistd matrix --workers}: binds, supplies, watches over the workers, and answers operators."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from matrix.net import Daemon, ticket_keys
from matrix.router.accesslog import STDOUT
from matrix.router.embedded import Embedded
from matrix.router.engine import Engine
from matrix.router.idle import put_off
from matrix.router.inside import Inside, instance_of, url
from matrix.router.service import say
from matrix.router.supplies import Supplies, from_settings
from matrix.router.told import settled
from matrix.router.workers.brief import Brief, secrets_for_workers, settings_for_workers
from matrix.router.workers.channel import Message
from matrix.router.workers.crew import Crew
from matrix.router.workers.hand import Hand
from matrix.settings import Settings

_log = Logger()


class Supervisor(Daemon):
    """
    The process that the operator started.

    Each worker has a queue of connections of its own (SO_REUSEPORT), so that all get their
    share: from one common queue the first to wake takes most of a crowd. The sockets are
    made here, once, and stay open here: what is queued for a worker that dies is not reset.
    All workers inherit all of them, and while one is absent the others accept in its stead.
    """

    name = "matrix"

    def __init__(
        self,
        reactor: Any,
        settings: Settings,
        embedded: Embedded | None,
        public: list[socket.socket],
        internal: list[socket.socket],
        tls: Any,
    ) -> None:
        """
        @param public: listening sockets, bound already, a set for each worker; C{internal}
            is one set.
        @param tls: shows that certificate and key are good; each worker makes its own of them,
            with the same ticket keys.
        """
        super().__init__(reactor)
        self._settings = settings = settled(settings, internal[0])
        self._embedded = embedded
        self._sockets = (public, internal)
        cert, key = (
            (embedded.cert, embedded.key) if embedded else (settings.tls_cert, settings.tls_key)
        )
        # Now, for twistd may give up the right to read them before workers start.
        self._pem = Path(str(cert)).read_text("ascii"), Path(str(key)).read_text("ascii")
        self._tickets = ticket_keys(tls).hex()
        self._engine = Engine(reactor, settings)
        self._inside = Inside(self._engine)
        self._crew: Crew | None = None
        self._supplies: Supplies | None = None
        self._output = -1
        self._lock = -1

    async def start(self) -> None:
        engine, embedded, (public, internal) = self._engine, self._embedded, self._sockets
        # A copy, since a worker's own standard output is its log, and now, since twistd may have
        # sent ours elsewhere after we were made.
        self._output = os.dup(STDOUT)
        self._lock = os.memfd_create("matrix-access-log", os.MFD_CLOEXEC)
        engine.loop.add_signal_handler(signal.SIGHUP, self._reopen_logs)
        engine.tick()
        supplies = await embedded.start() if embedded else from_settings(self._settings)
        self._supplies = supplies
        live = await engine.start(supplies)
        await engine.reconcile()
        self._crew = crew = Crew(
            self._reactor, self._launch, self._settings.workers, engine.registry, self._died
        )
        await crew.start()
        instance = instance_of(engine, url("https", public[0]), internal[0])
        await self._inside.open(internal, instance, live, supplies, crew)
        if embedded is not None:
            embedded.announce(instance.listeners["public"], instance.listeners["internal"], say)
        _log.info(
            "ready on {public}, {count} workers; internal {internal}",
            count=self._settings.workers,
            **instance.listeners,
        )

    def _launch(
        self, number: int, heard: Callable[[Message], None], ended: Callable[[int], None]
    ) -> Hand:
        supplies, embedded = self._supplies, self._embedded
        assert supplies is not None
        brief = Brief(
            number=number,
            settings=settings_for_workers(self._settings),
            secrets=secrets_for_workers(self._settings),
            public=self._queues(),
            output=self._output,
            lock=self._lock,
            cert=self._pem[0],
            key=self._pem[1],
            tickets=self._tickets,
            dsn=supplies.dsn,
            issuer=supplies.issuer,
            jwks_url=supplies.jwks_url,
            master=supplies.master,
            codes=None if embedded is None else embedded.codes,
        )
        return Hand(self._reactor, brief, heard, ended)

    def _queues(self) -> list[list[int]]:
        """The listening sockets of each worker."""
        numbers = [listener.fileno() for listener in self._sockets[0]]
        size = len(numbers) // self._settings.workers
        return [numbers[start : start + size] for start in range(0, len(numbers), size)]

    def _reopen_logs(self) -> None:
        if self._crew is not None:
            self._crew.reopen()

    def _died(self) -> None:
        """A worker may have left machines half woken or half asleep, or nobody to watch them."""
        healing = Deferred.fromCoroutine(self._engine.heal())
        healing.addErrback(put_off)

    async def stop(self) -> None:
        for listener in self._sockets[0]:
            listener.close()
        self._inside.close()
        await self._engine.settle()
        if self._crew is not None:
            await self._crew.stop()
        self._inside.abort()
        await self._inside.finish()
        await self._engine.stop(stop_machines=self._embedded is not None)
        if self._embedded is not None:
            await self._embedded.stop()
        for descriptor in (self._output, self._lock):
            if descriptor >= 0:
                os.close(descriptor)
        self._engine.halt()
