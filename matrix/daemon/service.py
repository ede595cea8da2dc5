"""The daemon's parts, started together and stopped in an order that loses nothing."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IListeningPort
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from matrix.daemon.briefing import Briefing
from matrix.daemon.events import HEARTBEAT, Events
from matrix.daemon.feed import Feed
from matrix.daemon.files import Files
from matrix.daemon.site import site
from matrix.daemon.snapshots import Snapshots, lacking
from matrix.daemon.volume import Volume
from matrix.daemon.watch import Watch
from matrix.daemon.watcher import Watcher
from matrix.daemon.workspace import Workspace
from matrix.errors import ConfigurationError
from matrix.http import ServerFactory
from matrix.net import Daemon, NativeServerEndpoint, Wheel, event_loop

_log = Logger()

THREADS = 8
"""File operations at once. More would only queue in the disk instead of here."""


class MachineDaemon(Daemon):
    """
    Serves one data directory. What can be wrong with its surroundings shows when it is
    made, not after it was started.
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
        self._listeners = listeners
        self._ports: list[IListeningPort] = []
        self._pool = ThreadPool(0, THREADS, name="workspace")
        self._feed = Feed()
        self._wheel = Wheel(reactor)
        self._pulse = LoopingCall(self._feed.heartbeat)
        self._pulse.clock = reactor
        watch = _watch(data)

        def in_thread(*call: Any) -> Deferred[Any]:
            return deferToThreadPool(reactor, self._pool, *call)

        self._workspace = Workspace(os.fsencode(data), in_thread, told=watch)
        self._watcher = Watcher(watch, self._feed.publish, reactor.callFromThread)
        self._snapshots: Snapshots | None = None
        missing = lacking(briefing)
        if briefing is not None and missing is None:
            volume = Volume(data)
            volume.make()
            self._snapshots = Snapshots(reactor, volume, briefing)
        handler = site(
            token,
            Files(self._workspace),
            Events(self._feed, reactor.callLater),
            lambda: self._watcher.state,
            self._snapshots.runs if self._snapshots is not None else missing or "",
        )
        self._factory = ServerFactory(handler, self._wheel)

    async def start(self) -> None:
        self._pool.start()
        if self._snapshots is not None:
            self._snapshots.start()
        self._watcher.start()
        self._wheel.start()
        self._pulse.start(HEARTBEAT, now=False).addErrback(_pulse_broken)
        loop = event_loop(self._reactor)
        for listener in self._listeners:
            port = await NativeServerEndpoint(loop, listener).listen(self._factory)
            self._ports.append(port)
            _log.info("serving the workspace at {place}", place=port.getHost())

    async def stop(self) -> None:
        for port in self._ports:
            port.stopListening()
        self._factory.drain()
        self._feed.end()
        if self._pulse.running:
            self._pulse.stop()
        if self._snapshots is not None:
            self._snapshots.stop()
        self._watcher.stop()
        self._pool.stop()
        self._workspace.close()
        self._wheel.stop()


def _watch(data: Path) -> Watch:
    root = data / "workspace"
    try:
        return Watch(os.fsencode(root))
    except OSError as error:
        raise ConfigurationError(f"cannot watch {root}: {error.strerror}") from None


def _pulse_broken(failure: Failure) -> None:
    _log.failure("heartbeats ended", failure=failure)
