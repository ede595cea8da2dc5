"""Tickets: what stands for a credential in the address of a WebSocket or event stream, once."""

from __future__ import annotations

import re
import secrets
from hashlib import sha256

from matrix.auth import Reason, refusal
from matrix.directory import DirectoryUnavailable, ITickets
from matrix.errors import Unavailable
from matrix.model import Principal

LIFE = 30.0
"""Seconds to open the stream that a ticket was got for: a slow connection's handshakes, and not
long enough for one that was read in a log."""

_BYTES = 24
"""Of randomness: nobody guesses 192 bits in any time."""

_FORM = re.compile(rb"[A-Za-z0-9_-]{32}")  # the base64url of that many bytes


def is_ticket(text: bytes) -> bool:
    """Whether this can be a ticket at all. A token, which has dots, cannot."""
    return _FORM.fullmatch(text) is not None


class Tickets:
    """Gives and takes tickets. The directory keeps digests only, so it holds none."""

    def __init__(self, store: ITickets) -> None:
        self._store = store

    async def issue(self, principal: Principal) -> str:
        """
        A ticket with which C{principal} opens one stream, through any router.

        @raise Unavailable: the directory cannot be reached.
        """
        ticket = secrets.token_urlsafe(_BYTES)
        try:
            await self._store.keep(_digest(ticket.encode()), principal, LIFE)
        except DirectoryUnavailable:
            raise _unavailable() from None
        return ticket

    async def redeem(self, ticket: bytes) -> Principal:
        """
        Who got this ticket; it is worth nothing from now on.

        @raise Unauthorized: it was used, is too old, or never given; or its user or session
            may not come in any more.
        @raise Unavailable: the directory cannot be reached.
        """
        try:
            principal = await self._store.take(_digest(ticket))
        except DirectoryUnavailable:
            raise _unavailable() from None
        if principal is None:
            raise refusal(Reason.TICKET)
        return principal


def _digest(ticket: bytes) -> bytes:
    return sha256(ticket).digest()


def _unavailable() -> Unavailable:
    return Unavailable(
        "The directory cannot be reached, and tickets are kept there.",
        reason="directory",
        retry_after=2.0,
    )
