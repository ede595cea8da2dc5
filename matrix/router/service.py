"""A router in one process: its parts, put together and started in order; stopped in reverse."""

from __future__ import annotations

import signal
import socket
import sys
from typing import Any

from twisted.logger import Logger

from matrix.net import Daemon
from matrix.router.door import Door
from matrix.router.embedded import Embedded
from matrix.router.engine import Engine
from matrix.router.inside import Inside, instance_of, url
from matrix.router.supplies import from_settings
from matrix.router.told import settled
from matrix.settings import Settings

_log = Logger()


class Router(Daemon):
    """One router process."""

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
        @param public: listening sockets, bound already; C{internal} as well.
        @param tls: the public listener's context.
        """
        super().__init__(reactor)
        self._settings = settings = settled(settings, internal[0])
        self._embedded = embedded
        self._sockets = (public, internal)
        self._engine = Engine(reactor, settings)
        self._door = Door(self._engine, tls)
        self._inside = Inside(self._engine)

    async def start(self) -> None:
        engine, embedded, (public, internal) = self._engine, self._embedded, self._sockets
        engine.tick()
        self._door.open_log()
        engine.loop.add_signal_handler(signal.SIGHUP, self._door.reopen_log)
        supplies = await embedded.start() if embedded else from_settings(self._settings)
        live = await engine.start(supplies)
        await engine.reconcile()
        instance = instance_of(engine, url("https", public[0]), internal[0])
        await self._inside.open(internal, instance, live, supplies)
        await self._door.open(supplies, live, public)
        if embedded is not None:
            embedded.announce(instance.listeners["public"], instance.listeners["internal"], say)
        _log.info("ready on {public}; internal {internal}", **instance.listeners)

    async def stop(self) -> None:
        self._door.close()
        self._inside.close()
        await self._engine.settle()
        await self._door.finish()
        self._inside.abort()
        await self._inside.finish()
        await self._engine.stop(stop_machines=self._embedded is not None)
        if self._embedded is not None:
            await self._embedded.stop()
        await self._door.stop()
        self._engine.halt()


def say(text: str) -> None:
    """Tell the person at the terminal, past the log that twistd makes of standard output."""
    if sys.__stdout__ is not None:
        sys.__stdout__.write(text + "\n")
        sys.__stdout__.flush()
