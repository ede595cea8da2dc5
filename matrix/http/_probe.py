"""Whether a machine answers HTTP: the only readiness that counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from twisted.internet.defer import Deferred

from matrix.errors import GatewayTimeout, MatrixError
from matrix.http._heads import ResponseHead
from matrix.http._reader import END
from matrix.http._upstream import Backend, Counters, Upstream

_REQUEST = b"GET /healthz HTTP/1.1\r\nHost: machine\r\nUser-Agent: matrix-probe\r\n\r\n"

STATE = b"matrix-machine"
"""The field by which a daemon that cannot serve yet says why."""
RESTORING = b"restoring"
"""What that begins with while the user's data are brought back."""

# A machine that is starting refuses many: they say nothing of how requests fare.
_uncounted = Counters()


@dataclass(frozen=True, slots=True)
class Health:
    """What a machine's answer says of it."""

    state: bytes = b""
    """Why it serves nobody yet; empty if it does."""

    @property
    def ready(self) -> bool:
        """Whether requests may go to it."""
        return not self.state

    @classmethod
    def read(cls, head: ResponseHead) -> Health:
        """Any answer will do, whatever its status, but for one that says that it restores."""
        state = head.fields.get(STATE) if head.status == 503 else None
        return cls(state if state is not None and state.startswith(RESTORING) else b"")


class _Probe:
    """One question; any well-formed answer is one."""

    def __init__(self, upstream: Upstream) -> None:
        self.answered: Deferred[Health | None] = Deferred(lambda _: self._done(None))
        self._upstream = upstream
        self._seen: Health | None = None
        upstream.work = self
        upstream.reader.expect(b"GET")
        upstream.transport.write(_REQUEST)

    def response_data(self, data: bytes) -> None:
        reader = self._upstream.reader
        reader.feed(data)
        try:
            while (event := reader.next_event()) is not None:
                if isinstance(event, ResponseHead):
                    self._seen = Health.read(event)
                elif event is END:
                    self._done(self._seen)
                    return
        except MatrixError:
            self._done(None)

    def _done(self, answer: Health | None) -> None:
        upstream = self._upstream
        upstream.work = None
        if answer is not None and answer.ready and not upstream.reader.buffered:
            upstream.backend.put(upstream)
        else:
            upstream.transport.abortConnection()
        if not self.answered.called:
            self.answered.callback(answer)

    def upstream_ended(self) -> bool:
        return False

    def upstream_lost(self) -> None:
        if not self.answered.called:
            self.answered.callback(self._seen)

    def upstream_silent(self) -> None:
        self._done(self._seen)


async def examine(
    backend: Backend, seconds: float, connected: Callable[[], bool] = lambda: True
) -> Health | None:
    """
    What the machine behind C{backend} answers within so many seconds; C{None} if nothing. May
    be cancelled. A connection that answered is kept for the first request.

    @param connected: called once there is a connection; whether it is of use still. Who gives up
        as it comes about has it all the same.
    """
    try:
        upstream = await backend.connect(_uncounted)
    except (OSError, GatewayTimeout):
        return None
    if not connected():
        upstream.transport.abortConnection()
        return None
    attempt = _Probe(upstream)
    upstream.arm(seconds)
    return await attempt.answered


async def probe(backend: Backend, seconds: float) -> bool:
    """Whether the machine behind C{backend} serves requests: answers so within that time."""
    health = await examine(backend, seconds)
    return health is not None and health.ready
