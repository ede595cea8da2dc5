"""Server-sent events, as far as a proxy needs to know them (WHATWG HTML, section 9.2). Pure."""

from __future__ import annotations

import re

_FIELD = re.compile(rb"(?:^|[\r\n])[^:\r\n]")


class EventSpotter:
    """Tells events from comments: a stream that only says C{: still here} is not in use."""

    __slots__ = ("_in_comment", "_line_start")

    def __init__(self) -> None:
        self._line_start = True
        self._in_comment = False

    def feed(self, data: bytes) -> bool:
        """Whether these bytes hold anything but comments and empty lines."""
        if self._line_start:
            used = _FIELD.search(data) is not None
        else:
            end = _line_end(data)
            rest_of_field = not self._in_comment and end != 0
            used = rest_of_field or (end >= 0 and _FIELD.search(data, end) is not None)
        self._remember(data)
        return used

    def _remember(self, data: bytes) -> None:
        start = max(data.rfind(b"\n"), data.rfind(b"\r")) + 1
        if start == len(data):
            self._line_start = True
            self._in_comment = False
        elif start or self._line_start:
            self._line_start = False
            self._in_comment = data[start : start + 1] == b":"


def _line_end(data: bytes) -> int:
    """Where the first line of C{data} ends, or -1."""
    match = re.search(rb"[\r\n]", data)
    return match.start() if match else -1
