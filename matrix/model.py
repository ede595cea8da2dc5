"""The values that every room speaks of: users, machines, addresses, principals, events."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Literal, NewType
from uuid import UUID

from matrix.errors import ConfigurationError

UserId = NewType("UserId", str)
"""A Supabase user id: the canonical lower-case text of a UUID. Text, because it is a
dictionary key on the warm path and C{UUID.__hash__} is Python code."""


def user_id(text: str) -> UserId:
    """
    The canonical form of a user id.

    @raise ValueError: C{text} is not a UUID.
    """
    return UserId(str(UUID(text)))


class UserState(StrEnum):
    """Whether a user may come in."""

    ACTIVE = "active"
    BLOCKED = "blocked"
    DELETED = "deleted"


class MachineState(StrEnum):
    """Where a machine is in its life; C{matrix.machines.lifecycle} says what may follow what."""

    PROVISIONING = "provisioning"
    STARTING = "starting"
    RUNNING = "running"
    DRAINING = "draining"
    SUSPENDING = "suspending"
    SUSPENDED = "suspended"
    STOPPED = "stopped"
    FAILED = "failed"
    LOST = "lost"
    DESTROYING = "destroying"
    DESTROYED = "destroyed"


def host_port(text: str) -> tuple[str, int]:
    """
    Read C{HOST:PORT}. An empty host means every address; an IPv6 host stands in brackets.

    @raise ValueError: C{text} is in another form.
    """
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not (port.isascii() and port.isdigit()) or (":" in host and not bracketed):
        raise ValueError(f"{text!r} is not HOST:PORT (an IPv6 host stands in brackets)")
    if int(port) > 65535:
        raise ValueError(f"port {port} is over 65535")
    return (host[1:-1] if bracketed else host), int(port)


@dataclass(frozen=True, slots=True)
class Address:
    """
    Where a machine listens: a unix socket, or a host and port.

    The text form is C{unix:/path} or C{tcp:host:port} (IPv6 hosts in brackets).
    """

    path: str | None = None
    host: str | None = None
    port: int | None = None

    @classmethod
    def parse(cls, text: str) -> Address:
        """
        Read the text form.

        @raise ConfigurationError: C{text} is in neither form.
        """
        kind, _, rest = text.partition(":")
        if kind == "unix" and rest.startswith("/"):
            return cls(path=rest)
        if kind == "tcp":
            with suppress(ValueError):
                host, port = host_port(rest)
                if host:
                    return cls(host=host, port=port)
        raise ConfigurationError(
            f"{text!r} is no address: write unix:/path/to/socket or tcp:HOST:PORT"
        )

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        host = f"[{self.host}]" if self.host and ":" in self.host else self.host
        return f"tcp:{host}:{self.port}"


def peer_name(place: object) -> str:
    """The client's address: an IPv4 one as such, even on a socket for both families."""
    if not isinstance(place, tuple):
        return "local"
    host = str(place[0])
    return host.removeprefix("::ffff:") if "." in host else host


@dataclass(frozen=True, slots=True)
class User:
    """One row of C{users}."""

    id: UserId
    email: str
    state: UserState = UserState.ACTIVE
    idle_timeout: float | None = None
    """Seconds without use before this user's machine sleeps; C{None} for the fleet's default."""


@dataclass(frozen=True, slots=True)
class Session:
    """One row of C{sessions}: a sign-in at the issuer, as far as its tokens told of it."""

    id: str
    """The C{session_id} of its tokens: the canonical text of a UUID."""
    user_id: UserId | None
    """C{None} if it was revoked before any token of it was seen."""
    seen_at: datetime
    """When it was first seen."""
    expires_at: float
    """Unix time, seconds: when the newest token that was seen of it expires."""
    revoked_at: datetime | None = None
    revoke_cause: str | None = None


@dataclass(frozen=True, slots=True)
class SignIn:
    """One row of C{sign_ins}: a browser's sign-in whose tokens the routers keep and refresh."""

    id: str
    """The canonical text of a UUID that says nothing."""
    session_id: str
    """The C{session_id} of its tokens."""
    user_id: UserId
    sealed: bytes = field(repr=False)
    """The tokens. What opens them is in the browser's cookie and nowhere else."""
    ends_at: float
    """Unix time, seconds: when it ends, whatever its tokens say."""
    generation: int = 1
    """Counts how often the tokens were replaced."""


