"""The contract of L{ITickets} as tests: every directory passes them."""

from __future__ import annotations

from os import urandom
from uuid import uuid4

from twisted.internet.defer import ensureDeferred as deferred
from twisted.internet.defer import gatherResults
from zope.interface.verify import verifyObject

from matrix.directory import ITickets
from matrix.model import Principal, UserState
from matrix.testing.directory_suite import DirectoryCase, anybody


class TicketsContract(DirectoryCase):
    """Mix into a trial C{TestCase} that is a L{DirectoryCase}."""

    @property
    def tickets(self) -> ITickets:
        return self.directory.tickets

    async def let_pass(self, seconds: float) -> None:
        """Let time pass, as the directory tells it."""
        raise NotImplementedError

    async def count(self) -> int:
        """How many tickets are on record, old ones included."""
        raise NotImplementedError

    def somebody(self) -> Principal:
        """A principal that no other test has."""
        return Principal(anybody(), str(uuid4()), 1_795_000_000.25, "Zoë@example.org")

    async def kept(self, principal: Principal, life: float = 30.0) -> bytes:
        """The digest of a ticket of this principal's."""
        digest = urandom(32)
        await self.tickets.keep(digest, principal, life)
        return digest

    async def test_provides_the_interface(self) -> None:
        assert verifyObject(ITickets, self.tickets)

    async def test_a_ticket_is_good_once(self) -> None:
        principal = self.somebody()
        digest = await self.kept(principal)
        assert await self.tickets.take(digest) == principal
        assert await self.tickets.take(digest) is None

    async def test_a_ticket_nobody_gave_is_none(self) -> None:
        await self.kept(self.somebody())
        assert await self.tickets.take(urandom(32)) is None

    async def test_of_many_who_take_one_at_once_one_gets_it(self) -> None:
        principal = self.somebody()
        digest = await self.kept(principal)
        taken = await gatherResults(
            [deferred(self.tickets.take(digest)) for _ in range(20)], consumeErrors=True
        )
        assert [one for one in taken if one is not None] == [principal]

    async def test_a_principal_may_have_several(self) -> None:
        principal = self.somebody()
        first, second = await self.kept(principal), await self.kept(principal)
        assert await self.tickets.take(second) == principal
        assert await self.tickets.take(first) == principal

    async def test_a_ticket_is_good_for_its_time_and_no_longer(self) -> None:
        principal = self.somebody()
        early, late = await self.kept(principal), await self.kept(principal)
        await self.let_pass(25.0)
        assert await self.tickets.take(early) == principal
        await self.let_pass(5.5)
        assert await self.tickets.take(late) is None

    async def test_old_ones_are_cleared_away_by_new_ones(self) -> None:
        for _ in range(3):
            await self.kept(self.somebody(), life=1.0)
        await self.let_pass(2.0)
        await self.kept(self.somebody())
        assert await self.count() == 1

    async def test_a_ticket_of_a_user_who_was_blocked_meanwhile_is_worth_nothing(self) -> None:
        for state in (UserState.BLOCKED, UserState.DELETED):
            principal = self.somebody()
            await self.directory.admit(principal.user_id, principal.email)
            digest, other = await self.kept(principal), await self.kept(principal)
            assert await self.tickets.take(other) == principal
            await self.directory.set_user_state(principal.user_id, state)
            assert await self.tickets.take(digest) is None
            await self.directory.set_user_state(principal.user_id, UserState.ACTIVE)
            assert await self.tickets.take(digest) is None, "it was used all the same"

    async def test_a_ticket_of_a_session_that_was_revoked_meanwhile_is_worth_nothing(self) -> None:
        principal, other = self.somebody(), self.somebody()
        digest, kept = await self.kept(principal), await self.kept(other)
        await self.directory.sessions.revoke(principal.session_id, "operator")
        assert await self.tickets.take(digest) is None
        assert await self.tickets.take(kept) == other
