"""One of several processes that serve the public listener, under a supervisor."""

from __future__ import annotations

import signal
import socket
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from matrix.errors import ConfigurationError
from matrix.net import Daemon
from matrix.router.accesslog import Output
from matrix.router.door import GRACE, Door
from matrix.router.engine import Engine
from matrix.router.workers.brief import Brief
from matrix.router.workers.channel import Channel, Message
from matrix.router.workers.lifeline import die_with

PULSE_SECONDS = 1.0
"""Between two signs of life."""
LEAVE_SECONDS = 2.0
"""For the supervisor to take what was said last."""
LAST_SECONDS = 2 * GRACE
"""After which a worker that nobody supervises any more ends, whatever it still does."""

_log = Logger()


class Worker(Daemon):
    """A router without the internal listener: its supervisor has that."""

    name = "matrix worker"

    def __init__(self, reactor: Any, brief: Brief, end: socket.socket) -> None:
        """@param end: of the channel to the supervisor."""
        super().__init__(reactor)
        self._brief = brief
        self._engine = Engine(reactor, brief.configured)
        self._door = Door(self._engine, brief.context(), Output(brief.output, brief.lock))
        die_with(end, LAST_SECONDS)
        self._channel = Channel(reactor, end, self._heard, self._alone)
        self._pulse = LoopingCall(self._channel.send, "alive")
        self._pulse.clock = reactor
        self._listeners = brief.listeners()
        self._ending = False

    async def start(self) -> None:
        self._pulse.start(PULSE_SECONDS)
        try:
            await self._open()
        except ConfigurationError as error:
            self._channel.send("refused", text=str(error))
            raise
        self._channel.send("ready")

    async def _open(self) -> None:
        supplies = self._brief.supplies
        self._engine.tick()
        self._door.open_log()
        self._engine.loop.add_signal_handler(signal.SIGHUP, self._door.reopen_log)
        live = await self._engine.start(supplies, first=False)
        await self._door.open(supplies, live, self._listeners[self._brief.number])

    async def stop(self) -> None:
        self._door.close()
        for listener in (one for queues in self._listeners.values() for one in queues):
            listener.close()
        await self._engine.settle()
        await self._door.finish()
        await self._engine.stop(stop_machines=False)
        await self._door.stop()
        if self._pulse.running:
            self._pulse.stop()
        self._tell_measures()
        await self._take_leave()
        self._engine.halt()

    async def _take_leave(self) -> None:
        """Have everything said before the process ends."""
        try:
            await self._channel.close().addTimeout(LEAVE_SECONDS, self._reactor)
        except DeferredTimeout:
            _log.warn("the supervisor does not listen")

    # the supervisor

    def _heard(self, message: Message) -> None:
        kind = message["kind"]
        if kind == "measure":
            self._tell_measures()
        elif kind == "reopen":
            self._door.reopen_log()
        elif kind == "stand in":
            self._stand_in(message["numbers"])
        elif kind == "stop":
            self._end()

    def _stand_in(self, numbers: list[int]) -> None:
        others = {number: self._listeners[number] for number in numbers}
        standing = Deferred.fromCoroutine(self._door.stand_in(others))
        standing.addErrback(lambda failure: _log.failure("cannot stand in", failure))

    def _tell_measures(self) -> None:
        self._channel.send("measures", snapshot=self._engine.registry.snapshot())

    def _alone(self) -> None:
        """The supervisor was killed: a worker must not hold the port, nor serve unwatched."""
        if not self._ending:
            _log.error("the supervisor is gone")
        self._end()

    def _end(self) -> None:
        if not self._ending:
            self._ending = True
            self._reactor.stop()
