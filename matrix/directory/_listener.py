"""The connection that hears NOTIFY: always being kept, and honest about when it was not there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from random import uniform

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from matrix.directory._connection import Connection
from matrix.directory._deferreds import within
from matrix.directory.interfaces import DirectoryUnavailable

PROBE_SECONDS = 5.0
"""Between questions to a silent server."""

ANSWER_SECONDS = 5.0
"""For its answer: a dead connection is noticed 10 s after the last sign of life."""

BACKOFF_SECONDS = (0.1, 5.0)
"""The first delay and the longest, doubling between; each is shortened at random by up to half,
so that routers do not come back all at once."""

Connector = Callable[[Callable[[str, str], None], Callable[[], None]], Awaitable[Connection]]
"""Opens a connection; is given what to call with the channel and payload of notifications, and
when it is lost."""

Channels = Mapping[str, Callable[[str | None], None]]
"""By the name of a channel, what is called with each payload heard on it, and with C{None} after a
gap."""


class Listener:
    """Keeps one listening connection for as long as it runs."""

    _log = Logger()

    def __init__(self, connector: Connector, clock: IReactorTime, channels: Channels) -> None:
        self._connector = connector
        self._clock = clock
        self._channels = channels
        self._running: Deferred[None] | None = None
        self._pause: Deferred[None] | None = None
        self._connection: Connection | None = None
        self._stale_since: float | None = None
        self.losses = 0
        """How often the connection was lost."""

    @property
    def stale_since(self) -> float | None:
        """Since when (the clock's seconds) changes may have gone unheard."""
        return self._stale_since

    async def start(self) -> None:
        """
        Begin to listen.

        @raise DirectoryUnavailable: the first connection cannot be had.
        """
        connection = await self._listen()
        self._running = Deferred.fromCoroutine(self._keep(connection))

    def stop(self) -> None:
        """Stop listening."""
        if self._running is not None:
            self._running.cancel()
            self._running = None

    async def _keep(self, connection: Connection) -> None:
        """Watch over one connection after the other until cancelled."""
        try:
            while True:
                since = await self._watch(connection)
                self.losses += 1
                self._stale_since = since
                self._log.warn("listening connection lost; changes may go unheard")
                connection = await self._reconnect()
                gap = self._clock.seconds() - since
                self._stale_since = None
                self._log.info("listening again after {gap:.1f} s", gap=gap)
                for tell in self._channels.values():
                    tell(None)
        except CancelledError:
            return
        finally:
            if self._connection is not None:
                self._connection.close()

    async def _listen(self) -> Connection:
        connection = await self._connector(self._heard, self._wake)
        self._connection = connection
        try:
            commands = "; ".join(f"LISTEN {channel}" for channel in self._channels)
            listening = connection.runOperation(commands)
            await within(self._clock, ANSWER_SECONDS, listening, connection.close)
        except BaseException:
            connection.close()
            raise
        return connection

    async def _watch(self, connection: Connection) -> float:
        """Return when the connection is lost; since when it may have been deaf."""
        alive_at = self._clock.seconds()
        while True:
            await self._rest(PROBE_SECONDS)
            if not connection.alive:
                # Its end came in order, after all notifications.
                return self._clock.seconds()
            try:
                asking = connection.runQuery("SELECT 1")
                await within(self._clock, ANSWER_SECONDS, asking, connection.close)
            except CancelledError:
                raise
            except Exception as error:  # noqa: BLE001 - whatever it was: take another connection
                self._log.debug("probe failed: {error}", error=error)
                connection.close()
                return alive_at
            alive_at = self._clock.seconds()

    async def _reconnect(self) -> Connection:
        """Try until it works."""
        delay, longest = BACKOFF_SECONDS
        while True:
            await self._rest(uniform(delay / 2, delay))  # noqa: S311 - not a secret
            delay = min(delay * 2, longest)
            try:
                return await self._listen()
            except CancelledError:
                raise
            except DirectoryUnavailable as error:
                self._log.debug("cannot listen yet: {error}", error=error)
            except Exception:  # noqa: BLE001 - not foreseen, and no reason to stay deaf
                self._log.failure("cannot listen")

    def _rest(self, seconds: float) -> Deferred[None]:
        """Fires after a while, or earlier when the connection is lost."""
        timer = self._clock.callLater(seconds, self._wake)

        def done(result: object) -> object:
            self._pause = None
            if timer.active():
                timer.cancel()
            return result

        self._pause = Deferred()
        return self._pause.addBoth(done)

    def _wake(self) -> None:
        if self._pause is not None:
            self._pause.callback(None)

    def _heard(self, channel: str, payload: str) -> None:
        self._channels[channel](payload)
