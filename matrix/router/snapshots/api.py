"""Snapshots in the admin API, and what a machine may ask of its own."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol

from matrix.api import dump, send_json
from matrix.directory import DirectoryUnavailable, IDirectory
from matrix.errors import Forbidden, MatrixError, NotFound
from matrix.http.interfaces import Exchange
from matrix.model import Snapshot, Standing, UserId
from matrix.router.asking import (
    CAUSE,
    PAGE_LIMIT,
    find_user,
    limit_in,
    query_of,
    reaching_the_directory,
    time_json,
)
from matrix.router.machine_api import MachineApi
from matrix.router.reverting import still_wanted
from matrix.router.snapshots.report import Done, Failed, Outcome, Progress, Unchanged
from matrix.router.snapshots.taker import Taker

LIMIT: Final = 50
"""Snapshots in one answer unless asked for otherwise: a screen or two."""

NDJSON: Final = (b"content-type", b"application/x-ndjson")

Add = Callable[..., None]
"""L{matrix.api.Api.add}."""


class Wakes(Protocol):
    """Who wakes machines: C{matrix.router.wake}."""

    def wake(self, user_id: UserId, cause: str) -> Coroutine[Any, Any, object]:
        """
        Return once the user's machine answers HTTP.

        @raise matrix.errors.MatrixError: it does not, or not in time.
        """


class SnapshotsApi:
    """Lists snapshots, has them taken, and tells machines which one they boot from."""

    def __init__(self, directory: IDirectory, control: Wakes, taker: Taker | None) -> None:
        """@param taker: C{None} if there are no snapshots."""
        self._directory = directory
        self._control = control
        self._taker = taker

    def join(self, add: Add) -> None:
        """Be part of an admin API."""
        add("GET", "/admin/v1/snapshots", self._standings)
        add("GET", "/admin/v1/users/<user>/snapshots", self._of_user)
        add("POST", "/admin/v1/users/<user>/snapshot", self._take)

    def join_machines(self, api: MachineApi) -> None:
        """Be part of what machines may ask."""
        api.add("GET", "restore", self._restore)

    # operators

    async def _standings(self, exchange: Exchange) -> None:
        limit = limit_in(query_of(exchange.request), PAGE_LIMIT)
        with reaching_the_directory():
            standings = await self._directory.snapshots.standings(limit)
        told = [*map(_standing_json, standings)]
        send_json(exchange, {"on": self._taker is not None, "users": told})

    async def _of_user(self, exchange: Exchange, user: str) -> None:
        limit = limit_in(query_of(exchange.request), LIMIT)
        found = await find_user(self._directory, user)
        with reaching_the_directory():
            snapshots = await self._directory.snapshots.of_user(found.id, limit)
        told = {"user": found.id, "email": found.email, "on": self._taker is not None}
        send_json(exchange, {**told, "snapshots": [*map(snapshot_json, snapshots)]})

    async def _take(self, exchange: Exchange, user: str) -> None:
        """Have one taken, and tell how it goes, line by line."""
        found = await find_user(self._directory, user)
        taker = self._taker
        if taker is None:
            raise Forbidden("there are no snapshots here: see docs/snapshots.md", reason="off")
        with reaching_the_directory():
            machine = await self._directory.machine(found.id)
            if machine is None:
                raise NotFound(
                    f"{found.email or found.id} has no machine yet, and so no data",
                    reason="machine",
                )
            safe = machine.state.value == "suspended" and await taker.is_safe(machine)
        exchange.begin(200, [NDJSON, (b"cache-control", b"no-store")])

        def tell(value: dict[str, object]) -> None:
            if not exchange.gone:
                exchange.write(dump(value) + b"\n")

        if safe:
            tell(outcome_json(Unchanged()))
        else:
            tell({"kind": "progress", "stage": "wake", **_AMOUNTS})
            tell(await self._taken(taker, found.id, lambda at: tell(progress_json(at))))
        exchange.end()

    async def _taken(
        self, taker: Taker, user_id: UserId, told: Callable[[Progress], None]
    ) -> dict[str, object]:
        """How it ended. The answer has begun, so that trouble is told in it."""
        try:
            await self._control.wake(user_id, CAUSE)
            outcome = await taker.take_now(user_id, CAUSE, told)
        except MatrixError as error:
            return {"kind": "failed", "reason": error.detail or error.title, "retry": True}
        except DirectoryUnavailable:
            return {"kind": "failed", "reason": "the database cannot be reached", "retry": True}
        return outcome_json(outcome)

    # machines

    async def _restore(self, exchange: Exchange, user_id: UserId) -> None:
        """Which snapshot an empty machine is to begin with. That it cannot be said now is never
        taken for that there is none."""
        with reaching_the_directory():
            upkeep = await self._directory.upkeep.find(user_id)
            newest = await self._directory.snapshots.newest(user_id)
        wanted = None if upkeep is None else still_wanted(upkeep, newest)
        if wanted is not None:
            send_json(exchange, {"snapshot": wanted, "at": None})
        elif newest is not None:
            at = time_json(newest.finished_at)
            told = {"snapshot": newest.restic_id, "at": at, "bytes_total": newest.bytes_total}
            send_json(exchange, told)
        else:
            send_json(exchange, {"snapshot": None, "at": None})


_AMOUNTS: Final = {"files_done": 0, "bytes_done": 0, "bytes_total": 0}


def progress_json(at: Progress) -> dict[str, object]:
    """A line about how far it is."""
    return {
        "kind": "progress",
        "stage": at.stage,
        "files_done": at.files_done,
        "bytes_done": at.bytes_done,
        "bytes_total": at.bytes_total,
    }


def outcome_json(outcome: Outcome | None) -> dict[str, object]:
    """The last line."""
    if isinstance(outcome, Done):
        return {
            "kind": "done",
            "snapshot": outcome.restic_id,
            "bytes_added": outcome.bytes_added,
            "bytes_total": outcome.bytes_total,
            "partial": outcome.partial,
        }
    if isinstance(outcome, Failed):
        return {"kind": "failed", "reason": outcome.reason, "retry": outcome.retry}
    if outcome is None:
        reason = "what runs in this machine takes no snapshots: it is not Matrix's daemon"
        return {"kind": "failed", "reason": reason, "retry": False}
    return {"kind": "unchanged"}


def snapshot_json(one: Snapshot) -> dict[str, object]:
    """A snapshot, or an attempt, as the admin API tells of it."""
    ended = one.finished_at
    return {
        "snapshot": one.restic_id,
        "status": one.status.value,
        "cause": one.cause,
        "started_at": time_json(one.started_at),
        "finished_at": time_json(ended),
        "seconds": None if ended is None else round((ended - one.started_at).total_seconds(), 1),
        "bytes_added": one.bytes_added,
        "bytes_total": one.bytes_total,
        "partial": one.partial,
        "reason": one.reason,
        "verified_at": time_json(one.verified_at),
    }


def _standing_json(one: Standing) -> dict[str, object]:
    return {
        "user": one.user_id,
        "email": one.email,
        "due_at": time_json(one.due_at),
        "failures": one.failures,
        "reason": one.reason,
        "newest": None if one.newest is None else snapshot_json(one.newest),
    }
