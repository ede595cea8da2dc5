"""Between the rows of the tables and the values of the model, and what may be changed in one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from datetime import UTC, datetime
from sys import intern
from typing import Any
from uuid import UUID

from matrix.model import (
    AccessChange,
    Address,
    Busy,
    Event,
    Machine,
    MachineState,
    Session,
    SignIn,
    Snapshot,
    SnapshotStatus,
    Standing,
    User,
    UserId,
    UserState,
    user_id,
)

Row = Sequence[Any]

USER_COLUMNS = ("id", "email", "state", "idle_timeout_s")
MACHINE_COLUMNS = tuple(field.name for field in fields(Machine))
EVENT_COLUMNS = ("user_id", "at", "kind", "cause", "detail")
SESSION_COLUMNS = (
    "session_id",
    "user_id",
    "seen_at",
    "expires_at",
    "revoked_at",
    "revoke_cause",
)
BUSY_COLUMNS = ("user_id", "reason", "since", "until")
SNAPSHOT_COLUMNS = tuple(field.name for field in fields(Snapshot))
SIGN_IN_COLUMNS = ("id", "session_id", "user_id", "sealed", "ends_at", "generation")


_SHARED = (
    "provider", "app", "region", "image", "wake_cause", "suspend_cause", "lease_owner", "size",
)  # fmt: skip
"""Columns that have the same few values in most rows: kept once, for a router knows very many."""


def _text(value: object) -> bool:
    return value is None or isinstance(value, str)


def _instant(value: object) -> bool:
    # Without its zone a time would be read in the database session's zone.
    return value is None or (isinstance(value, datetime) and value.tzinfo is not None)


_CHECKS: Mapping[str, tuple[Callable[[object], bool], str]] = {
    "provider": (lambda value: isinstance(value, str), "text"),
    "state": (lambda value: isinstance(value, MachineState), "a MachineState"),
    "app": (_text, "text or None"),
    "machine_id": (_text, "text or None"),
    "volume_id": (_text, "text or None"),
    "region": (_text, "text or None"),
    "image": (_text, "text or None"),
    "address": (lambda value: value is None or isinstance(value, Address), "an Address or None"),
    "boot_id": (_text, "text or None"),
    "secret_epoch": (lambda value: type(value) is int, "a whole number"),
    "last_active_at": (_instant, "a datetime with a time zone, or None"),
    "last_wake_at": (_instant, "a datetime with a time zone, or None"),
    "wake_cause": (_text, "text or None"),
    "suspend_cause": (_text, "text or None"),
    "lease_owner": (_text, "text or None"),
    "lease_expires_at": (_instant, "a datetime with a time zone, or None"),
    "state_reason": (_text, "text or None"),
    "provision_step": (_text, "text or None"),
    "size": (_text, "text or None"),
    "former_machine_id": (_text, "text or None"),
    "former_volume_id": (_text, "text or None"),
    "on_trial": (lambda value: type(value) is bool, "true or false"),
    "stranded_at": (_instant, "a datetime with a time zone, or None"),
}


def check_changes(changes: Mapping[str, object]) -> None:
    """
    Make sure that C{changes} are attributes of L{Machine} that may be set to these values.

    @raise TypeError: one is not.
    """
    for name, value in changes.items():
        if name not in _CHECKS:
            raise TypeError(f"{name!r} is no attribute of a machine that can be changed")
        accepts, wanted = _CHECKS[name]
        if not accepts(value):
            raise TypeError(f"{name} must be {wanted}, not {value!r}")


def to_column(value: object) -> object:
    """The form in which an attribute of L{Machine} goes to the database."""
    return str(value) if isinstance(value, Address | MachineState) else value


def _utc(value: datetime | None) -> datetime | None:
    return None if value is None else value.astimezone(UTC)


def to_machine(row: Row) -> Machine:
    """A machine from its L{MACHINE_COLUMNS}."""
    values = dict(zip(MACHINE_COLUMNS, row, strict=True))
    values["state"] = MachineState(values["state"])
    values["address"] = None if values["address"] is None else Address.parse(values["address"])
    for name in _SHARED:
        if values[name] is not None:
            values[name] = intern(values[name])
    for name in ("last_active_at", "last_wake_at", "lease_expires_at", "stranded_at"):
        values[name] = _utc(values[name])
    return Machine(**values)


def to_user(row: Row) -> User:
    """A user from their L{USER_COLUMNS}."""
    id, email, state, idle_timeout = row
    return User(UserId(id), email, UserState(state), idle_timeout)


def to_event(row: Row) -> Event:
    """An event from its L{EVENT_COLUMNS}."""
    owner, at, kind, cause, detail = row
    return Event(UserId(owner), at.astimezone(UTC), kind, cause, detail)


def to_session(row: Row) -> Session:
    """A session from its L{SESSION_COLUMNS}."""
    id, owner, seen_at, expires_at, revoked_at, cause = row
    return Session(
        id=id,
        user_id=None if owner is None else UserId(owner),
        seen_at=seen_at.astimezone(UTC),
        expires_at=expires_at.timestamp(),
        revoked_at=_utc(revoked_at),
        revoke_cause=cause,
    )


def to_sign_in(row: Row) -> SignIn:
    """A sign-in from its L{SIGN_IN_COLUMNS}."""
    id, session_id, owner, sealed, ends_at, generation = row
    return SignIn(id, session_id, UserId(owner), bytes(sealed), ends_at.timestamp(), generation)


def to_busy(row: Row) -> Busy:
    """What a machine is busy with, from its L{BUSY_COLUMNS}."""
    owner, reason, since, until = row
    return Busy(UserId(owner), reason, since.astimezone(UTC), until.astimezone(UTC))


def to_snapshot(row: Row) -> Snapshot:
    """A snapshot from its L{SNAPSHOT_COLUMNS}."""
    values = dict(zip(SNAPSHOT_COLUMNS, row, strict=True))
    values["status"] = SnapshotStatus(values["status"])
    for name in ("started_at", "finished_at", "verified_at", "lease_expires_at"):
        values[name] = _utc(values[name])
    return Snapshot(**values)


def to_standing(row: Row) -> Standing:
    """How it is with a user's snapshots: when, how often failed and why, and their newest."""
    owner, email, due_at, failures, reason, *newest = row
    found = None if newest[0] is None else to_snapshot(newest)
    return Standing(UserId(owner), email, _utc(due_at), failures, found, reason)


def to_access_change(payload: str) -> AccessChange | None:
    """
    What a notification on C{access} tells. One that is not understood, such as a later
    version's, is as if it had been missed: C{None}.
    """
    with suppress(ValueError):
        kind, *words = payload.split()
        if kind == "session":
            [session_id] = words
            return AccessChange(session_id=str(UUID(session_id)))
        if kind == "user":
            owner, state = words
            return AccessChange(user_id=user_id(owner), state=UserState(state))
        if kind == "sessions":
            owner, cause = words
            return AccessChange(user_id=user_id(owner), cause=cause)
    return None
