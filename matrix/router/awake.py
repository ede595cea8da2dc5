"""Why is it awake: what operators ask, and what is measured, of the time machines are awake."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from matrix.api import Api, send_json
from matrix.directory import FleetWaking, IDirectory, Waking
from matrix.directory.awake import KEPT_DAYS
from matrix.errors import BadRequest
from matrix.http.interfaces import Exchange
from matrix.metrics import Registry, series
from matrix.router.asking import (
    find_user,
    limit_in,
    query_of,
    reaching_the_directory,
    time_json,
)

DAYS: Final = 7
"""Days looked back upon unless asked for otherwise."""

TOP: Final = 20
"""Users in one answer unless asked for otherwise."""


USUAL: Final = ("request", "navigation", "operator")
"""Causes that there are at every router, shown from the start."""


class AwakeApi:
    """The part of the admin API that says who is awake, for how long, and what for."""

    def __init__(self, directory: IDirectory) -> None:
        self._directory = directory

    def join(self, api: Api) -> None:
        """Be part of an admin API."""
        api.add("GET", "/admin/v1/awake", self._top)
        api.add("GET", "/admin/v1/users/<user>/awake", self._user)

    async def _top(self, exchange: Exchange) -> None:
        query = query_of(exchange.request)
        days, limit = _days_in(query), limit_in(query, TOP)
        with reaching_the_directory():
            top = await self._directory.awake.top(days, limit)
            fleet = await self._directory.awake.fleet()
        content = {
            "days": days,
            "users": [*map(_user_json, top)],
            "fleet": {cause: _fleet_json(one) for cause, one in sorted(fleet.items())},
        }
        send_json(exchange, content)

    async def _user(self, exchange: Exchange, user: str) -> None:
        days = _days_in(query_of(exchange.request))
        found = await find_user(self._directory, user)
        with reaching_the_directory():
            waking = await self._directory.awake.of_user(found.id, days)
        send_json(exchange, {"days": days, **_user_json(waking), "email": found.email})


class AwakeGauges:
    """
    What the directory knows of the whole fleet, as metrics.

    They are asked for now and then, not at each scrape, which must not wait. Every router tells
    the same of the fleet.
    """

    def __init__(self, directory: IDirectory, registry: Registry) -> None:
        self._directory = directory
        self._registry = registry
        self._fleet: dict[str, FleetWaking] = {}
        for cause in USUAL:
            self._fleet[cause] = FleetWaking(0, 0.0)
            self._watch(cause)

    async def refresh(self) -> None:
        """
        Ask anew.

        @raise DirectoryUnavailable: it cannot be known now; what was known stays.
        """
        for cause, found in (await self._directory.awake.fleet()).items():
            if cause not in self._fleet:
                self._watch(cause)
            self._fleet[cause] = found

    def _watch(self, cause: str) -> None:
        registry, fleet = self._registry, self._fleet
        registry.watch(series.AWAKE_MACHINES, lambda: fleet[cause].machines, cause)
        registry.watch(series.AWAKE_SECONDS, lambda: fleet[cause].seconds, cause)


def _days_in(query: Mapping[str, str]) -> int:
    text = query.get("days", str(DAYS))
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= KEPT_DAYS):
        raise BadRequest(f"days must be a number from 1 to {KEPT_DAYS}", reason="days")
    return int(text)


def _user_json(waking: Waking) -> dict[str, object]:
    now = waking.now
    return {
        "user": waking.user_id,
        "email": waking.email,
        "seconds": round(sum(waking.seconds.values()), 3),
        "by_cause": {
            cause: {"seconds": round(seconds, 3), "wakes": waking.wakes[cause]}
            for cause, seconds in sorted(waking.seconds.items())
        },
        "awake_since": None if now is None else time_json(now.since),
        "awake_cause": None if now is None else now.cause,
        "last_active_at": time_json(waking.last_active_at),
    }


def _fleet_json(one: FleetWaking) -> dict[str, object]:
    return {"machines": one.machines, "seconds": round(one.seconds, 3)}
