"""Who may connect: bounds on open connections, in all and from one address."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from matrix.errors import MatrixError, TooManyRequests, Unavailable

TELLING_MAX = 64
"""Refused clients that are being told so at once; more are cut off without a word, or those
who are to be refused would hold more files than those who are served."""

RETRY_AFTER = 1.0
"""Seconds after which a refused client may try again."""

UNBOUNDED = 1 << 62
"""More than there can be."""


class Visit:
    """A connection that was accepted, be it only to be told why it must go again."""

    __slots__ = ("address", "refusal")

    def __init__(self, address: str, refusal: MatrixError | None) -> None:
        self.address = address
        self.refusal = refusal


class Admission:
    """
    Counts a listener's connections from the moment they are accepted, and says who must go
    again.
    """

    def __init__(
        self,
        files: int,
        total: int = 0,
        per_address: int = 0,
        others: Callable[[], int] = lambda: 0,
        exempt: Callable[[str], bool] = lambda address: False,
        telling: int = TELLING_MAX,
    ) -> None:
        """
        @param files: the file number that connections must stay below; as many more as
            C{telling} says are used to tell clients why not.
        @param total: open connections at once, C{others} included; 0 for no bound.
        @param per_address: open connections at once from one address; 0 for no bound.
        @param others: how many connections are open besides, to machines.
        @param exempt: the addresses that stand for many clients, and have no bound of theirs.
        @param telling: refused clients that are being told so at once.
        """
        self._files = files
        self._total = total or UNBOUNDED
        self._per_address = per_address or UNBOUNDED
        self._others = others
        self._exempt = exempt
        self._telling_max = telling
        self._open = 0
        self._by_address: Counter[str] = Counter()
        self.telling = 0
        """Refused clients that are being told so."""
        self.admitted = 0
        """How many could stay so far."""
        self.refused = 0
        """How many were, or are being, told to go."""
        self.cut = 0
        """How many were cut off without a word."""

    def enter(self, address: str, number: int) -> Visit | None:
        """
        Count a connection; C{None} if it must be closed without a word.

        @param number: its file's.
        """
        refusal = self._refusal(address, number)
        if refusal is None:
            self.admitted += 1
            self._open += 1
            self._by_address[address] += 1
        elif self.telling >= self._telling_max or number >= self._files + self._telling_max:
            self.cut += 1
            return None
        else:
            self.refused += 1
            self.telling += 1
        return Visit(address, refusal)

    def _refusal(self, address: str, number: int) -> MatrixError | None:
        if number >= self._files or self._open + self._others() >= self._total:
            return Unavailable(
                "Too many connections are open.", reason="connections", retry_after=RETRY_AFTER
            )
        if self._by_address[address] >= self._per_address and not self._exempt(address):
            return TooManyRequests(
                f"More than {self._per_address} connections are open from your address.",
                reason="connections-per-address",
                retry_after=RETRY_AFTER,
            )
        return None

    def leave(self, visit: Visit) -> None:
        """A connection that was counted is closed. Once for each."""
        if visit.refusal is not None:
            self.telling -= 1
            return
        self._open -= 1
        self._by_address[visit.address] -= 1
        if not self._by_address[visit.address]:
            del self._by_address[visit.address]
