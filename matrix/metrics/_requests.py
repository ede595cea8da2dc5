"""What is counted of finished requests, many at a time."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Sequence
from typing import Protocol

from matrix.metrics import series
from matrix.metrics._instruments import Counter
from matrix.metrics._registry import Registry

_CLASSES = ("other", "1xx", "2xx", "3xx", "4xx", "5xx")


class Finished(Protocol):
    """A finished request. Durations are in seconds, C{None} for a phase it did not go through."""

    @property
    def status(self) -> int: ...
    @property
    def auth_s(self) -> float | None: ...
    @property
    def route_s(self) -> float | None: ...
    @property
    def wake_s(self) -> float | None: ...
    @property
    def ready_s(self) -> float | None: ...
    @property
    def upstream_s(self) -> float | None:
        """C{None} also if Matrix itself answered."""

    @property
    def total_s(self) -> float: ...


class RequestMeter:
    """Counts finished requests. Phase by phase instead of request by request, it costs a third."""

    def __init__(self, registry: Registry) -> None:
        self._proxied = _by_class(registry, "proxied")
        self._own = _by_class(registry, "own")
        self._auth, self._route, self._wake, self._ready, self._upstream, self._total = (
            registry.histogram(series.REQUEST_SECONDS, phase).observe_all
            for phase in ("auth", "route", "wake", "ready", "upstream", "total")
        )

    def count(self, requests: Sequence[Finished]) -> None:
        """Count them all."""
        outcomes = Tally([(one.upstream_s is not None, one.status // 100) for one in requests])
        for (proxied, kind), number in outcomes.items():
            classes = self._proxied if proxied else self._own
            classes[kind if 0 < kind < 6 else 0].value += number
        self._auth([one.auth_s for one in requests if one.auth_s is not None])
        self._route([one.route_s for one in requests if one.route_s is not None])
        self._wake([one.wake_s for one in requests if one.wake_s is not None])
        self._ready([one.ready_s for one in requests if one.ready_s is not None])
        self._upstream([one.upstream_s for one in requests if one.upstream_s is not None])
        self._total([one.total_s for one in requests])


def _by_class(registry: Registry, kind: str) -> tuple[Counter, ...]:
    return tuple(registry.counter(series.REQUESTS, kind, name) for name in _CLASSES)
