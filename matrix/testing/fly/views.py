"""Records in the words of Fly's API."""

from __future__ import annotations

import re
from typing import Any

from matrix.testing.fly.records import App, Machine, Volume
from matrix.testing.fly.world import World, rfc3339

GB = 1 << 30
BLOCK = 4096
"""Bytes."""

_IMAGE = re.compile(r"(?:(?P<registry>[^/]+[.:][^/]*)/)?(?P<repository>[^:@]+)"
                    r"(?::(?P<tag>[^@]+))?(?:@(?P<digest>.+))?")  # fmt: skip

_AUTOSTOP: dict[object, object] = {"off": False, "stop": True}
"""What Fly answers is not what it was sent."""


def machine_view(world: World, machine: Machine, summary: bool = False) -> dict[str, Any]:
    """
    A C{Machine}.

    @param summary: without its config, checks, events and nonce.
    """
    view: dict[str, Any] = {
        "id": machine.id,
        "name": machine.name,
        "state": machine.state,
        "region": machine.region,
        "image_ref": _image(machine.config["image"]),
        "instance_id": machine.instance_id,
        "version": machine.instance_id,
        "private_ip": machine.private_ip,
        "created_at": rfc3339(machine.created_at),
        "updated_at": rfc3339(machine.updated_at),
        "host_status": "unreachable" if machine.unreachable else "ok",
        "cordoned": machine.cordoned,
    }
    if summary:
        return view
    view["incomplete_config" if machine.unreachable else "config"] = answered(machine.config)
    view["events"] = machine.events
    view["checks"] = []
    lease = machine.lease
    if lease is not None and lease["expires_at"] > world.now():
        view["nonce"] = lease["nonce"]
    return view


def answered(config: dict[str, Any]) -> dict[str, Any]:
    """A config as Fly gives it back."""
    services = config.get("services")
    if not services:
        return config
    return {**config, "services": [_service(service) for service in services]}


def _service(service: dict[str, Any]) -> dict[str, Any]:
    if "autostop" not in service:
        return service
    said = service["autostop"]
    return {**service, "autostop": _AUTOSTOP.get(said, said)}


def _image(image: str) -> dict[str, str]:
    found = _IMAGE.fullmatch(image)
    parts = found.groupdict() if found else {"repository": image}
    shown = {"registry": "registry-1.docker.io", "tag": "latest"}
    return shown | {name: part for name, part in parts.items() if part}


def volume_view(world: World, volume: Volume, holder: Machine | None) -> dict[str, Any]:
    """
    A C{Volume}.

    @param holder: the machine that it is bound to.
    """
    blocks = volume.size_gb * GB // BLOCK
    return {
        "id": volume.id,
        "name": volume.name,
        "state": volume.state,
        "size_gb": volume.size_gb,
        "region": volume.region,
        "zone": f"{volume.region}-{volume.host}",
        "encrypted": volume.encrypted,
        "attached_machine_id": holder.id if holder is not None else None,
        "attached_alloc_id": None,
        "created_at": rfc3339(volume.created_at),
        "fstype": volume.fstype,
        "block_size": BLOCK,
        "blocks": blocks,
        "blocks_avail": blocks,
        "blocks_free": blocks,
        "bytes_total": volume.size_gb * GB,
        "bytes_used": 0,
        "snapshot_retention": volume.snapshot_retention,
        "auto_backup_enabled": volume.auto_backup_enabled,
        "host_status": "unreachable" if volume.unreachable else "ok",
    }


def volume_views(world: World, volumes: list[Volume]) -> list[dict[str, Any]]:
    """Many at once."""
    holders = {
        machine.volume: machine
        for machine in world.machines.values()
        if machine.volume and machine.state != "destroyed"
    }
    return [volume_view(world, volume, holders.get(volume.id)) for volume in volumes]


def app_view(world: World, app: App) -> dict[str, Any]:
    """An C{App}."""
    return {
        "id": app.id,
        "name": app.name,
        "network": app.network,
        "machine_count": sum(1 for _ in world.machines_of(app)),
        "volume_count": sum(1 for _ in world.volumes_of(app)),
        "status": "deployed",
        "organization": {"name": app.org, "slug": app.org},
    }
