"""Status lines, made once each. Pure."""

from __future__ import annotations

from http import HTTPStatus

_lines = {
    status.value: b"HTTP/1.1 %d %b\r\n" % (status.value, status.phrase.encode())
    for status in HTTPStatus
}


def status_line(status: int, reason: bytes) -> bytes:
    """The status line; the standard phrase where C{reason} is empty."""
    if reason:
        return b"HTTP/1.1 %d %b\r\n" % (status, reason)
    return _lines.get(status) or b"HTTP/1.1 %d \r\n" % status
