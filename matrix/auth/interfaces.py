"""What the door needs of authentication: a token in, a principal or a refusal out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING

from zope.interface import Interface

from matrix.model import Principal, UserId

if TYPE_CHECKING:
    from matrix.auth._jwk import Key


class IGate(Interface):
    """Turns tokens into principals."""

    def recall(token: bytes) -> Principal | None:
        """
        The principal of a token that was verified before and has not expired: one
        dictionary look-up, no I/O. C{None} if it must be verified.
        """

    async def verify(token: bytes) -> Principal:
        """
        Verify a token that L{recall} does not know; may fetch keys. Never accepts an alias.

        @raise matrix.errors.Unauthorized: with C{reason} set to a member of
            L{matrix.auth.Reason}, whose list is the contract.
        @raise matrix.errors.Unavailable: the issuer's keys cannot be had now.
        """

    def forget(session_id: str) -> int:
        """
        Recall no token of this session any more; each must be verified again.

        @return: how many tokens were forgotten.
        """

    def forget_user(user_id: UserId) -> int:
        """
        Recall no token of this user any more; each must be verified again.

        @return: how many tokens were forgotten.
        """

    def sessions_of(user_id: UserId) -> Collection[str]:
        """The sessions of which a token of this user's is remembered."""

    def subscribe(verified: Callable[[Principal], None]) -> None:
        """Call C{verified} once for each token that is newly verified; never when one is
        recalled. It must not raise."""

    def newest(session_id: str) -> float:
        """Until when the session's remembered tokens are good at most: the latest C{exp}, in
        unix seconds; 0.0 if none is remembered."""

    def token_of(session_id: str) -> bytes | None:
        """The session's remembered token that expires last, or C{None}."""

    def bar(session_id: str) -> int:
        """
        Forget the session's tokens, and refuse all further ones as C{revoked}.

        @return: how many tokens were forgotten.
        """

    def bar_all(session_ids: Collection[str]) -> int:
        """
        Bar exactly these sessions: those that were barred and are not named may come in again.

        @return: how many tokens were forgotten.
        """

    def alias(handle: bytes, token: bytes, until: float) -> None:
        """
        Let L{recall} know C{handle} as it knows C{token}, which it must remember (or nothing
        happens): until then, and no longer than the token itself. It is forgotten with the
        token's session, user and key.

        @param until: unix time, seconds.
        """


class IKeySource(Interface):
    """The public keys of one issuer."""

    async def find(kid: str) -> Key | None:
        """
        The key of that id, or C{None} if the issuer has no such key; may fetch keys.

        @raise matrix.errors.Unavailable: the issuer's keys cannot be had now.
        """

    def subscribe(changed: Callable[[Mapping[str, Key]], None]) -> None:
        """Call C{changed} with all keys, by id, whenever one appears, changes or leaves."""
