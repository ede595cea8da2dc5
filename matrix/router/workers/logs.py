"""What workers log: passed on to the supervisor, who writes it where the daemon's log goes."""

from __future__ import annotations

import json
from typing import Any, TextIO

from twisted.logger import (
    FilteringLogObserver,
    ILogObserver,
    LogEvent,
    Logger,
    LogLevel,
    LogLevelFilterPredicate,
    eventAsText,
)
from zope.interface import implementer


@implementer(ILogObserver)
class _Teller:
    """Writes each event as a line of JSON."""

    def __init__(self, output: TextIO) -> None:
        self._output = output

    def __call__(self, event: LogEvent) -> None:
        text = eventAsText(event, includeTimestamp=False, includeSystem=False)
        level = event.get("log_level", LogLevel.info)
        source = event.get("log_namespace", "-")
        line = {"level": level.name, "source": source, "text": text}
        self._output.write(json.dumps(line) + "\n")
        self._output.flush()


def telling(output: TextIO) -> ILogObserver:
    """An observer for a worker: informs the supervisor of all but debugging."""
    wanted = LogLevelFilterPredicate(defaultLogLevel=LogLevel.info)
    return FilteringLogObserver(_Teller(output), [wanted])


class Retelling:
    """Logs one worker's lines as the supervisor's own, under the worker's number."""

    def __init__(self, number: int) -> None:
        self._name = f"worker {number}"

    def __call__(self, line: bytes) -> None:
        """A line from the worker, or from what ran before and after its log."""
        level, source, text = _parsed(line)
        Logger(namespace=f"{self._name} {source}".rstrip()).emit(level, "{text}", text=text)


def _parsed(line: bytes) -> tuple[Any, str, str]:
    try:
        told = json.loads(line)
        level = LogLevel.levelWithName(told["level"])
        return level, str(told["source"]), str(told["text"])
    except Exception:  # noqa: BLE001 - an interpreter's last words have no form
        return LogLevel.warn, "", line.decode("utf-8", "replace")
