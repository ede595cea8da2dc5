"""Who am I, and a ticket for a stream: what pages ask the router before they ask the machine."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from matrix.api import Answering, send_json
from matrix.auth import Origins
from matrix.http import Exchange
from matrix.model import Principal
from matrix.router.cors import cors_headers
from matrix.router.tickets import LIFE, Tickets


class Passes:
    """Answers C{GET /-/session} and C{POST /-/ticket}; wakes no machine."""

    def __init__(
        self,
        identify: Callable[[Exchange], Awaitable[Principal]],
        tickets: Tickets,
        origins: Origins,
    ) -> None:
        """
        @param identify: who sent a request; raises a L{MatrixError}.
        """
        self._identify = identify
        self._tickets = tickets
        self._origins = origins

    def register(self, add: Callable[[str, str, Answering], None]) -> None:
        """Add both paths to a table."""
        add("GET", "/-/session", self._session)
        add("POST", "/-/ticket", self._ticket)

    async def _session(self, exchange: Exchange) -> None:
        """Whom the credential speaks for. A newer token that comes with it is seen, too."""
        principal = await self._identify(exchange)
        self._send(
            exchange,
            200,
            {
                "user": principal.user_id,
                "email": principal.email,
                "session": principal.session_id,
                "expires_at": principal.expires_at,
            },
        )

    async def _ticket(self, exchange: Exchange) -> None:
        principal = await self._identify(exchange)
        ticket = await self._tickets.issue(principal)
        self._send(exchange, 201, {"ticket": ticket, "expires_in": round(LIFE)})

    def _send(self, exchange: Exchange, status: int, told: dict[str, object]) -> None:
        send_json(exchange, told, status, cors_headers(exchange.request, self._origins))
