"""What the door needs of authentication: a token in, a principal or a refusal out."""

from __future__ import annotations

from zope.interface import Interface

from matrix.model import Principal


class IGate(Interface):
    """Turns tokens into principals."""

    def recall(token: bytes) -> Principal | None:
        """
        The principal of a token that was verified before and has not expired: one
        dictionary look-up, no I/O. C{None} if it must be verified.
        """

    async def verify(token: bytes) -> Principal:
        """
        Verify a token that L{recall} does not know; may fetch keys.

        @raise matrix.errors.Unauthorized: with C{reason} set: C{malformed}, C{algorithm},
            C{unknown-key}, C{signature}, C{expired}, C{not-yet-valid}, C{issuer},
            C{audience}, C{role}, C{subject}, C{session}.
        @raise matrix.errors.Unavailable: the issuer's keys cannot be had now.
        """
