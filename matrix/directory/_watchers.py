"""The list of those who want to hear of changes; one that fails is no harm to the others."""

from __future__ import annotations

from twisted.logger import Logger

from matrix.directory.interfaces import Watcher
from matrix.model import UserId


class Watchers:
    """Calls each watcher in turn."""

    _log = Logger()

    def __init__(self) -> None:
        self._watchers: list[Watcher] = []
        self.failures = 0
        """How many calls of watchers have raised."""

    def add(self, watcher: Watcher) -> None:
        """Call C{watcher} from now on."""
        self._watchers.append(watcher)

    def tell(self, user_id: UserId | None) -> None:
        """Call each watcher; what one raises is logged and counted."""
        for watcher in tuple(self._watchers):
            try:
                watcher(user_id)
            except Exception:  # noqa: BLE001 - whatever it was, the next watcher must hear
                self.failures += 1
                self._log.failure("a watcher failed on {user_id}", user_id=user_id)
