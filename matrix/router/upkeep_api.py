"""The part of the admin API that tells with whose snapshots something is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from matrix.api import send_json
from matrix.directory import IDirectory, Upkeep
from matrix.http.interfaces import Exchange
from matrix.router.asking import limit_in, query_of, reaching_the_directory, time_json

LIMIT: Final = 100
"""Users in one answer unless asked for otherwise: so many in trouble have one cause."""


class UpkeepApi:
    """Answers C{GET /admin/v1/upkeep}."""

    def __init__(self, directory: IDirectory) -> None:
        self._directory = directory

    def join(self, add: Callable[..., None]) -> None:
        """Be part of an admin API (L{matrix.api.Api.add})."""
        add("GET", "/admin/v1/upkeep", self._troubled)

    async def _troubled(self, exchange: Exchange) -> None:
        limit = limit_in(query_of(exchange.request), LIMIT)
        with reaching_the_directory():
            found = await self._directory.upkeep.troubled(limit)
        send_json(exchange, {"troubled": [*map(_upkeep_json, found)]})


def _upkeep_json(row: Upkeep) -> dict[str, object]:
    return {
        "user": row.user_id,
        "chore": row.trouble_of,
        "trouble": row.trouble,
        "failures": row.failures,
        "thinned_at": time_json(row.thinned_at),
        "scrubbed_at": time_json(row.scrubbed_at),
        "deleted_at": time_json(row.deleted_at),
    }
