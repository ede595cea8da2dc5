"""The part of the admin API that tells what is at the provider and belongs to nobody."""

from __future__ import annotations

from matrix.api import Api, send_json
from matrix.directory.interfaces import IDirectory
from matrix.http.interfaces import Exchange
from matrix.model import Stray
from matrix.router.asking import PAGE_LIMIT, limit_in, query_of, reaching_the_directory, time_json


class StraysApi:
    """Lists strays, in pages."""

    def __init__(self, directory: IDirectory) -> None:
        self._directory = directory

    def join(self, api: Api) -> None:
        """Be part of an admin API."""
        api.add("GET", "/admin/v1/strays", self._strays)

    async def _strays(self, exchange: Exchange) -> None:
        query = query_of(exchange.request)
        limit = limit_in(query, PAGE_LIMIT)
        with reaching_the_directory():
            page = await self._directory.strays.all(query.get("after"), limit)
        following = page[-1].id if len(page) == limit else None
        send_json(exchange, {"strays": [*map(_stray_json, page)], "next": following})


def _stray_json(stray: Stray) -> dict[str, object]:
    return {
        "id": stray.id,
        "kind": stray.kind,
        "provider": stray.provider,
        "app": stray.app,
        "name": stray.name,
        "region": stray.region,
        "user": stray.user_id,
        "reason": stray.reason,
        "ours": stray.ours,
        "first_seen": time_json(stray.first_seen),
        "last_seen": time_json(stray.last_seen),
    }
