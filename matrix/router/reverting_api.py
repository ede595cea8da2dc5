"""The part of the admin API that puts snapshots back onto users' machines."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from twisted.internet.interfaces import IReactorTime

from matrix.api import send_json
from matrix.directory import IDirectory
from matrix.errors import BadRequest
from matrix.http.interfaces import Exchange
from matrix.router.asking import find_user, query_of, reaching_the_directory
from matrix.router.reverting import Reverting, Wish


class RevertingApi:
    """Answers C{POST /admin/v1/users/USER/restore}."""

    def __init__(self, clock: IReactorTime, directory: IDirectory, reverting: Reverting) -> None:
        self._clock = clock
        self._directory = directory
        self._reverting = reverting

    def join(self, add: Callable[..., None]) -> None:
        """Be part of an admin API (L{matrix.api.Api.add})."""
        add("POST", "/admin/v1/users/<user>/restore", self._restore)

    async def _restore(self, exchange: Exchange, user: str) -> None:
        wish = _wish(query_of(exchange.request))
        found = await find_user(self._directory, user)
        before = self._clock.seconds()
        with reaching_the_directory():
            restored = await self._reverting.restore(found.id, wish)
            machine = await self._directory.machine(found.id)
        send_json(
            exchange,
            {
                "user": found.id,
                "email": found.email,
                "state": None if machine is None else machine.state.value,
                "snapshot": restored.id,
                "at": restored.at.isoformat(),
                "ms": round((self._clock.seconds() - before) * 1000),
            },
        )


def _wish(query: dict[str, str]) -> Wish:
    before = None
    if "at" in query:
        try:
            before = datetime.fromisoformat(query["at"])
        except ValueError:
            before = None
        if before is None or before.tzinfo is None:
            raise BadRequest("at must be a time with its zone, as 2026-11-23T14:30:00Z")
    return Wish(before, query.get("snapshot"), query.get("discard") == "true")