@dataclass(frozen=True, slots=True)
class AccessChange:
    """What changed in who may come in: a user's state, or that a session was revoked, or all
    that a user has."""

    user_id: UserId | None = None
    state: UserState | None = None
    """The user's new state."""
    session_id: str | None = None
    cause: str | None = None
    """Why all of the user's sessions were revoked, if they were. Each that is on record is told
    of by itself; this is for those that a router has seen and not yet noted."""


@dataclass(frozen=True, slots=True)
class Machine:
    """
    One row of C{machines}: the backend that a user owns.

    C{generation} counts the row's changes; a change names the generation it was decided
    on and fails when another process was faster.
    """

    user_id: UserId
    provider: str
    state: MachineState
    generation: int
    app: str | None = None
    """At Fly, the app that it is in."""
    machine_id: str | None = None
    volume_id: str | None = None
    """Where its data are, if the provider keeps them apart from it."""
    region: str | None = None
    image: str | None = None
    """What it was made from."""
    address: Address | None = None
    boot_id: str | None = None
    """Differs for each boot of the machine; a suspend and resume keeps it."""
    secret_epoch: int = 1
    last_active_at: datetime | None = None
    last_wake_at: datetime | None = None
    wake_cause: str | None = None
    suspend_cause: str | None = None
    lease_owner: str | None = None
    lease_expires_at: datetime | None = None
    state_reason: str | None = None
    """Why the machine is C{failed} or C{lost}, for the operator."""
    provision_step: str | None = None
    """How far its making has come, in the provider's words; C{None} before the first step."""
    size: str | None = None
    """How large it is, in the provider's words; C{None} for as large as others are."""
    former_machine_id: str | None = None
    """What the user had before this machine was made elsewhere: kept until the new one answers,
    never started meanwhile, and deleted then."""
    former_volume_id: str | None = None
    """As C{former_machine_id}."""
    on_trial: bool = False
    """Whether it was made in the former one's place, and has not answered yet: until then the
    former one has the user's data."""
    stranded_at: datetime | None = None
    """Since when it cannot be started where it is, if it cannot."""


class SnapshotStatus(StrEnum):
    """How far a snapshot has come."""

    STARTED = "started"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One row of C{snapshots}: a snapshot of a user's data, or the attempt to take one."""

    id: int
    user_id: UserId
    cause: str
    """Why it is taken: C{interval}, C{suspend}, C{operator}, C{rollout}."""
    status: SnapshotStatus
    started_at: datetime
    restic_id: str | None = None
    """Its full name in the user's repository, once it is there."""
    reason: str | None = None
    """Why it failed."""
    partial: bool = False
    """Whether some files could not be read, and are not in it."""
    finished_at: datetime | None = None
    bytes_added: int | None = None
    """By how much it made the repository grow."""
    bytes_total: int | None = None
    """How much it holds."""
    verified_at: datetime | None = None
    """When it was last restored and found right."""
    lease_owner: str | None = None
    """The router that has it taken."""
    lease_expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """How it is with a user's snapshots."""

    user_id: UserId
    email: str
    due_at: datetime | None
    """When the next is due, if the machine is awake then; C{None}: all there is was taken."""
    failures: int
    """Attempts that failed since the last good one."""
    newest: Snapshot | None = None
    """The newest good one."""
    reason: str | None = None
    """Why the last attempt failed, if it did."""


@dataclass(frozen=True, slots=True)
class Stray:
    """One row of C{strays}: something at the provider that belongs to no user."""

    id: str
    """The provider's."""
    kind: Literal["machine", "volume"]
    provider: str
    app: str
    name: str
    region: str
    user_id: UserId | None
    """Whose it says that it is."""
    reason: str
    """Why it belongs to nobody, for the operator."""
    ours: bool
    """Whether Matrix made it: what others did is not touched."""
    first_seen: datetime | None = None
    last_seen: datetime | None = None


@dataclass(frozen=True, slots=True)
class Busy:
    """One row of C{busy}: what a machine says that it works on though nobody uses it."""

    user_id: UserId
    reason: str
    """In its own words."""
    since: datetime
    """Since when it has said so without a pause."""
    until: datetime
    """Unless it says so again."""


@dataclass(frozen=True, slots=True)
class Event:
    """One row of C{events}: why a machine woke, slept or changed."""

    user_id: UserId
    at: datetime
    kind: str
    cause: str
    detail: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Principal:
    """Who sent a request, as their verified token says."""

    user_id: UserId
    session_id: str
    expires_at: float
    """Unix time, seconds: the token's C{exp}."""
    email: str = ""
