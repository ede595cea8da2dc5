"""The list of those who want to hear of changes; one that fails is no harm to the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from twisted.logger import Logger

Change = TypeVar("Change")


class Watchers(Generic[Change]):
    """Calls each watcher in turn with what changed, or with C{None} after a gap."""

    _log = Logger()

    def __init__(self) -> None:
        self._watchers: list[Callable[[Change | None], None]] = []
        self.failures = 0
        """How many calls of watchers have raised."""

    def add(self, watcher: Callable[[Change | None], None]) -> None:
        """Call C{watcher} from now on."""
        self._watchers.append(watcher)

    def tell(self, change: Change | None) -> None:
        """Call each watcher; what one raises is logged and counted."""
        for watcher in tuple(self._watchers):
            try:
                watcher(change)
            except Exception:  # noqa: BLE001 - whatever it was, the next watcher must hear
                self.failures += 1
                self._log.failure("a watcher failed on {change}", change=change)
