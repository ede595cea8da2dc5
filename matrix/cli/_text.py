"""How the command line shows things: aligned columns, short durations. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, tzinfo

GAP = "  "


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """
    Lines in which columns are aligned to the left; the first is the head.

    Cells are cleaned: some hold what users chose, and a terminal obeys control characters.
    """
    cells = [[clean(cell) for cell in row] for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]


def facts(pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Lines of names and values, the values aligned."""
    cleaned = [(clean(name), clean(value)) for name, value in pairs]
    width = max((len(name) for name, _ in cleaned), default=0)
    return [f"{name.ljust(width)}{GAP}{value}".rstrip() for name, value in cleaned]


def clean(text: str) -> str:
    """C{text} with whatever a terminal would act upon replaced."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def duration(seconds: float) -> str:
    """A duration for people, in its two largest units."""
    whole = int(seconds)
    if whole < 60:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    units = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
    first = next(index for index, (_, size) in enumerate(units) if whole >= size)
    parts = []
    for unit, size in units[first : first + 2]:
        count, whole = divmod(whole, size)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts)


def size(number: float) -> str:
    """An amount of bytes for people."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{number:.0f} {unit}" if unit == "B" or number >= 10 else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TiB"


def moment(text: str, zone: tzinfo | None = None) -> str:
    """
    An RFC 3339 time as people read it, to the millisecond.

    @param zone: C{None} for this machine's own.
    """
    at = datetime.fromisoformat(text).astimezone(zone)
    return f"{at:%Y-%m-%d %H:%M:%S}.{at.microsecond // 1000:03d}"


def details(detail: Mapping[str, object]) -> str:
    """The details of an event on one line."""
    return " ".join(f"{name}={value}" for name, value in sorted(detail.items()))
