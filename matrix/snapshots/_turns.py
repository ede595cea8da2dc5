"""How many transfers of one user may be under way: a machine must not crowd out the others."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from twisted.internet.defer import DeferredSemaphore

from matrix.errors import TooManyRequests
from matrix.model import UserId

AT_ONCE = 8
"""restic has 5 connections unless told otherwise. Each transfer holds up to 1 MiB of memory."""

WAITING = 64
"""More than that many requests that wait are no restic's."""


@dataclass(slots=True)
class _Line:
    places: DeferredSemaphore = field(default_factory=lambda: DeferredSemaphore(AT_ONCE))
    members: int = 0


class Turns:
    """Lets a few of each user go on; the others wait, their bodies unread."""

    def __init__(self) -> None:
        self._lines: dict[UserId, _Line] = {}

    @asynccontextmanager
    async def turn(self, user_id: UserId) -> AsyncIterator[None]:
        """
        Wait for a turn.

        @raise TooManyRequests: there is no end to those that wait.
        """
        line = self._lines.setdefault(user_id, _Line())
        if line.members >= AT_ONCE + WAITING:
            raise TooManyRequests(
                f"{AT_ONCE + WAITING} transfers are under way or wait", reason="transfers"
            )
        line.members += 1
        try:
            await line.places.acquire()
            try:
                yield
            finally:
                line.places.release()
        finally:
            line.members -= 1
            if not line.members:
                self._lines.pop(user_id, None)
