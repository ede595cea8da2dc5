"""Having snapshots taken by the admin API, which tells line by line how it goes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import closing
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

from matrix.testing.running import RunningMatrix

PATIENCE = 600.0
"""Seconds without a line: a store may be away for minutes."""

Heard = Callable[[dict[str, Any]], None]


def snapshot(matrix: RunningMatrix, user: str, heard: Heard | None = None) -> dict[str, Any]:
    """
    Have a snapshot taken; blocks.

    @param heard: is told each line.
    @return: the last line, with the C{seconds} that it took.
    """
    began = time.monotonic()
    place = urlsplit(str(matrix.announced["internal"]))
    header = {"Authorization": f"Bearer {matrix.announced['admin_token']}"}
    line: dict[str, Any] = {}
    with closing(HTTPConnection(str(place.hostname), place.port, timeout=PATIENCE)) as connection:
        connection.request("POST", f"/admin/v1/users/{user}/snapshot", headers=header)
        answer = connection.getresponse()
        for text in answer:
            line = json.loads(text)
            if heard is not None:
                heard(line)
    return {**line, "seconds": time.monotonic() - began}
