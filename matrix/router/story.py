"""What is to be told of one request: who sent it, how long each phase took, what woke whom."""

from __future__ import annotations

from matrix.http import Backend
from matrix.model import Principal
from matrix.router.routes import Route, Wake


class Story:
    """Filled in on the request's way; read by C{Server-Timing}, log and metrics. Times are
    C{perf_counter} seconds, durations seconds."""

    # Defaults of the class, because one is made for each request and few are ever changed.
    principal: Principal | None = None
    mark = 0.0
    auth_s: float | None = None
    route_s: float | None = None
    wake_s: float | None = None
    ready_s: float | None = None
    upstream_s: float | None = None
    wake: Wake | None = None
    id_line = b""
    """The request id as a header line with CRLF, for both sides."""
    route: Route | None = None
    backend: Backend | None = None
    """The connections that were chosen."""
    retried = False
    """Whether they were chosen anew after others had been found dead."""

    def authenticated(self, principal: Principal, started: float, now: float) -> None:
        """The token was found good."""
        self.principal = principal
        self.auth_s = now - started
        self.mark = now

    def woken(self, wake: Wake | None, seconds: float, now: float) -> None:
        """
        The machine is awake.

        @param seconds: how long this request waited for it.
        """
        if wake is not None and wake.was != "running":
            self.wake = wake
            self.ready_s = min(wake.ready_s, seconds)
            self.wake_s = seconds - self.ready_s
        self.mark = now

    def routed(
        self, route: Route, backend: Backend, retried: bool, request_id: str, now: float
    ) -> None:
        """Where the request is to go."""
        self.route = route
        self.backend = backend
        self.retried = retried
        self.id_line = b"X-Request-Id: %b\r\n" % request_id.encode()
        self.route_s = now - self.mark
        self.mark = now

    def answered(self, now: float) -> bytes:
        """The machine's answer begins; the header lines that tell about all this."""
        self.upstream_s = upstream_s = now - self.mark
        auth_s, route_s = self.auth_s or 0.0, self.route_s or 0.0
        if self.wake is None:
            return b"Server-Timing: auth;dur=%.3f, route;dur=%.3f, upstream;dur=%.3f\r\n" % (
                auth_s * 1000,
                route_s * 1000,
                upstream_s * 1000,
            )
        wake_s, ready_s = self.wake_s or 0.0, self.ready_s or 0.0
        return (
            b"Server-Timing: auth;dur=%.3f, route;dur=%.3f, wake;dur=%.1f, ready;dur=%.1f, "
            b"upstream;dur=%.3f\r\nMatrix-Wake: %b;dur=%.0f\r\n"
        ) % (
            auth_s * 1000,
            route_s * 1000,
            wake_s * 1000,
            ready_s * 1000,
            upstream_s * 1000,
            self.wake.was.encode(),
            (wake_s + ready_s) * 1000,
        )
