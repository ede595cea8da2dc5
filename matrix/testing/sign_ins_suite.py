"""The contract of L{ISignIns} as tests, which every directory passes."""

from __future__ import annotations

from uuid import uuid4

from twisted.internet.defer import ensureDeferred as deferred
from twisted.internet.defer import gatherResults
from zope.interface.verify import verifyObject

from matrix.directory import ISignIns
from matrix.model import SignIn, User, UserId, UserState
from matrix.testing.directory_suite import DirectoryCase, anybody

HOUR = 3600.0


class SignInsContract(DirectoryCase):
    """Mix into a trial C{TestCase} that is a L{DirectoryCase}."""

    @property
    def sign_ins(self) -> ISignIns:
        return self.directory.sign_ins

    def now(self) -> float:
        """The directory's time, unix seconds."""
        raise NotImplementedError

    async def let_pass(self, seconds: float) -> None:
        """Let time pass, as the directory tells it."""
        raise NotImplementedError

    async def signed_in(self, life: float = HOUR, user_id: UserId | None = None) -> SignIn:
        """A new sign-in of a user who was admitted."""
        who = user_id or anybody()
        await self.directory.admit(who, f"{who}@example.org")
        ends_at = float(int(self.now() + life))
        sign_in = SignIn(str(uuid4()), str(uuid4()), who, b"\0sealed\xff", ends_at)
        await self.sign_ins.add(sign_in)
        return sign_in

    async def test_provides_the_interface(self) -> None:
        assert verifyObject(ISignIns, self.sign_ins)

    async def test_what_was_added_is_found(self) -> None:
        one, other = await self.signed_in(), await self.signed_in()
        assert await self.sign_ins.find(one.id) == one
        assert await self.sign_ins.find(other.id) == other
        assert await self.sign_ins.find(str(uuid4())) is None

    async def test_nothing_sealed_is_in_a_repr(self) -> None:
        sign_in = await self.signed_in()
        assert "sealed" not in repr(await self.sign_ins.find(sign_in.id))

    async def test_one_that_has_ended_is_not_found_and_forgotten(self) -> None:
        short, long = await self.signed_in(60.0), await self.signed_in()
        await self.let_pass(61.0)
        assert await self.sign_ins.find(short.id) is None
        assert await self.sign_ins.find(long.id) is not None
        assert await self.sign_ins.purge() >= 1
        assert not await self.sign_ins.remove(short.id)
        assert await self.sign_ins.remove(long.id)

    async def test_tokens_are_replaced_by_who_read_them_last(self) -> None:
        first = await self.signed_in()
        second = await self.sign_ins.replace(first, b"new")
        assert second is not None
        assert (second.sealed, second.generation) == (b"new", first.generation + 1)
        assert await self.sign_ins.find(first.id) == second
        assert await self.sign_ins.replace(first, b"newer") is None
        assert await self.sign_ins.find(first.id) == second

    async def test_what_is_gone_cannot_be_replaced(self) -> None:
        sign_in = await self.signed_in()
        assert await self.sign_ins.remove(sign_in.id)
        assert not await self.sign_ins.remove(sign_in.id)
        assert await self.sign_ins.replace(sign_in, b"new") is None
        assert not await self.sign_ins.claim(sign_in, "a", 10.0)

    async def test_of_many_at_once_one_has_the_claim(self) -> None:
        sign_in = await self.signed_in()
        claims = [
            deferred(self.sign_ins.claim(sign_in, f"router-{number}", 10.0)) for number in range(20)
        ]
        assert sum(await gatherResults(claims)) == 1

    async def test_a_claim_is_ones_own_until_it_is_over(self) -> None:
        sign_in = await self.signed_in()
        assert await self.sign_ins.claim(sign_in, "a", 10.0)
        assert not await self.sign_ins.claim(sign_in, "b", 10.0)
        assert await self.sign_ins.claim(sign_in, "a", 10.0), "the same once more"
        await self.let_pass(11.0)
        assert await self.sign_ins.claim(sign_in, "b", 10.0), "whoever had it is gone"

    async def test_a_claim_is_given_back_by_who_has_it(self) -> None:
        sign_in = await self.signed_in()
        await self.sign_ins.claim(sign_in, "a", 10.0)
        await self.sign_ins.release(sign_in, "b")
        assert not await self.sign_ins.claim(sign_in, "b", 10.0)
        await self.sign_ins.release(sign_in, "a")
        assert await self.sign_ins.claim(sign_in, "b", 10.0)

    async def test_what_was_replaced_since_it_was_read_cannot_be_claimed(self) -> None:
        first = await self.signed_in()
        await self.sign_ins.claim(first, "a", 10.0)
        second = await self.sign_ins.replace(first, b"new")
        assert second is not None
        assert not await self.sign_ins.claim(first, "b", 10.0)
        assert await self.sign_ins.claim(second, "b", 10.0), "the claim went with it"

    async def test_a_revoked_session_has_no_sign_in(self) -> None:
        revoked, kept = await self.signed_in(), await self.signed_in()
        await self.directory.sessions.revoke(revoked.session_id, "operator")
        assert await self.sign_ins.find(revoked.id) is None
        assert await self.sign_ins.find(kept.id) == kept

    async def test_nor_has_one_that_was_on_record_before(self) -> None:
        sign_in = await self.signed_in()
        seen = {sign_in.session_id: (sign_in.user_id, self.now() + HOUR)}
        await self.directory.sessions.note(seen)
        assert await self.sign_ins.find(sign_in.id) is not None
        await self.directory.sessions.revoke_user(sign_in.user_id, "operator")
        assert await self.sign_ins.find(sign_in.id) is None

    async def test_a_deleted_user_has_no_sign_in(self) -> None:
        sign_in, other = await self.signed_in(), await self.signed_in()
        await self.directory.set_user_state(sign_in.user_id, UserState.BLOCKED)
        assert await self.sign_ins.find(sign_in.id) is not None, "may be let in again"
        await self.put_user(User(sign_in.user_id, "", UserState.DELETED))
        assert await self.sign_ins.find(sign_in.id) is None
        assert await self.sign_ins.find(other.id) is not None
