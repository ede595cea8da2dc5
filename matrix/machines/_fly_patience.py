"""How long an attempt at something may take at Fly, and the pauses between its calls."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from matrix.machines._fly_errors import FlyError, Verdict
from matrix.machines.interfaces import ProviderError

PAUSE = 0.25
"""Seconds between two tries: flat, since what is refused for now is mostly so for less than a
second, and the calls' rate is limited anyway."""

FULL_PAUSE = 2.0
"""Seconds, where a host has no room: it may take minutes until it has."""

FULL_PATIENCE = 20.0
"""Seconds for which it is waited that a host has room again: after them the user's request, which
waits up to thirty, may still be answered by a machine elsewhere."""

_Answer = TypeVar("_Answer")


class Patience:
    """One attempt's."""

    def __init__(self, clock: IReactorTime, seconds: float) -> None:
        """
        @param seconds: for the whole attempt.
        """
        self._clock = clock
        self._deadline = clock.seconds() + seconds
        self._full_since: float | None = None

    @property
    def left(self) -> float:
        """Seconds."""
        return self._deadline - self._clock.seconds()

    async def pause(self, error: FlyError) -> None:
        """
        Wait a little before asking again.

        @raise FlyError: C{error}, if no time is left for it, or there has been no room for long.
        """
        full = error.verdict is Verdict.NO_CAPACITY
        seconds = error.retry_after or (FULL_PAUSE if full else PAUSE)
        if seconds > (self._left_of_full() if full else self.left):
            raise error
        await deferLater(self._clock, seconds)

    def _left_of_full(self) -> float:
        now = self._clock.seconds()
        self._full_since = now if self._full_since is None else self._full_since
        return min(self.left, self._full_since + FULL_PATIENCE - now)

    async def moment(self) -> None:
        """Let as much time pass as between two tries, if it is left."""
        await self.sleep(PAUSE)

    async def sleep(self, seconds: float) -> None:
        """Let time pass, as much as is left."""
        if (longest := min(seconds, self.left)) > 0:
            await deferLater(self._clock, longest)

    def check(self, text: str) -> None:
        """
        @param text: what is not so.
        @raise ProviderError: no time is left for it to become so.
        """
        if self.left <= 0:
            raise ProviderError(text, retry_after=FULL_PAUSE)

    async def of(self, ask: Callable[[], Awaitable[_Answer]]) -> _Answer:
        """
        Ask, and again as long as the refusal says that it may help soon.

        @raise FlyError: another refusal, or this one for too long.
        """
        while True:
            try:
                return await ask()
            except FlyError as error:
                if error.verdict is not Verdict.SOON:
                    raise
                await self.pause(error)
