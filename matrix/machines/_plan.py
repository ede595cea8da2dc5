"""What a user's machine on Fly is to be like: a rendered C{fly.toml} in the API's words. Pure.

The mapping is that of facts/fly.md section 8, with one difference: towards Fly no machine stops
or starts by itself, since its proxy does not see what reaches machines over the mesh (DESIGN,
section 4). What the file says of stopping is for the router to do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from matrix.machines._flytoml import Check, FlyToml, HttpService, Idle, Mount

SUSPEND_MEMORY_MAX = 2048
"""MB. Fly suspends no larger machine, nor one with swap (facts/fly.md section 5)."""


@dataclass(frozen=True, slots=True)
class VolumePlan:
    """A volume that is to be made."""

    name: str
    size_gb: int
    snapshot_retention: int | None
    auto_backup_enabled: bool | None

    def request(self, region: str, guest: Mapping[str, Any]) -> dict[str, Any]:
        """
        The body that makes it.

        @param guest: the size of the machine that it is for: room for both is looked for.
        """
        body: dict[str, Any] = {
            "name": self.name,
            "region": region,
            "size_gb": self.size_gb,
            "encrypted": True,
            "require_unique_zone": False,
            "snapshot_retention": self.snapshot_retention,
            "auto_backup_enabled": self.auto_backup_enabled,
            "compute": dict(guest),
        }
        return _told(body)


@dataclass(frozen=True, slots=True)
class MachinePlan:
    """A machine that is to be made, or brought up to date."""

    app: str
    region: str
    volume: VolumePlan
    _when_idle: Idle
    _config: Mapping[str, Any]

    @property
    def on_idle(self) -> Idle:
        """What the router does with it when nobody uses it."""
        large = self.guest["memory_mb"] > SUSPEND_MEMORY_MAX or self._config.get("init")
        return "stop" if self._when_idle == "suspend" and large else self._when_idle

    @property
    def guest(self) -> Mapping[str, Any]:
        """Its size."""
        guest: Mapping[str, Any] = self._config["guest"]
        return guest

    @property
    def port(self) -> int:
        """The one on which it listens."""
        [service] = self._config["services"]
        return int(service["internal_port"])

    def with_guest(self, guest: Mapping[str, Any]) -> MachinePlan:
        """The same, in another size."""
        return replace(self, _config={**self._config, "guest": dict(guest)})

    def with_environment(self, environment: Mapping[str, str]) -> MachinePlan:
        """The same, its processes told of more."""
        env = {**self._config["env"], **environment}
        return replace(self, _config={**self._config, "env": env})

    def config(self, volume_id: str) -> dict[str, Any]:
        """The whole machine config, with its volume."""
        (mount,) = self._config["mounts"]
        return {**self._config, "mounts": [{**mount, "volume": volume_id}]}


def plan(toml: FlyToml) -> MachinePlan:
    """The machine that the file describes."""
    service, mount = toml.http_service, toml.mounts
    config: dict[str, Any] = {
        "image": toml.build.image,
        "env": {"PRIMARY_REGION": toml.primary_region, "FLY_PROCESS_GROUP": "app", **toml.env},
        "init": {"swap_size_mb": toml.swap_size_mb} if toml.swap_size_mb else None,
        "guest": toml.vm.guest(),
        "mounts": [_mount(mount)],
        "services": [_service(service)],
        "checks": {
            name: _check(check, service.internal_port) for name, check in toml.checks.items()
        }
        or None,
        "restart": _told(
            {
                "policy": "no" if toml.restart.policy == "never" else toml.restart.policy,
                "max_retries": toml.restart.retries,
            }
        ),
        "stop_config": {"signal": toml.kill_signal, "timeout": toml.kill_timeout},
        "metadata": {"fly_process_group": "app"},
    }
    volume = VolumePlan(
        mount.source, mount.initial_size, mount.snapshot_retention, mount.scheduled_snapshots
    )
    idle = service.auto_stop_machines
    return MachinePlan(toml.app, toml.primary_region, volume, idle, _told(config))


def _mount(mount: Mount) -> dict[str, Any]:
    return _told(
        {
            "name": mount.source,
            "path": mount.destination,
            "extend_threshold_percent": mount.auto_extend_size_threshold,
            "add_size_gb": mount.auto_extend_size_increment,
            "size_gb_limit": mount.auto_extend_size_limit,
        }
    )


def _service(service: HttpService) -> dict[str, Any]:
    limits = service.concurrency
    return _told(
        {
            "protocol": "tcp",
            "internal_port": service.internal_port,
            "autostop": "off",
            "autostart": False,
            "ports": [
                {"port": 80, "handlers": ["http"], "force_https": service.force_https},
                {"port": 443, "handlers": ["tls", "http"]},
            ],
            "concurrency": _told(limits.model_dump()) if limits is not None else None,
            "checks": [_check(check, service.internal_port) for check in service.checks] or None,
        }
    )


def _check(check: Check, port: int) -> dict[str, Any]:
    found = check.model_dump(exclude={"headers"})
    found["type"] = check.type or ("http" if check.path else "tcp")
    found["port"] = check.port or port
    if check.headers:
        found["headers"] = [
            {"name": name, "values": [value]} for name, value in check.headers.items()
        ]
    return _told(found)


def _told(members: Mapping[str, Any]) -> dict[str, Any]:
    """Without what was left open: Fly's defaults are its own."""
    return {name: value for name, value in members.items() if value is not None}
