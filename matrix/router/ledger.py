"""One entry per finished request: the access log's record and the counters."""

from __future__ import annotations

import time
from functools import partial
from math import inf

from matrix.http import Exchange
from matrix.metrics import Registry, RequestMeter, series
from matrix.net import IWheel
from matrix.router.accesslog import AccessLog, Record
from matrix.router.story import Story

BATCH = 100
"""Entries settled together: in a loop of their own they cost half as much as one by one, and the
event loop does nothing else for less than half a millisecond."""

DELAY = 0.25
"""Seconds until an entry is settled when there are too few for a batch."""

_NOTHING = Story()
_record = partial(tuple.__new__, Record)  # the class itself takes twice as long to call


class Ledger:
    """Notes each exchange that a listener is done with; what can wait is done in batches."""

    def __init__(self, registry: Registry, log: AccessLog, wheel: IWheel) -> None:
        self.deadline = inf
        self.wheel_due = inf
        self._meter = RequestMeter(registry)
        self._log = log
        self._wheel = wheel
        self._bytes_in = registry.counter(series.BYTES, "client", "in")
        self._bytes_out = registry.counter(series.BYTES, "client", "out")
        self._pending: list[Record] = []
        self._epoch = time.time() - time.perf_counter()
        """What turns the performance counter's seconds into unix time."""
        registry.before_scrape(self.settle)

    def finished(self, exchange: Exchange) -> None:
        """The exchange is over, whichever way."""
        story: Story = exchange.story or _NOTHING
        request, principal, wake = exchange.request, story.principal, story.wake
        get = request.fields.get
        started = exchange.started
        pending = self._pending
        pending.append(
            _record(
                (
                    self._epoch + started,
                    exchange.request_id,
                    principal.user_id if principal is not None else None,
                    request.method,
                    request.target,
                    exchange.status,
                    exchange.body_bytes,
                    exchange.bytes_out,
                    story.auth_s,
                    story.route_s,
                    story.wake_s,
                    story.ready_s,
                    story.upstream_s,
                    time.perf_counter() - started,
                    wake.cause if wake is not None else None,
                    exchange.peer,
                    exchange.tls or None,
                    exchange.close_reason or None,
                    request.http11,
                    get(b"referer"),
                    get(b"user-agent"),
                )
            )
        )
        if len(pending) >= BATCH:
            self.settle()
        elif self.deadline == inf:
            self._wheel.arm(self, DELAY)

    def expired(self) -> None:
        """There were too few for a batch."""
        self.settle()

    def settle(self) -> None:
        """Count and log what was noted since the last time."""
        self.deadline = inf
        self._epoch = time.time() - time.perf_counter()
        records, self._pending = self._pending, []
        if records:
            self._meter.count(records)
            self._bytes_in.value += sum([record.bytes_in for record in records])
            self._bytes_out.value += sum([record.bytes_out for record in records])
            self._log.add(records)
