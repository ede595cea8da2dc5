"""Which snapshots are kept, and for how long: the last of each hour, day and week. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

_HOURS = {"h": 1, "d": 24, "m": 31 * 24, "y": 366 * 24}
"""In each unit: months and years are taken for the longest that there are."""


def span(text: str) -> timedelta:
    """
    A length of time as restic's C{--keep-within} writes it: C{2d}, C{30d}, C{6m}, C{1y6m}.

    @raise ValueError: it is none.
    """
    if not re.fullmatch(r"(\d+[hdmy])+", text):
        raise ValueError(f"{text!r} is no length of time: write 12h, 30d, 6m or 1y")
    return timedelta(
        hours=sum(int(count) * _HOURS[unit] for count, unit in re.findall(r"(\d+)([hdmy])", text))
    )


@dataclass(frozen=True, slots=True)
class Rules:
    """For how long back from the newest snapshot the last of each period is kept."""

    hourly: timedelta
    daily: timedelta
    weekly: timedelta


@dataclass(frozen=True, slots=True)
class Taken:
    """A snapshot, as its repository says and as we noted it."""

    id: str
    said: datetime
    """When it was taken, by the machine's word."""
    noted: datetime | None = None
    """When we had it taken, by our own clock; C{None} if we know nothing of it."""


def surplus(taken: Collection[Taken], rules: Rules, now: datetime) -> list[str]:
    """
    The ids of those that can go, in the order given.

    What a machine says of times decides alone over nothing that we know of: somebody who has a
    machine in hand could otherwise add one snapshot of rubbish to each hour and day that there
    was, and so have all good ones deleted. So a snapshot stays if it does by what is said, among
    all of them, or by what was noted, among those of which we know.
    """
    said = {one.id: one.said for one in taken}
    noted = {one.id: one.noted for one in taken if one.noted is not None}
    kept = keep(said, rules, now) | keep(noted, rules, now)
    return [one.id for one in taken if one.id not in kept]


def keep(times: Mapping[str, datetime], rules: Rules, now: datetime) -> set[str]:
    """
    Those that one account of times would keep: as restic's C{--keep-within-hourly}, C{-daily}
    and C{-weekly} together. Whoever is said to come from the future stays.
    """
    past = {id: at.astimezone(UTC) for id, at in times.items() if at <= now}
    kept = set(times.keys() - past.keys())
    if not past:
        return kept
    newest = max(past.values())
    kept |= {id for id, at in past.items() if at == newest}
    periods: Iterable[tuple[timedelta, Callable[[datetime], object]]] = (
        (rules.hourly, lambda at: (at.date(), at.hour)),
        (rules.daily, datetime.date),
        (rules.weekly, lambda at: at.isocalendar()[:2]),
    )
    for within, period in periods:
        last: dict[object, tuple[datetime, str]] = {}
        for id, at in past.items():
            if at > newest - within:
                of = period(at)
                last[of] = max(last.get(of, (at, id)), (at, id))
        kept |= {id for _, id in last.values()}
    return kept
