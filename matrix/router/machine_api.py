"""What a user's machine may ask the router: routes, each for the machine itself alone."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final, Protocol

from matrix.api import Api
from matrix.errors import Unauthorized
from matrix.http.interfaces import Exchange, Request
from matrix.model import UserId
from matrix.model import user_id as canonical

PLACE: Final = b"/machine/"
"""The paths on the internal listener that are machines' own."""

CHALLENGE: Final = (b"www-authenticate", b"Bearer")
"""RFC 9110 section 11.6.1: each 401 names the scheme that would be accepted."""

Answering = Callable[[Exchange, UserId], Coroutine[Any, Any, None]]
"""Answers a machine's call, knowing whose machine it is."""


class Proof(Protocol):
    """Knows what machines show to the router: L{matrix.auth.MachineProof}."""

    async def fits(self, who: UserId, given: bytes) -> bool:
        """
        Whether this is the secret of the user's machine.

        @raise matrix.errors.Forbidden: it is, and the user was deleted.
        @raise matrix.errors.Unavailable: that cannot be said now.
        """


class MachineApi:
    """
    A handler of requests (L{matrix.http.interfaces.Handler}) for the paths below L{PLACE}.

    A machine shows C{Authorization: Bearer <MATRIX_ROUTER_TOKEN>} and has its user's id in the
    path. With it, it learns and changes what is its own, and nothing else.
    """

    def __init__(self, proof: Proof) -> None:
        self._proof = proof
        self._api = Api(_is_shown)

    def add(self, method: str, name: str, answer: Answering) -> None:
        """Let C{answer} answer C{method} on C{/machine/v1/USER/<name>}."""
        rule = f"/machine/v1/<user>/{name}"
        self._api.add(method, rule, partial(self._admitted, answer=answer))

    def __call__(self, exchange: Exchange) -> None:
        """See L{matrix.http.interfaces.Handler}."""
        self._api(exchange)

    async def _admitted(self, exchange: Exchange, user: str, answer: Answering) -> None:
        token = _bearer(exchange.request)
        try:
            user_id = canonical(user)
        except ValueError:
            raise _refusal("token") from None
        if not await self._proof.fits(user_id, token):
            raise _refusal("token")
        await answer(exchange, user_id)


def _is_shown(request: Request) -> None:
    """
    @raise Unauthorized: there is no token at all. Whose it is must be asked.
    """
    _bearer(request)


def _bearer(request: Request) -> bytes:
    """
    The token that is shown.

    @raise Unauthorized: there is none.
    """
    scheme, _, token = (request.get(b"authorization") or b"").partition(b" ")
    if scheme.lower() != b"bearer" or not token:
        raise _refusal("missing")
    return token.strip(b" ")


def _refusal(reason: str) -> Unauthorized:
    """What is wrong is not told in more detail than it needs to be."""
    return Unauthorized(
        "this needs the user's id in the path, and Authorization: Bearer with the "
        "MATRIX_ROUTER_TOKEN of that user's machine",
        reason=reason,
        headers=[CHALLENGE],
    )
