"""Snapshots of volumes: copies of their directories, made one at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.interfaces import IDelayedCall

from matrix.testing.fly.call import Action, Call
from matrix.testing.fly.records import Volume
from matrix.testing.fly.refusals import Refusal, refuse
from matrix.testing.fly.views import GB
from matrix.testing.fly.volumes import copy
from matrix.testing.fly.world import World, rfc3339

UNFINISHED = frozenset({"pending", "running"})


class Snapshots:
    """What can be done with them."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._timers: dict[str, IDelayedCall] = {}

    def actions(self) -> Sequence[Action]:
        """The table."""
        path = "/apps/<app>/volumes/<volume>/snapshots"
        return (
            Action("snapshots.list", "GET", path, self.listed, answer="[VolumeSnapshot]"),
            Action("snapshots.create", "POST", path, self.create),
        )

    def load(self) -> None:
        """Go on with those that an earlier emulator had begun."""
        for volume in self._world.volumes.values():
            for snapshot in volume.snapshots:
                if snapshot["status"] in UNFINISHED:
                    self._arm(volume, snapshot)

    def close(self) -> None:
        """Let nothing more happen."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def listed(self, call: Call) -> list[dict[str, Any]]:
        """Those of a volume, be it deleted, the latest first."""
        volume = self._world.volume(call)
        return [_view(volume, snapshot) for snapshot in volume.snapshots]

    def create(self, call: Call) -> dict[str, Any]:
        """One more, which is to be found by listing."""
        volume = self._world.volume(call)
        if volume.is_gone:
            raise refuse("volume-not-found")
        now = self._world.now()
        if any(snapshot["status"] in UNFINISHED for snapshot in volume.snapshots):
            text = f"failed_precondition: snapshot is already scheduled at {rfc3339(now)}"
            raise Refusal(412, text)
        snapshot_id = "vs_" + self._world.new_id("snapshot", 16)
        snapshot = {"id": snapshot_id, "created_at": now, "status": "pending", "size": 0}
        volume.snapshots.insert(0, snapshot)
        self._world.changed_volume(volume)
        self._arm(volume, snapshot)
        backup = {"id": snapshot_id, "state": "prepare", "graph_id": snapshot_id}
        return {"Msg": {"backup": backup}}

    def _arm(self, volume: Volume, snapshot: dict[str, Any]) -> None:
        delay = self._world.takes("snapshot", volume.id)
        call = self._world.clock.callLater(delay, self._advance, volume, snapshot)
        self._timers[snapshot["id"]] = call

    def _advance(self, volume: Volume, snapshot: dict[str, Any]) -> None:
        del self._timers[snapshot["id"]]
        store = self._world.store
        if snapshot["status"] == "pending":
            snapshot["status"] = "running"
            self._arm(volume, snapshot)
        else:
            target = store.snapshot(volume.id, snapshot["id"])
            copy(store.volume(volume.id), target)
            files = [path for path in target.rglob("*") if path.is_file()]
            snapshot["size"] = sum(path.lstat().st_size for path in files)
            snapshot["status"] = "created"
        self._world.changed_volume(volume)


def _view(volume: Volume, snapshot: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": snapshot["id"],
        "size": snapshot["size"],
        "volume_size": volume.size_gb * GB,
        "digest": f"sha256:{snapshot['id']}",
        "created_at": rfc3339(snapshot["created_at"]),
        "status": snapshot["status"],
        "retention_days": volume.snapshot_retention,
    }
