"""Between rows and values: nothing is lost either way, nothing wrong gets in."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from matrix.directory._rows import (
    EVENT_COLUMNS,
    MACHINE_COLUMNS,
    USER_COLUMNS,
    check_changes,
    to_access_change,
    to_column,
    to_event,
    to_machine,
    to_session,
    to_user,
)
from matrix.model import (
    AccessChange,
    Address,
    Event,
    Machine,
    MachineState,
    Session,
    User,
    UserId,
    UserState,
)

WHO = UserId("6f1c1d4e-6c0b-4a55-9a0e-0f8f6f2f9d11")

texts = st.none() | st.text()
zones = st.integers(-14 * 60, 14 * 60).map(lambda n: timezone(timedelta(minutes=n)))
instants = st.none() | st.datetimes(
    min_value=datetime(2000, 1, 1), max_value=datetime(2100, 1, 1), timezones=zones
)
addresses = st.none() | st.builds(
    Address, host=st.sampled_from(["localhost", "10.1.2.3", "fdaa::3"]), port=st.integers(1, 65535)
)
changes = st.fixed_dictionaries(
    {},
    optional={
        "provider": st.text(),
        "state": st.sampled_from(MachineState),
        "machine_id": texts,
        "address": addresses,
        "boot_id": texts,
        "secret_epoch": st.integers(1, 1000),
        "last_active_at": instants,
        "last_wake_at": instants,
        "wake_cause": texts,
        "suspend_cause": texts,
        "lease_owner": texts,
        "lease_expires_at": instants,
        "state_reason": texts,
    },
)


class MachineRowTests(SynchronousTestCase):
    """L{to_machine}, L{to_column} and L{check_changes}."""

    @given(changes)
    def test_there_and_back(self, change: dict[str, object]) -> None:
        check_changes(change)
        fresh = Machine(WHO, "local", MachineState.PROVISIONING, generation=7)
        machine = replace(fresh, **change)  # type: ignore[arg-type]
        row = [to_column(getattr(machine, name)) for name in MACHINE_COLUMNS]
        self.assertEqual(to_machine(row), machine)

    def test_times_come_in_utc(self) -> None:
        there = datetime(2026, 5, 4, 14, 0, tzinfo=timezone(timedelta(hours=2)))
        machine = Machine(WHO, "local", MachineState.RUNNING, 1, last_wake_at=there)
        back = to_machine([to_column(getattr(machine, name)) for name in MACHINE_COLUMNS])
        assert back.last_wake_at is not None
        self.assertIs(back.last_wake_at.tzinfo, UTC)
        self.assertEqual(back.last_wake_at.hour, 12)

    @given(
        st.text().filter(lambda name: name not in MACHINE_COLUMNS)
        | st.sampled_from(["user_id", "generation"])
    )
    def test_other_names_are_refused(self, name: str) -> None:
        error = self.assertRaises(TypeError, check_changes, {"wake_cause": "x", name: "y"})
        self.assertIn(repr(name), str(error))

    def test_every_other_attribute_can_be_changed(self) -> None:
        machine = Machine(WHO, "local", MachineState.RUNNING, 1)
        for name in set(MACHINE_COLUMNS) - {"user_id", "generation"}:
            check_changes({name: getattr(machine, name)})
            error = self.assertRaises(TypeError, check_changes, {name: object()})
            self.assertIn(name, str(error))


class OtherRowTests(SynchronousTestCase):
    """L{to_user} and L{to_event}."""

    def test_user(self) -> None:
        self.assertEqual(USER_COLUMNS, ("id", "email", "state", "idle_timeout_s"))
        user = to_user((WHO, "a@example.org", "blocked", 5.0))
        self.assertEqual(user, User(WHO, "a@example.org", UserState.BLOCKED, 5.0))

    def test_event(self) -> None:
        self.assertEqual(EVENT_COLUMNS, ("user_id", "at", "kind", "cause", "detail"))
        at = datetime(2026, 5, 4, 14, 0, tzinfo=timezone(timedelta(hours=2)))
        event = to_event((WHO, at, "wake", "request", {"ms": 1}))
        self.assertEqual(event, Event(WHO, at, "wake", "request", {"ms": 1}))
        self.assertIs(event.at.tzinfo, UTC)


class AccessTests(SynchronousTestCase):
    """L{to_session}, L{to_access_change}."""

    def test_sessions(self) -> None:
        east = datetime(2026, 5, 4, 14, 0, 0, 250_000, tzinfo=timezone(timedelta(hours=2)))
        noon = east.astimezone(UTC)
        self.assertEqual(
            to_session(("s", WHO, east, east, None, None)),
            Session("s", WHO, noon, noon.timestamp()),
        )
        revoked = to_session(("s", None, east, east, east, "operator"))
        self.assertEqual(revoked, Session("s", None, noon, noon.timestamp(), noon, "operator"))
        for value in (revoked.seen_at, revoked.revoked_at):
            assert value is not None
            self.assertEqual(value.utcoffset(), timedelta(0))

    def test_what_notifications_tell(self) -> None:
        for state in UserState:
            change = AccessChange(user_id=WHO, state=state)
            self.assertEqual(to_access_change(f"user {WHO} {state}"), change)
        self.assertEqual(
            to_access_change(f"sessions {WHO} operator"),
            AccessChange(user_id=WHO, cause="operator"),
        )
        self.assertEqual(to_access_change(f"session {WHO}"), AccessChange(session_id=WHO))

    def test_what_is_not_understood(self) -> None:
        for payload in (
            "",
            " ",
            "session",
            "session x",
            f"session {WHO} {WHO}",
            "user",
            f"user {WHO}",
            f"user {WHO} gone",
            f"user {WHO} active now",
            "user x active",
            f"group {WHO}",
            WHO,
        ):
            self.assertIsNone(to_access_change(payload), payload)

    @given(st.text())
    def test_any_text(self, payload: str) -> None:
        change = to_access_change(payload)
        self.assertTrue(change is None or payload.startswith(("user", "session")))
