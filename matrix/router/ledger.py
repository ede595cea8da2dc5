"""One entry per finished request: the access log's record and the counters."""

from __future__ import annotations

import time

from matrix.http import Exchange
from matrix.metrics import Registry, RequestMeter, series
from matrix.router.accesslog import AccessLog, Record
from matrix.router.story import Story

_NOTHING = Story()


class Ledger:
    """Notes each exchange that a listener is done with."""

    def __init__(self, registry: Registry, log: AccessLog) -> None:
        self._count = RequestMeter(registry).finished
        self._log = log
        self._bytes_in = registry.counter(series.BYTES, "client", "in")
        self._bytes_out = registry.counter(series.BYTES, "client", "out")

    def finished(self, exchange: Exchange) -> None:
        """The exchange is over, whichever way."""
        story: Story = exchange.story or _NOTHING
        wall = time.time()
        total_s = time.perf_counter() - exchange.started
        status = exchange.status
        self._bytes_in.value += exchange.body_bytes
        self._bytes_out.value += exchange.bytes_out
        self._count(
            story.upstream_s is not None,
            status,
            story.auth_s,
            story.route_s,
            story.wake_s,
            story.ready_s,
            story.upstream_s,
            total_s,
        )
        request, principal = exchange.request, story.principal
        self._log.add(
            Record(
                wall - total_s,
                exchange.request_id,
                principal.user_id if principal is not None else None,
                request.method,
                request.target,
                status,
                exchange.body_bytes,
                exchange.bytes_out,
                story.auth_s,
                story.route_s,
                story.wake_s,
                story.ready_s,
                story.upstream_s,
                total_s,
                story.wake.cause if story.wake is not None else None,
                exchange.peer,
                exchange.tls or None,
                exchange.close_reason or None,
                request.http11,
                request.get(b"referer"),
                request.get(b"user-agent"),
            )
        )
