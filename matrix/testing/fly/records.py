"""What the emulated Fly knows of its apps, machines and volumes, and must not forget."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

EVENTS_MAX = 50
"""As many as Fly shows at most."""


@dataclass
class App:
    """The machines and volumes of one customer's application."""

    name: str
    id: str
    org: str
    network: str
    created_at: float

    kind = "apps"

    @property
    def key(self) -> str:
        """What it is kept under."""
        return self.name


@dataclass
class Machine:
    """One machine; times are Unix times in seconds."""

    id: str
    app: str
    name: str
    region: str
    host: int
    """Which of the region's hosts it is on."""
    private_ip: str
    config: dict[str, Any]
    instance_id: str
    created_at: float
    updated_at: float
    visible_at: float
    state: str = "created"
    events: list[dict[str, Any]] = field(default_factory=list)
    """Newest first."""
    versions: list[dict[str, Any]] = field(default_factory=list)
    """Newest first."""
    lease: dict[str, Any] | None = None
    cordoned: bool = False
    prepared: bool = False
    """Whether its image is there."""
    launch: bool = True
    """Whether it is to be started once it is prepared, or replaced."""
    step: str | None = None
    """What ends its present state, if that state ends by itself."""
    due: float = 0.0
    """When that step is to be taken."""
    request: dict[str, Any] = field(default_factory=dict)
    """What else is to be known for the step: a signal, a grace."""
    memory: bool = False
    """Whether its memory was kept when it was suspended, and still is."""
    active_until: float = 0.0
    """Until when a start is refused though it is stopped."""
    restarts: int = 0
    """Since it was last started on request."""
    unreachable: bool = False
    """Its host is down."""
    gone_at: float = 0.0
    """When it was destroyed."""

    kind = "machines"

    @property
    def key(self) -> str:
        """What it is kept under."""
        return self.id

    @property
    def volume(self) -> str | None:
        """The id of its volume."""
        mounts = self.config.get("mounts") or []
        return mounts[0].get("volume") if mounts else None

    @property
    def port(self) -> int:
        """Where its program is to listen."""
        for service in self.config.get("services") or []:
            if service.get("internal_port"):
                return int(service["internal_port"])
        for check in (self.config.get("checks") or {}).values():
            if check.get("port"):
                return int(check["port"])
        return DEFAULT_PORT


DEFAULT_PORT = 8080
"""Of a machine whose config names none; Fly's own default."""


@dataclass
class Volume:
    """One volume; whose it is, the machines say."""

    id: str
    app: str
    name: str
    region: str
    host: int
    size_gb: int
    created_at: float
    updated_at: float
    encrypted: bool = True
    snapshot_retention: int = 5
    auto_backup_enabled: bool = True
    fstype: str = "ext4"
    state: str = "creating"
    step: str | None = None
    due: float = 0.0
    origin: str = ""
    """The volume, or the snapshot, that its data come from."""
    snapshots: list[dict[str, Any]] = field(default_factory=list)
    """Newest first; C{id, created_at, status, size}."""
    gone_at: float = 0.0
    unreachable: bool = False

    kind = "volumes"

    @property
    def key(self) -> str:
        """What it is kept under."""
        return self.id

    @property
    def is_gone(self) -> bool:
        """Whether it was deleted, however long it is shown."""
        return self.gone_at > 0


Record = App | Machine | Volume
