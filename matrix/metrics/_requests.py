"""What is counted of each finished request, in one call with every child resolved before."""

from __future__ import annotations

from matrix.metrics import series
from matrix.metrics._instruments import Counter
from matrix.metrics._registry import Registry

_CLASSES = ("other", "1xx", "2xx", "3xx", "4xx", "5xx")


class RequestMeter:
    """
    Counts finished requests.

    It runs once for each request, so each phase's C{observe} is bound beforehand and there
    is no loop over the phases: that halves the cost.
    """

    __slots__ = ("_auth", "_own", "_proxied", "_ready", "_route", "_total", "_upstream", "_wake")

    def __init__(self, registry: Registry) -> None:
        self._proxied = _by_class(registry, "proxied")
        self._own = _by_class(registry, "own")
        self._auth = registry.histogram(series.REQUEST_SECONDS, "auth").observe
        self._route = registry.histogram(series.REQUEST_SECONDS, "route").observe
        self._wake = registry.histogram(series.REQUEST_SECONDS, "wake").observe
        self._ready = registry.histogram(series.REQUEST_SECONDS, "ready").observe
        self._upstream = registry.histogram(series.REQUEST_SECONDS, "upstream").observe
        self._total = registry.histogram(series.REQUEST_SECONDS, "total").observe

    def finished(
        self,
        proxied: bool,
        status: int,
        auth: float | None,
        route: float | None,
        wake: float | None,
        ready: float | None,
        upstream: float | None,
        total: float,
    ) -> None:
        """
        Count one request. Durations are in seconds, C{None} for a phase it did not go through.

        @param proxied: whether the machine answered, and not Matrix itself.
        """
        kind = status // 100
        classes = self._proxied if proxied else self._own
        classes[kind if 0 < kind < 6 else 0].value += 1
        if auth is not None:
            self._auth(auth)
        if route is not None:
            self._route(route)
        if wake is not None:
            self._wake(wake)
        if ready is not None:
            self._ready(ready)
        if upstream is not None:
            self._upstream(upstream)
        self._total(total)


def _by_class(registry: Registry, kind: str) -> tuple[Counter, ...]:
    return tuple(registry.counter(series.REQUESTS, kind, name) for name in _CLASSES)
