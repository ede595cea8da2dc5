"""The daemon: it listens at once, and serves as soon as the data are whole."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.internet.interfaces import IListeningPort
from twisted.internet.task import deferLater
from twisted.logger import Logger

from matrix.daemon.briefing import Briefing
from matrix.daemon.home import NotYet
from matrix.daemon.house import House
from matrix.daemon.snapshots import Snapshots
from matrix.daemon.threshold import Threshold
from matrix.daemon.volume import Volume
from matrix.errors import ConfigurationError
from matrix.http import ServerFactory
from matrix.net import Daemon, NativeServerEndpoint, Wheel, event_loop

_log = Logger()

PAUSES = (0.5, 30.0)
"""Seconds between attempts to bring the data home: the first, and the longest."""


class MachineDaemon(Daemon):
    """
    Serves one data directory. What can be wrong with its surroundings shows when it is
    made, not after it was started; but for a directory whose data are yet to be restored.
    """

    def __init__(
        self,
        reactor: Any,
        data: Path,
        token: str,
        listeners: Sequence[socket.socket],
        briefing: Briefing | None,
    ) -> None:
        """
        @param listeners: bound already.
        @param briefing: where snapshots go, if there are any.
        @raise ConfigurationError: the directory or the system's limits will not do.
        """
        super().__init__(reactor)
        self.name = "matrix-daemon"
        self._data = data
        self._token = token
        self._listeners = listeners
        self._ports: list[IListeningPort] = []
        self._wheel = Wheel(reactor)
        self._threshold = Threshold()
        self._snapshots = Snapshots(reactor, Volume.claimed(data), briefing)
        # Before the first request even where nothing is to be restored, so that a machine
        # that boots again answers as soon as it listens.
        self._house = self._built() if self._is_home() else None
        self._factory = ServerFactory(self._threshold, self._wheel)

    async def start(self) -> None:
        self._snapshots.start()
        self._wheel.start()
        if self._house is not None:
            self._move_in(self._house)
        loop = event_loop(self._reactor)
        for listener in self._listeners:
            port = await NativeServerEndpoint(loop, listener).listen(self._factory)
            self._ports.append(port)
            _log.info("serving the workspace at {place}", place=port.getHost())
        await self._bring_home()
        if self._house is None:
            self._house = self._built()
            self._move_in(self._house)

    async def stop(self) -> None:
        for port in self._ports:
            port.stopListening()
        self._factory.drain()
        if self._house is not None:
            self._house.end_streams()
        self._snapshots.stop()
        if self._house is not None:
            self._house.stop()
        self._wheel.stop()

    def _is_home(self) -> bool:
        try:
            return self._snapshots.home.look()
        except OSError as error:
            raise ConfigurationError(f"--data {self._data} cannot be used: {error}") from None

    def _built(self) -> House:
        return House(self._reactor, self._data, self._token, self._snapshots.offered)

    def _move_in(self, house: House) -> None:
        house.start()
        self._threshold.open(house.handler)

    async def _bring_home(self) -> None:
        """Have the data whole, however long that takes: never begin without them."""
        home = self._snapshots.home
        self._threshold.watch(home)
        pause, longest = PAUSES
        while True:
            try:
                await self._snapshots.in_thread(home.bring)
            except NotYet as error:
                _log.warn("home.waiting {reason}", reason=str(error))
                self._threshold.waiting = str(error)
                await deferLater(self._reactor, pause)
                pause = min(2 * pause, longest)
                # While an attempt runs it is the numbers that tell.
                self._threshold.waiting = ""
            else:
                return
