"""Volumes: directories of this host, bound to one machine at most, pinned to a host of Fly's."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.internet.interfaces import IDelayedCall

from matrix.testing.fly.call import Action, Call
from matrix.testing.fly.records import App, Volume
from matrix.testing.fly.refusals import Refusal, invalid, refuse
from matrix.testing.fly.views import volume_view, volume_views
from matrix.testing.fly.world import REGIONS, World

SIZE_DEFAULT, SIZE_MAX = 3, 500
"""GB."""

RETENTION = range(1, 61)
"""Days."""

_NAME = re.compile(r"[a-z0-9_]{1,30}")


class Volumes:
    """What can be done with volumes."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._timers: dict[str, IDelayedCall] = {}

    def actions(self) -> Sequence[Action]:
        """The table."""
        one = "/apps/<app>/volumes/<volume>"
        return (
            Action("volumes.list", "GET", "/apps/<app>/volumes", self.listed, answer="[Volume]"),
            Action("volumes.create", "POST", "/apps/<app>/volumes", self.create,
                   body="CreateVolumeRequest", answer="Volume"),
            Action("volumes.get", "GET", one, self.get, answer="Volume"),
            Action("volumes.update", "PUT", one, self.update,
                   body="UpdateVolumeRequest", answer="Volume"),
            Action("volumes.delete", "DELETE", one, self.delete, answer="Volume"),
            Action("volumes.extend", "PUT", f"{one}/extend", self.extend,
                   body="ExtendVolumeRequest", answer="ExtendVolumeResponse"),
        )  # fmt: skip

    def load(self) -> None:
        """Go on with what an earlier emulator left."""
        for volume in list(self._world.volumes.values()):
            if volume.step is not None:
                self._arm(volume)

    def close(self) -> None:
        """Let nothing more happen."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def listed(self, call: Call) -> list[dict[str, Any]]:
        """An app's volumes, those that were deleted a short while ago included."""
        app = self._world.app(call)
        volumes = [one for one in self._world.volumes.values() if one.app == app.name]
        return volume_views(self._world, volumes)

    def get(self, call: Call) -> dict[str, Any]:
        """One volume."""
        return self._view(self._world.volume(call))

    def create(self, call: Call) -> dict[str, Any]:
        """An empty one, one from a snapshot, or a fork."""
        app, body = self._world.app(call), call.body
        name, region = body.get("name"), body.get("region")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise Refusal(
                422,
                "Validation failed: Name may only contain numbers, lowercase letters and "
                "underscores, and is at most 30 characters long",
            )
        if region not in REGIONS:
            raise invalid(f"region {region!r} is unknown: a volume needs one of its own")
        _check_retention(body)
        origin, source = self._origin(app, body)
        size = body.get("size_gb") or (source.size_gb if source else SIZE_DEFAULT)
        if not 1 <= size <= SIZE_MAX or (source is not None and size < source.size_gb):
            raise invalid(f"size_gb is {size}: out of range")
        volume = self._new(app, name, region, size, source if not body.get("snapshot_id") else None)
        volume.origin = origin
        volume.encrypted = body.get("encrypted", True)
        volume.fstype = body.get("fstype") or "ext4"
        self._settle(volume, body)
        self._begin(volume, "creating", "made", self._world.takes("volume", volume.id))
        return self._view(volume)

    def _origin(self, app: App, body: dict[str, Any]) -> tuple[str, Volume | None]:
        """What a new volume's data come from, as the path of a directory, and its volume."""
        volumes, store = self._world.volumes, self._world.store
        if body.get("source_volume_id"):
            source = volumes.get(body["source_volume_id"])
            if source is None or source.app != app.name or source.is_gone:
                raise refuse("volume-not-found")
            if source.unreachable:
                raise refuse("unavailable")
            return str(store.volume(source.id)), source
        if body.get("snapshot_id"):
            for source in volumes.values():
                for snapshot in source.snapshots:
                    if snapshot["id"] == body["snapshot_id"] and source.app == app.name:
                        if snapshot["status"] != "created":
                            raise Refusal(412, "failed_precondition: snapshot is not ready")
                        return str(store.snapshot(source.id, snapshot["id"])), source
            raise Refusal(404, "snapshot not found")
        return "", None

    def _new(self, app: App, name: str, region: str, size: int, fork_of: Volume | None) -> Volume:
        world = self._world
        volume_id = "vol_" + world.new_id("volume", 16)
        host = world.place(volume_id, fork_of.host if fork_of is not None else None)
        now = world.now()
        volume = Volume(volume_id, app.name, name, region, host, size, now, now)
        world.volumes[volume_id] = volume
        world.store.volume(volume_id).mkdir(parents=True, exist_ok=True)
        return volume

    def update(self, call: Call) -> dict[str, Any]:
        """What becomes of its snapshots."""
        volume = self._world.volume(call)
        _check_retention(call.body)
        self._settle(volume, call.body)
        self._world.changed_volume(volume)
        return self._view(volume)

    def extend(self, call: Call) -> dict[str, Any]:
        """It only grows."""
        volume, size = self._world.volume(call), call.body.get("size_gb")
        if volume.is_gone:
            raise refuse("volume-not-found")
        if volume.origin or volume.state == "restoring":
            raise Refusal(412, f"failed_precondition: volume {volume.id} is {volume.state}")
        if size is None or not volume.size_gb < size <= SIZE_MAX:
            raise invalid(f"size_gb is {size}: a volume of {volume.size_gb} GB can only grow")
        volume.size_gb = size
        self._begin(volume, "extending", "ready", self._world.takes("volume", volume.id))
        holder = self._world.holder(volume.id)
        return {"volume": self._view(volume), "needs_restart": holder is not None}

    def delete(self, call: Call) -> dict[str, Any]:
        """It is shown for a while longer."""
        volume = self._world.volume(call)
        holder = self._world.holder(volume.id)
        if holder is not None:
            text = f"failed_precondition: volume is currently bound to machine: {holder.id}"
            raise Refusal(412, text)
        self.remove(volume)
        return self._view(volume)

    def remove(self, volume: Volume) -> None:
        """Whatever is bound to it."""
        if not volume.is_gone:
            volume.gone_at = self._world.now()
            self._begin(
                volume, "scheduling_destroy", "doomed", self._world.takes("volume", volume.id)
            )

    def replaced(self, volume: Volume) -> Volume:
        """Its host was given up: the same data on another host, as another volume."""
        world = self._world
        new = self._new(world.apps[volume.app], volume.name, volume.region, volume.size_gb, volume)
        for name in ("encrypted", "snapshot_retention", "auto_backup_enabled", "fstype"):
            setattr(new, name, getattr(volume, name))
        copy(world.store.volume(volume.id), world.store.volume(new.id))
        new.state = "created"
        world.changed_volume(new)
        self.remove(volume)
        return new

    def _settle(self, volume: Volume, body: dict[str, Any]) -> None:
        for name in ("snapshot_retention", "auto_backup_enabled"):
            if body.get(name) is not None:
                setattr(volume, name, body[name])

    def _view(self, volume: Volume) -> dict[str, Any]:
        return volume_view(self._world, volume, self._world.holder(volume.id))

    def _begin(self, volume: Volume, state: str, step: str, delay: float) -> None:
        volume.state, volume.step = state, step
        volume.due = self._world.now() + delay
        self._world.changed_volume(volume)
        self._arm(volume)

    def _arm(self, volume: Volume) -> None:
        timer = self._timers.pop(volume.id, None)
        if timer is not None:
            timer.cancel()
        delay = max(0.0, volume.due - self._world.now())
        self._timers[volume.id] = self._world.clock.callLater(delay, self._take, volume)

    def _take(self, volume: Volume) -> None:
        self._timers.pop(volume.id)
        step, volume.step = volume.step, None
        if step == "made" and _is_fork(volume):
            export = self._world.takes("volume", volume.id)
            self._begin(volume, "enabling_remote_export", "exported", export)
        elif step in ("made", "exported") and volume.origin:
            self._fill(volume)
        elif step == "doomed":
            shown = self._world.takes("volume_shown", volume.id)
            self._begin(volume, "pending_destroy", "over", shown)
        elif step == "over":
            del self._world.volumes[volume.id]
            self._world.store.forget(volume)
            self._world.store.drop(self._world.store.volume(volume.id).parent)
        else:
            volume.state = "created"
            self._world.changed_volume(volume)

    def _fill(self, volume: Volume) -> None:
        """The data of a new volume arrive."""
        fork = _is_fork(volume)
        copy(Path(volume.origin), self._world.store.volume(volume.id))
        timing = "hydrate" if fork else "restore"
        state = "hydrating" if fork else "restoring"
        volume.origin = ""
        self._begin(volume, state, "ready", self._world.takes(timing, volume.id))


def _is_fork(volume: Volume) -> bool:
    """Whether its data come from another volume, and not from a snapshot of one."""
    return Path(volume.origin).name == "data"


def copy(source: Path, target: Path) -> None:
    """A directory as it is now. Blocks: tests' volumes are small."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, symlinks=True, ignore=_special, copy_function=_copy_file)


def _copy_file(source: str, target: str) -> None:
    try:
        shutil.copy2(source, target, follow_symlinks=False)
    except FileNotFoundError:
        return  # its machine runs, and has just removed it


def _special(directory: str, names: list[str]) -> list[str]:
    """Sockets and pipes cannot be copied, and are of no use to who gets them."""
    paths = [Path(directory, name) for name in names]
    return [path.name for path in paths if path.is_socket() or path.is_fifo()]


def _check_retention(body: dict[str, Any]) -> None:
    days = body.get("snapshot_retention")
    if days is not None and days not in RETENTION:
        raise invalid(f"snapshot_retention is {days}: it is from 1 to 60 days")
