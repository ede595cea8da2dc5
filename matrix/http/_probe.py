"""Whether a machine answers HTTP: the only readiness that counts."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from matrix.errors import GatewayTimeout, MatrixError
from matrix.http._reader import END
from matrix.http._upstream import Backend, Counters, Upstream

_REQUEST = b"GET /healthz HTTP/1.1\r\nHost: machine\r\nUser-Agent: matrix-probe\r\n\r\n"

# A machine that is starting refuses many: they say nothing of how requests fare.
_uncounted = Counters()


class _Probe:
    """One question; any well-formed answer will do, whatever its status."""

    def __init__(self, upstream: Upstream) -> None:
        self.answered: Deferred[bool] = Deferred(self._cancelled)
        self._upstream = upstream
        self._seen = False
        upstream.work = self
        upstream.reader.expect(b"GET")
        upstream.transport.write(_REQUEST)

    def response_data(self, data: bytes) -> None:
        reader = self._upstream.reader
        reader.feed(data)
        try:
            while (event := reader.next_event()) is not None:
                self._seen = True
                if event is END:
                    self._done(True)
                    return
        except MatrixError:
            self._done(False)

    def _done(self, answer: bool) -> None:
        upstream = self._upstream
        upstream.work = None
        if answer and not upstream.reader.buffered:
            upstream.backend.put(upstream)
        else:
            upstream.transport.abortConnection()
        if not self.answered.called:
            self.answered.callback(answer)

    def _cancelled(self, answered: Deferred[bool]) -> None:
        self._done(False)

    def upstream_ended(self) -> bool:
        return False

    def upstream_lost(self) -> None:
        if not self.answered.called:
            self.answered.callback(self._seen)

    def upstream_silent(self) -> None:
        self._done(self._seen)


async def probe(backend: Backend, seconds: float) -> bool:
    """
    Whether the machine behind C{backend} answers HTTP within so many seconds. A connection
    that answered is kept for the first request.
    """
    try:
        upstream = await backend.connect(_uncounted)
    except (OSError, GatewayTimeout):
        return False
    attempt = _Probe(upstream)
    upstream.arm(seconds)
    return await attempt.answered
