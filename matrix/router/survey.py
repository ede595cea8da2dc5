"""The survey: every minute one router compares all rows with all that there is at the provider."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from twisted.logger import Logger

from matrix.directory import DirectoryUnavailable, StaleRow
from matrix.machines import ProviderError, Sighted, SurveyPage
from matrix.metrics import Registry, series
from matrix.model import Machine, MachineState, UserId
from matrix.router.fleet import Fleet
from matrix.router.judgement import is_stuck, is_suspect, is_vanished, moved_volume, named
from matrix.router.reconcile import Reconciler
from matrix.router.strays import Strays

DUTY = "survey"
"""Its name among the duties, before the provider's."""
LEASE = 120.0
"""Seconds after which another router may begin, counted from the last page: a page takes up to a
minute while Fly refuses."""
PAGE = 1000
"""Rows of which little is read, at once."""
CHUNK = 200
"""Rows that are read whole at once: some milliseconds in which nothing else happens."""
MASS, MASS_SHARE = 20, 0.1
"""So many machines, and such a part of all, do not vanish at once: rather the organization, the
app or the token is another one. Nothing is concluded then."""

_DESTROYED = MachineState.DESTROYED

_log = Logger()


@dataclass
class _Found:
    """What is remembered of a survey until its end."""

    ids: set[str] = field(default_factory=set)
    """Of all machines."""
    blind: set[str] = field(default_factory=set)
    suspects: set[UserId] = field(default_factory=set)
    unknown: list[Sighted] = field(default_factory=list)
    """What no row named when it was seen."""
    stuck: int = 0


class Surveyor:
    """Compares page by page; what seems wrong is looked at once more, each by itself."""

    def __init__(
        self, fleet: Fleet, reconciler: Reconciler, strays: Strays, registry: Registry
    ) -> None:
        self._fleet = fleet
        self._directory = fleet.directory
        self._reconciler = reconciler
        self._strays = strays
        self._registry = registry
        self._duty = f"{DUTY} {fleet.provider.name}"
        self._stopped = False

    def stop(self) -> None:
        """Break off what is under way at the next page."""
        self._stopped = True

    async def run(self, every: float) -> None:
        """
        One pass, if it is due and no other router is at it.

        @param every: seconds from the end of the last one, whoever did it.
        """
        pages = self._fleet.provider.survey()
        duties, owner = self._directory.duties, self._fleet.owner
        if pages is None or not await duties.claim(self._duty, owner, LEASE, every):
            return
        tried = False
        try:
            outcome = await self._pass(pages)
            tried = True
        except ProviderError as error:
            _log.warn("the survey was broken off: {error}", error=error)
            outcome, tried = "failed", not self._stopped
        finally:
            try:
                await duties.release(self._duty, owner, done=tried)
            except DirectoryUnavailable as error:
                _log.warn("the survey is not noted: {error}", error=error)
        self._registry.counter(series.SURVEYS, outcome).value += 1

    async def _pass(self, pages: AsyncIterator[SurveyPage]) -> str:
        """What came of it, in a word."""
        found = _Found()
        async for page in pages:
            await self._still_ours()
            found.blind |= set(page.blind)
            for start in range(0, len(page.found), CHUNK):
                await self._compare(page.found[start : start + CHUNK], found)
        self._registry.gauge(series.STUCK_MACHINES).value = float(found.stuck)
        vanished, rows = await self._beside_all_rows(found)
        if len(vanished) >= MASS and len(vanished) > MASS_SHARE * rows:
            _log.error(
                "{count} of {rows} machines are not in the provider's listing: nothing is "
                "concluded from it. Are MATRIX_FLY_ORG and the token those of the machines?",
                count=len(vanished), rows=rows,
            )  # fmt: skip
            return "doubtful"
        for user_id in sorted(found.suspects | vanished):
            await self._still_ours()
            await self._reconciler.look(user_id)
        await self._strays.settle(found.unknown, found.blind)
        return "partial" if found.blind else "done"

    async def _still_ours(self) -> None:
        """
        Prolong the lease.

        @raise ProviderError: another router has it, or this one stops.
        """
        if self._stopped:
            raise ProviderError("Matrix is stopping")
        if not await self._directory.duties.claim(self._duty, self._fleet.owner, LEASE):
            raise ProviderError("it took too long, and another router has begun anew")

    async def _compare(self, seen: Sequence[Sighted], found: _Found) -> None:
        rows = await self._directory.roll.of({one.user_id for one in seen if one.user_id})
        now = datetime.now(UTC)
        for one in seen:
            if one.kind == "machine":
                found.ids.add(one.id)
            row = rows.get(one.user_id) if one.user_id is not None else None
            if is_stuck(one, now):
                found.stuck += 1
                _log.warn(
                    "machine {id} has been {said} since {since}",
                    id=one.id, said=one.said, since=one.since,
                )  # fmt: skip
            if row is not None and row.machine_id == one.id and row.state is not _DESTROYED:
                if is_suspect(row, one, now):
                    found.suspects.add(row.user_id)
            elif row is not None and moved_volume(row, one):
                await self._note_volume(row, one)
            elif row is None or row.volume_id != one.id or row.state is _DESTROYED:
                found.unknown.append(one)

    async def _note_volume(self, row: Machine, one: Sighted) -> None:
        if self._fleet.leased(row):
            return
        try:
            await self._directory.change(row, volume_id=one.id)
        except StaleRow:
            return
        detail = {"was": row.volume_id, "is": one.id}
        await self._directory.record(row.user_id, "moved", "provider", detail)

    async def _beside_all_rows(self, found: _Found) -> tuple[set[UserId], int]:
        """
        Whose machine was not seen, and how many have one. What any row names is not unknown: a
        volume may bear another name than its user's, since it was in stock before.
        """
        vanished: set[UserId] = set()
        known: set[str] = set()
        unknown = {one.id for one in found.unknown}
        after: UserId | None = None
        rows = 0
        while True:
            page = await self._directory.roll.made(self._fleet.provider.name, after, PAGE)
            rows += len(page)
            there = (row for row in page if row.state is not _DESTROYED)
            known |= {id for row in there for id in named(row) if id in unknown}
            vanished |= {row.user_id for row in page if is_vanished(row, found.ids, found.blind)}
            if len(page) < PAGE:
                found.unknown = [one for one in found.unknown if one.id not in known]
                return vanished, rows
            after = page[-1].user_id
