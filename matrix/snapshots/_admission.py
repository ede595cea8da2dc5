"""Which user's repository a backup credential opens."""

from __future__ import annotations

from matrix.http.interfaces import Request
from matrix.model import user_id
from matrix.snapshots._heads import bad_credentials, basic_credentials
from matrix.snapshots.interfaces import Access, Proof


class MachineAdmission:
    """
    Lets each machine into its own user's repository (L{matrix.snapshots.interfaces.Admission}).

    The user is the user's id, the password the backup credential derived for the secret
    epoch of the user's machine.
    """

    def __init__(self, proof: Proof) -> None:
        """@param proof: knows the backup credentials."""
        self._proof = proof

    async def admit(self, request: Request) -> Access:
        """See L{matrix.snapshots.interfaces.Admission.admit}."""
        user, password = basic_credentials(request)
        try:
            who = user_id(user)
        except ValueError:
            raise bad_credentials("credential") from None
        if not await self._proof.fits(who, password.encode()):
            raise bad_credentials("credential")
        return Access(who)
