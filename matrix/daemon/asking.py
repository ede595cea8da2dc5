"""Calls from a machine to its router: what is to be restored, and what the repository holds."""

from __future__ import annotations

import base64
import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from matrix.daemon.briefing import Briefing

SECONDS = 5.0
"""For one call; who asks again and again must not wait for one long."""
LIMIT = 16 * 1024 * 1024
"""Bytes of an answer: a list of some 100,000 snapshots."""
LIST_TYPE = "application/vnd.x.restic.rest.v2"
_OK, _MISSING = 200, 404


class NoAnswer(Exception):
    """There was no answer to go by; the text is one sentence that says why."""


@dataclass(frozen=True, slots=True)
class RestorePoint:
    """What a machine without data is to restore."""

    snapshot: str
    """restic's id."""
    size: int = 0
    """Bytes; 0 if nobody knows."""


class Router:
    """What a machine can ask. Every method blocks."""

    def __init__(self, briefing: Briefing) -> None:
        self._briefing = briefing
        login = f"{briefing.user}:{briefing.account}".encode()
        self._login = {"Authorization": f"Basic {base64.b64encode(login).decode()}"}

    def restore_point(self) -> RestorePoint | None:
        """
        The newest good snapshot that there is; C{None} if there never was one.

        @raise NoAnswer: that is not known, which is no C{None}.
        """
        url = f"{self._briefing.router_url}/machine/v1/{self._briefing.user}/restore"
        token = {"Authorization": f"Bearer {self._briefing.router_token}"}
        status, body = _call("GET", url, token)
        if status != _OK:
            raise NoAnswer(f"the router answered {status} when asked what to restore")
        match _parsed(body):
            case {"snapshot": None}:
                return None
            case {"snapshot": str(snapshot), **rest} if snapshot:
                size = rest.get("bytes_total")
                return RestorePoint(snapshot, size if isinstance(size, int) else 0)
        raise NoAnswer("the router did not say what to restore")

    def has_repository(self) -> bool:
        """
        Whether a repository was ever begun.

        @raise NoAnswer: that is not known.
        """
        status, _ = _call("HEAD", f"{self._briefing.repository}config", self._login)
        if status not in (_OK, _MISSING):
            raise NoAnswer(f"the repository's service answered {status}")
        return status == _OK

    def full_id(self, snapshot: str) -> str:
        """
        The whole id of a snapshot; restic before 0.17 tells the beginning of it only.

        @raise NoAnswer: it is not to be had.
        """
        fields = {**self._login, "Accept": LIST_TYPE}
        status, body = _call("GET", f"{self._briefing.repository}snapshots/", fields)
        if status != _OK:
            raise NoAnswer(f"the repository's service answered {status} to a list of snapshots")
        listed = _parsed(body)
        names = [each.get("name", "") for each in listed] if isinstance(listed, list) else []
        found = [name for name in names if name.startswith(snapshot)]
        if len(found) != 1:
            raise NoAnswer(f"the repository lists {len(found)} snapshots {snapshot}")
        return str(found[0])


def _call(method: str, url: str, fields: Mapping[str, str]) -> tuple[int, bytes]:
    place = urlsplit(url)
    kind = http.client.HTTPSConnection if place.scheme == "https" else http.client.HTTPConnection
    connection = kind(place.hostname or "", place.port, timeout=SECONDS)
    try:
        connection.request(method, place.path, headers=dict(fields))
        response = connection.getresponse()
        return response.status, response.read(LIMIT)
    except (OSError, http.client.HTTPException) as error:
        reason = str(error) or type(error).__name__
        raise NoAnswer(f"{place.hostname} port {place.port} cannot be reached: {reason}") from None
    finally:
        connection.close()


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        raise NoAnswer("the answer was no JSON") from None
