"""What serves one volume whose data are whole: the workspace, who watches it, and its routes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from matrix.daemon import past_api, snapshot_api
from matrix.daemon.events import HEARTBEAT, Events
from matrix.daemon.feed import Feed
from matrix.daemon.files import Files
from matrix.daemon.past_api import PastApi
from matrix.daemon.site import site
from matrix.daemon.snapshots import Offer
from matrix.daemon.watch import Watch
from matrix.daemon.watcher import Watcher
from matrix.daemon.workspace import Workspace
from matrix.errors import ConfigurationError

_log = Logger()

THREADS = 8
"""File operations at once. More would only queue in the disk instead of here."""


class House:
    """The parts, started together and stopped in an order that loses nothing."""

    def __init__(self, reactor: Any, data: Path, token: str, offered: Offer | str) -> None:
        """
        @param offered: what it can do with snapshots; or, in one sentence, what it lacks.
        @raise ConfigurationError: the directory or the system's limits will not do.
        """
        self._reactor = reactor
        self._pool = ThreadPool(0, THREADS, name="workspace")
        self._feed = Feed()
        self._pulse = LoopingCall(self._feed.heartbeat)
        self._pulse.clock = reactor
        watch = _watch(data)
        self._workspace = Workspace(os.fsencode(data), self._in_thread, told=watch)
        self._watcher = Watcher(watch, self._feed.publish, reactor.callFromThread)
        self.handler = site(
            token,
            Files(self._workspace),
            Events(self._feed, reactor.callLater),
            lambda: self._watcher.state,
        )
        if isinstance(offered, str):
            past_api.refuse(self.handler, offered)
            snapshot_api.refuse(self.handler, offered)
        else:
            snapshot_api.register(self.handler, offered.runs)
            PastApi(offered.past, self._workspace, offered.in_thread).register(self.handler)

    def start(self) -> None:
        """Be ready for requests."""
        self._pool.start()
        self._watcher.start()
        self._pulse.start(HEARTBEAT, now=False).addErrback(_pulse_broken)

    def end_streams(self) -> None:
        """Let go of all who follow: they would wait for ever for what does not come."""
        self._feed.end()
        if self._pulse.running:
            self._pulse.stop()

    def stop(self) -> None:
        """Let go of everything."""
        self._watcher.stop()
        self._pool.stop()
        self._workspace.close()

    def _in_thread(self, *call: Any) -> Deferred[Any]:
        return deferToThreadPool(self._reactor, self._pool, *call)


def _watch(data: Path) -> Watch:
    root = data / "workspace"
    try:
        return Watch(os.fsencode(root))
    except OSError as error:
        raise ConfigurationError(f"cannot watch {root}: {error.strerror}") from None


def _pulse_broken(failure: Failure) -> None:
    _log.failure("heartbeats ended", failure=failure)
