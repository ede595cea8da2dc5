"""The contract of L{ISessions}, and of users' states, as tests: every directory passes them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import chain
from uuid import uuid4

from twisted.internet.defer import ensureDeferred as deferred
from twisted.internet.defer import gatherResults
from zope.interface.verify import verifyObject

from matrix.directory import ISessions, UnknownUser
from matrix.model import AccessChange, Session, User, UserId, UserState
from matrix.testing.directory_suite import DirectoryCase, anybody

DAY = 86400.0
HOUR = 3600.0


def any_session() -> str:
    """A session id that no other test has."""
    return str(uuid4())


class SessionsContract(DirectoryCase):
    """Mix into a trial C{TestCase} that is a L{DirectoryCase}."""

    @property
    def sessions(self) -> ISessions:
        return self.directory.sessions

    def now(self) -> float:
        """The directory's time, unix seconds."""
        raise NotImplementedError

    async def let_pass(self, seconds: float) -> None:
        """Let time pass, as the directory tells it."""
        raise NotImplementedError

    async def signed_in(self, life: float = HOUR, user_id: UserId | None = None) -> Session:
        """A session of a user who was admitted, its token good for C{life} seconds."""
        who = user_id or anybody()
        await self.directory.admit(who, f"{who}@example.org")
        session_id = any_session()
        await self.sessions.note({session_id: (who, self.now() + life)})
        return await self.row(who, session_id)

    async def row(self, user_id: UserId, session_id: str) -> Session:
        """A session as it is on record."""
        found = await self.sessions.of_user(user_id)
        return next(session for session in found if session.id == session_id)

    async def listen(self) -> list[AccessChange | None]:
        """What is heard from now on."""
        heard: list[AccessChange | None] = []
        session_id = any_session()
        marker = AccessChange(session_id=session_id)
        self.sessions.watch(heard.append)
        await self.sessions.revoke(session_id, "marker")
        await self.eventually(lambda: marker in heard)
        heard.clear()
        return heard

    async def only_heard(self, heard: list[AccessChange | None], *expected: AccessChange) -> None:
        """These changes are heard, and no others."""
        session_id = any_session()
        marker = AccessChange(session_id=session_id)
        await self.sessions.revoke(session_id, "marker")
        await self.eventually(lambda: marker in heard)
        assert heard == [*expected, marker]

    async def test_provides_the_interface(self) -> None:
        assert verifyObject(ISessions, self.sessions)

    # What is seen

    async def test_nothing_is_known_at_first(self) -> None:
        assert dict(await self.sessions.newest([])) == {}
        assert dict(await self.sessions.newest([any_session()])) == {}
        assert list(await self.sessions.of_user(anybody())) == []
        assert set(await self.sessions.revoked()) == set()
        assert await self.sessions.purge() == 0

    async def test_a_session_is_noted_with_its_user_and_its_tokens_end(self) -> None:
        who, session_id = anybody(), any_session()
        began = self.now()
        await self.sessions.note({session_id: (who, began + HOUR + 0.25)})
        [session] = await self.sessions.of_user(who)
        assert (session.id, session.user_id) == (session_id, who)
        assert abs(session.expires_at - (began + HOUR + 0.25)) < 1e-5
        assert abs(session.seen_at.timestamp() - began) < 5
        assert session.seen_at.utcoffset() == timedelta(0)
        assert (session.revoked_at, session.revoke_cause) == (None, None)
        assert dict(await self.sessions.newest([session_id])) == {session_id: session.expires_at}

    async def test_many_are_noted_at_once_and_none_is_nothing(self) -> None:
        await self.sessions.note({})
        seen = {any_session(): (anybody(), 2e9 + number) for number in range(4_001)}
        await self.sessions.note(seen)
        found = await self.sessions.newest([*seen, any_session()])
        assert found == {session_id: end for session_id, (_, end) in seen.items()}

    async def test_a_newer_token_extends_and_an_older_one_does_not(self) -> None:
        who, session_id = anybody(), any_session()
        for expires_at, known in ((2e9, 2e9), (2e9 - 5, 2e9), (2e9 + 5, 2e9 + 5)):
            await self.sessions.note({session_id: (who, expires_at)})
            assert await self.sessions.newest([session_id]) == {session_id: known}
        first = await self.row(who, session_id)
        await self.let_pass(60)
        await self.sessions.note({session_id: (who, 2e9 + 6)})
        again = await self.row(who, session_id)
        assert again.expires_at == 2e9 + 6
        assert abs((first.seen_at - again.seen_at).total_seconds()) <= 60.1

    async def test_a_token_that_outlives_the_calendar_is_noted_all_the_same(self) -> None:
        who, session_id = anybody(), any_session()
        await self.sessions.note({session_id: (who, 2.0**53)})
        await self.sessions.note({session_id: (who, 2.0**53)})
        [session] = await self.sessions.of_user(who)
        assert datetime.fromtimestamp(session.expires_at, UTC).year == 9999

    async def test_many_notes_of_the_same_sessions_at_once(self) -> None:
        who = anybody()
        ids = [any_session() for _ in range(50)]
        calls = []
        for number in range(12):
            order = ids if number % 2 else ids[::-1]
            noted = self.sessions.note(dict.fromkeys(order, (who, 2e9 + number)))
            calls.append(deferred(noted))
        await gatherResults(calls, consumeErrors=True)
        assert set((await self.sessions.newest(ids)).values()) == {2e9 + 11}

    async def test_a_users_sessions_longest_living_first(self) -> None:
        who = anybody()
        lives = (3, 5, 1, 4)
        noted = {life: (await self.signed_in(life * HOUR, who)).id for life in lives}
        await self.signed_in()
        found = await self.sessions.of_user(who)
        assert [session.id for session in found] == [noted[life] for life in (5, 4, 3, 1)]
        assert list(await self.sessions.of_user(who, limit=2)) == list(found[:2])

    # What counts no more

    async def test_a_revoked_session(self) -> None:
        session = await self.signed_in()
        assert session.user_id is not None
        heard = await self.listen()
        revoked = await self.sessions.revoke(session.id, "operator")
        assert revoked == await self.row(session.user_id, session.id)
        assert (revoked.id, revoked.user_id) == (session.id, session.user_id)
        assert revoked.expires_at == session.expires_at
        assert revoked.revoke_cause == "operator"
        assert revoked.revoked_at is not None
        assert abs(revoked.revoked_at.timestamp() - self.now()) < 5
        assert session.id in await self.sessions.revoked()
        assert dict(await self.sessions.newest([session.id])) == {}
        await self.only_heard(heard, AccessChange(session_id=session.id))
        [event] = await self.directory.events(session.user_id)
        assert (event.kind, event.cause) == ("revoke", "operator")
        assert event.detail == {"session": session.id}

    async def test_revoked_twice_is_revoked_once(self) -> None:
        session = await self.signed_in()
        assert session.user_id is not None
        first = await self.sessions.revoke(session.id, "sign-out", ended=True)
        heard = await self.listen()
        await self.let_pass(5)
        again = await self.sessions.revoke(session.id, "operator", session.user_id)
        assert again.revoke_cause == "sign-out"
        assert again.revoked_at is not None
        assert first.revoked_at is not None
        assert abs((again.revoked_at - first.revoked_at).total_seconds()) <= 5.1
        await self.only_heard(heard)
        assert len(await self.directory.events(session.user_id)) == 1

    async def test_a_session_never_seen_can_be_revoked(self) -> None:
        session_id, who = any_session(), anybody()
        nobodys = await self.sessions.revoke(session_id, "operator")
        assert (nobodys.id, nobodys.user_id) == (session_id, None)
        assert abs(nobodys.expires_at - (self.now() + 7 * DAY)) < 5
        somebodys = await self.sessions.revoke(any_session(), "sign-out", who)
        assert list(await self.sessions.of_user(who)) == [somebodys]
        assert {session_id, somebodys.id} <= set(await self.sessions.revoked())
        assert list(await self.directory.events(who)) == []

    async def test_a_token_seen_too_late_brings_nothing_back(self) -> None:
        who, session_id = anybody(), any_session()
        await self.sessions.revoke(session_id, "operator")
        heard = await self.listen()
        await self.sessions.note({session_id: (who, self.now() + 8 * DAY)})
        session = await self.row(who, session_id)
        assert session.user_id == who
        assert session.revoke_cause == "operator"
        assert dict(await self.sessions.newest([session_id])) == {}
        assert session_id in await self.sessions.revoked()
        await self.only_heard(heard)

    async def test_all_sessions_of_a_user(self) -> None:
        who = anybody()
        mine = [(await self.signed_in(life, who)).id for life in (HOUR, 2 * HOUR, -HOUR)]
        other = await self.signed_in()
        before = (await self.signed_in(HOUR, who)).id
        await self.sessions.revoke(before, "sign-out", ended=True)
        heard = await self.listen()
        revoked = await self.sessions.revoke_user(who, "operator")
        assert sorted(revoked) == sorted(mine)
        assert set(mine) <= set(await self.sessions.revoked())
        assert other.id not in await self.sessions.revoked()
        everybody = AccessChange(user_id=who, cause="operator")
        await self.eventually(lambda: len(heard) == len(mine) + 1)
        assert {*heard} == {everybody, *(AccessChange(session_id=one) for one in mine)}
        causes = {one.id: one.revoke_cause for one in await self.sessions.of_user(who)}
        assert causes == {**dict.fromkeys(mine, "operator"), before: "sign-out"}
        events = await self.directory.events(who)
        assert (events[0].kind, events[0].cause) == ("revoke", "operator")
        assert events[0].detail == {"sessions": 3}
        assert len(events) == 2
        assert list(await self.sessions.revoke_user(who, "operator")) == []
        await self.eventually(lambda: heard[len(mine) + 1 :] == [everybody])
        assert list(await self.directory.events(who)) == list(events)

    async def test_notes_and_revocations_at_once(self) -> None:
        who = anybody()
        ids = [(await self.signed_in(HOUR, who)).id for _ in range(20)]
        later = self.now() + 2 * HOUR
        notes, revocations = [], []
        for number in range(6):
            order = ids if number % 2 else ids[::-1]
            notes.append(deferred(self.sessions.note(dict.fromkeys(order, (who, later)))))
            revocations.append(deferred(self.sessions.revoke_user(who, "operator")))
        await gatherResults(notes, consumeErrors=True)
        revoked = await gatherResults(revocations, consumeErrors=True)
        assert sorted(chain.from_iterable(revoked)) == sorted(ids)
        assert dict(await self.sessions.newest(ids)) == {}

    # What is forgotten

    async def test_a_session_is_kept_for_a_month_after_its_last_token(self) -> None:
        session = await self.signed_in()
        lives_on = await self.signed_in(100 * DAY)
        assert session.user_id is not None
        await self.let_pass(30 * DAY)
        assert await self.sessions.purge() == 0
        await self.let_pass(HOUR)
        assert await self.sessions.purge() == 1
        assert list(await self.sessions.of_user(session.user_id)) == []
        assert len(await self.sessions.newest([lives_on.id])) == 1

    async def test_a_session_ended_at_its_issuer_is_barred_while_tokens_may_live(self) -> None:
        short, long = await self.signed_in(HOUR), await self.signed_in(20 * DAY)
        for session in (short, long):
            await self.sessions.revoke(session.id, "sign-out", ended=True)
        await self.let_pass(7 * DAY)
        assert await self.sessions.purge() == 0
        assert set(await self.sessions.revoked()) == {short.id, long.id}
        await self.let_pass(2 * HOUR)
        assert set(await self.sessions.revoked()) == {long.id}
        assert await self.sessions.purge() == 1
        await self.let_pass(13 * DAY)
        assert set(await self.sessions.revoked()) == set()
        assert await self.sessions.purge() == 1

    async def test_a_session_that_lives_on_at_its_issuer_is_barred_for_long(self) -> None:
        session = await self.signed_in()
        await self.sessions.revoke(session.id, "sign-out", ended=True)
        await self.sessions.revoke(session.id, "operator")
        other = await self.signed_in()
        assert other.user_id is not None
        await self.sessions.revoke_user(other.user_id, "operator")
        await self.let_pass(399 * DAY)
        assert await self.sessions.purge() == 0
        assert set(await self.sessions.revoked()) == {session.id, other.id}
        await self.let_pass(2 * DAY)
        assert set(await self.sessions.revoked()) == set()
        assert await self.sessions.purge() == 2

    async def test_a_late_token_of_a_revoked_session_keeps_it_barred(self) -> None:
        session = await self.signed_in()
        assert session.user_id is not None
        await self.sessions.revoke(session.id, "sign-out", ended=True)
        await self.sessions.note({session.id: (session.user_id, self.now() + 20 * DAY)})
        await self.let_pass(19 * DAY)
        assert await self.sessions.purge() == 0
        assert set(await self.sessions.revoked()) == {session.id}

    # Users

    async def test_a_users_state_is_set_told_and_recorded(self) -> None:
        who = anybody()
        await self.directory.admit(who, "gina@example.org")
        heard = await self.listen()
        steps = (
            (UserState.BLOCKED, "block", "active"),
            (UserState.ACTIVE, "unblock", "blocked"),
            (UserState.DELETED, "delete", "active"),
            (UserState.BLOCKED, "block", "deleted"),
            (UserState.DELETED, "delete", "blocked"),
            (UserState.ACTIVE, "unblock", "deleted"),
        )
        for state, kind, was in steps:
            user = await self.directory.set_user_state(who, state)
            assert user == User(who, "gina@example.org", state)
            assert await self.directory.user(who) == user
            event = (await self.directory.events(who))[0]
            assert (event.kind, event.cause, event.detail) == (kind, "operator", {"was": was})
        changes = [AccessChange(user_id=who, state=state) for state, _, _ in steps]
        await self.only_heard(heard, *changes)

    async def test_a_state_that_is_so_already_is_no_change(self) -> None:
        who = anybody()
        user = await self.directory.admit(who, "h@example.org")
        heard = await self.listen()
        assert await self.directory.set_user_state(who, UserState.ACTIVE) == user
        assert list(await self.directory.events(who)) == []
        await self.only_heard(heard)

    async def test_the_cause_can_be_another(self) -> None:
        who = anybody()
        await self.directory.admit(who, "")
        await self.directory.set_user_state(who, UserState.BLOCKED, "abuse")
        [event] = await self.directory.events(who)
        assert event.cause == "abuse"

    async def test_of_many_blocks_at_once_one_is_recorded(self) -> None:
        who = anybody()
        await self.directory.admit(who, "")
        calls = [deferred(self.directory.set_user_state(who, UserState.BLOCKED)) for _ in range(10)]
        users = await gatherResults(calls, consumeErrors=True)
        assert {user.state for user in users} == {UserState.BLOCKED}
        assert len(await self.directory.events(who)) == 1

    async def test_a_state_needs_a_user(self) -> None:
        who = anybody()
        call = self.directory.set_user_state(who, UserState.BLOCKED)
        assert who in str(await self.raises(UnknownUser, call))
        assert await self.directory.user(who) is None

    async def test_what_an_operator_does_by_hand_is_told_too(self) -> None:
        who = anybody()
        await self.directory.admit(who, "i@example.org")
        heard = await self.listen()
        await self.put_user(User(who, "i@example.org", UserState.ACTIVE, 60.0))
        await self.put_user(User(who, "i@example.org", UserState.BLOCKED, 60.0))
        await self.only_heard(heard, AccessChange(user_id=who, state=UserState.BLOCKED))

    async def test_machines_watchers_hear_of_blocks_and_of_no_session(self) -> None:
        session = await self.signed_in()
        assert session.user_id is not None
        heard: list[UserId | None] = []
        self.directory.watch(heard.append)
        access = await self.listen()
        await self.sessions.revoke(session.id, "operator")
        await self.directory.set_user_state(session.user_id, UserState.BLOCKED)
        await self.eventually(lambda: len(access) == 2)
        await self.eventually(lambda: len(heard) >= 1)
        assert heard == [session.user_id]

    async def test_who_of_many_may_not_come_in(self) -> None:
        states = (*UserState, UserState.ACTIVE)
        users = {anybody(): state for state in states}
        for who, state in users.items():
            await self.directory.admit(who, "")
            await self.directory.set_user_state(who, state)
        assert dict(await self.directory.not_active([])) == {}
        found = await self.directory.not_active([*users, anybody()])
        assert found == {who: at for who, at in users.items() if at is not UserState.ACTIVE}

    async def test_a_failing_watcher_harms_nobody(self) -> None:
        def fail(_: AccessChange | None) -> None:
            raise RuntimeError("the watcher's own trouble")

        session_id = any_session()
        heard = await self.listen()
        self.sessions.watch(fail)
        last: list[AccessChange | None] = []
        self.sessions.watch(last.append)
        await self.sessions.revoke(session_id, "operator")
        await self.eventually(lambda: bool(last))
        assert heard == last == [AccessChange(session_id=session_id)]
        errors = self.flushLoggedErrors(RuntimeError)  # type: ignore[no-untyped-call]
        assert len(errors) == 1
