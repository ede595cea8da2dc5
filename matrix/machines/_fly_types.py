"""What Fly's Machines API answers, as far as Matrix needs it. Pure.

Members that are not named here are ignored, since Fly adds some without notice; one that is
needed and missing makes the answer unusable.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

FLY_STATES: Mapping[str, str] = {
    "creating": "transient", "starting": "transient", "stopping": "transient",
    "restarting": "transient", "suspending": "transient", "destroying": "transient",
    "updating": "transient", "replacing": "transient", "launch_failed": "transient",
    "created": "resting", "stopped": "resting", "suspended": "resting", "failed": "resting",
    "started": "started",
    "destroyed": "gone", "replaced": "gone", "migrated": "gone",
}  # fmt: skip
"""Each state of a machine and its kind (facts/fly.md section 4)."""

VOLUME_GONE = frozenset(
    {
        "scheduling_destroy", "pending_destroy", "destroying", "destroyed", "fork_cleanup",
        "waiting_for_detach",
    }
)  # fmt: skip
"""States of volumes that linger in lists after they were deleted (facts/fly.md section 7)."""

Autostop = Annotated[
    Literal["off", "stop", "suspend"],
    BeforeValidator(lambda value: {True: "stop", False: "off"}.get(value, value)),
]
"""Sent as a word, answered in part as a boolean."""


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class FlyEvent(_Answer):
    """Something that happened to a machine."""

    id: str = ""
    type: str = ""
    status: str = ""
    source: str = ""
    """C{user}, C{flyd} or C{proxy}."""
    timestamp: int = 0
    """Unix time, milliseconds."""


class FlyMachine(_Answer):
    """A machine as Fly tells of it."""

    id: str
    state: str
    name: str = ""
    region: str = ""
    instance_id: str = ""
    """Of this version of its config: a new one at each update, the same over stops."""
    private_ip: str = ""
    """Changes when the machine is moved to another host."""
    config: Mapping[str, Any] | None = None
    """Missing in summaries, and while the host cannot be reached."""
    host_status: str = "ok"
    events: tuple[FlyEvent, ...] = ()
    updated_at: str = ""
    app_name: str = ""
    """Only in listings of an organisation."""

    @property
    def kind(self) -> str:
        """The kind of its state; states that are new to us are taken to pass."""
        return FLY_STATES.get(self.state, "transient")

    @property
    def is_gone(self) -> bool:
        """Whether there is no such machine any more, or soon will be none."""
        return self.kind == "gone" or self.state == "destroying"

    @property
    def is_reachable(self) -> bool:
        """Whether its host answers; Fly knows little of a machine whose host does not."""
        return self.host_status in ("ok", "unknown")

    @property
    def volume_id(self) -> str | None:
        """The volume that it has, as far as is known."""
        mounts = (self.config or {}).get("mounts") or [{}]
        found = mounts[0].get("volume")
        return found if isinstance(found, str) else None

    @property
    def port(self) -> int | None:
        """The one on which it listens, as far as is known."""
        services = (self.config or {}).get("services") or [{}]
        found = services[0].get("internal_port")
        return found if isinstance(found, int) else None

    @property
    def metadata(self) -> Mapping[str, str]:
        """What we have written on it."""
        found = (self.config or {}).get("metadata")
        return found if isinstance(found, dict) else {}


class FlyVolume(_Answer):
    """A volume as Fly tells of it."""

    id: str
    state: str
    name: str = ""
    region: str = ""
    created_at: datetime | None = None
    size_gb: int = 0
    attached_machine_id: str | None = None
    host_status: str = "ok"
    app_name: str = ""

    @property
    def is_gone(self) -> bool:
        """Whether it was deleted, although it is still listed."""
        return self.state in VOLUME_GONE


class FlySnapshot(_Answer):
    """Fly's own snapshot of a volume."""

    id: str
    status: str = ""
    created_at: str = ""


class FlyStart(_Answer):
    """The answer to a start."""

    previous_state: str = ""
    status: str = ""
    message: str = ""


class FlyWait(_Answer):
    """The answer to a wait."""

    ok: bool = False
    state: str = ""


class FlyLease(_Answer):
    """A lease on a machine, in either of the two envelopes seen."""

    nonce: str = Field(repr=False)
    expires_at: int = 0
    """Unix time, seconds."""
    owner: str = ""

    @classmethod
    def unwrapped(cls, document: object) -> object:
        """What is inside C{{"status": ..., "data": {...}}}, or the document itself."""
        inner = document.get("data") if isinstance(document, dict) else None
        return inner if isinstance(inner, dict) else document


class FlyPage(_Answer):
    """A page of an organisation's machines or volumes."""

    machines: tuple[FlyMachine, ...] = ()
    volumes: tuple[FlyVolume, ...] = ()
    next_cursor: str | None = None
    error_regions: tuple[str, ...] | None = None
    """Regions that are missing in it: what is there must not be taken for lost."""
