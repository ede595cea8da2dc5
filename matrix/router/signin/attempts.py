"""How often may be tried to sign in: by each client address, and at each account's code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from matrix.auth import Failures

PER_ADDRESS = 10
"""Wrong passwords, wrong codes and codes asked for in a minute: more than a person's mistakes.
The sign-in service limits by address too, and sees one address only: ours."""

PER_CODE = 5
"""Wrong codes in a minute for one account, from whichever addresses: in the hour that six digits
are good for, that finds one in three thousand."""

AT_ONCE = 5
"""Attempts of one address under way, so that none is counted too late."""


class TooManyError(Exception):
    """An attempt that is not made."""

    def __init__(self, seconds: float) -> None:
        """
        @param seconds: after which the next makes sense.
        """
        super().__init__(f"{seconds:.0f} s to wait")
        self.seconds = seconds


class Attempts:
    """Counts those that failed, and lets no further ones begin after too many."""

    def __init__(self, now: Callable[[], float]) -> None:
        """
        @param now: seconds, of a clock that never goes back.
        """
        self._addresses = Failures(PER_ADDRESS, now)
        self._codes = Failures(PER_CODE, now)
        self._under_way: Counter[str] = Counter()

    @contextmanager
    def one(self, address: str, account: str = "") -> Iterator[None]:
        """
        The time of one attempt.

        @param account: whose code is tried, if one is.
        @raise TooManyError: there were too many.
        """
        wait = max(self._addresses.wait(address), self._codes.wait(account) if account else 0.0)
        if wait:
            raise TooManyError(wait)
        if self._under_way[address] >= AT_ONCE:
            raise TooManyError(1.0)
        self._under_way[address] += 1
        try:
            yield
        finally:
            self._under_way[address] -= 1
            if not self._under_way[address]:
                del self._under_way[address]

    def failed(self, address: str, account: str = "") -> None:
        """Count one that failed, or that always counts."""
        self._addresses.failed(address)
        if account:
            self._codes.failed(account)
