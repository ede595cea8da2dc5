"""A machine's metadata, which change without a new version of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matrix.testing.fly.call import Action, Call
from matrix.testing.fly.machines import seen
from matrix.testing.fly.records import Machine
from matrix.testing.fly.refusals import Refusal, invalid
from matrix.testing.fly.world import World, rfc3339


class Metadata:
    """What can be done with them."""

    def __init__(self, world: World) -> None:
        self._world = world

    def actions(self) -> Sequence[Action]:
        """The table."""
        path = "/apps/<app>/machines/<machine>/metadata"
        change = "updateMetadataRequest"
        return (
            Action("metadata.list", "GET", path, self.listed),
            Action("metadata.replace", "PUT", path, self.replace, 204, change),
            Action("metadata.merge", "PATCH", path, self.merge, 204, change),
            Action("metadata.get", "GET", f"{path}/<key>", self.get,
                   answer="metadataValueResponse"),
            Action("metadata.set", "POST", f"{path}/<key>", self.set, 204,
                   "upsertMetadataKeyRequest"),
            Action("metadata.delete", "DELETE", f"{path}/<key>", self.delete, 204),
        )  # fmt: skip

    def listed(self, call: Call) -> dict[str, str]:
        """All of them."""
        return _of(seen(self._world, call))

    def get(self, call: Call) -> dict[str, str]:
        """One."""
        known = _of(seen(self._world, call))
        if call.path["key"] not in known:
            raise Refusal(404, "metadata key not found")
        return {"value": known[call.path["key"]]}

    def replace(self, call: Call) -> None:
        """These, and no others."""
        self._change(call, {})

    def merge(self, call: Call) -> None:
        """These too."""
        self._change(call, _of(seen(self._world, call)))

    def set(self, call: Call) -> None:
        """One."""
        if "value" not in call.body:
            raise invalid("value is missing")
        machine = seen(self._world, call)
        self._keep(machine, {**_of(machine), call.path["key"]: call.body["value"]})

    def delete(self, call: Call) -> None:
        """One; it may be missing already."""
        machine = seen(self._world, call)
        left = {name: value for name, value in _of(machine).items() if name != call.path["key"]}
        self._keep(machine, left)

    def _change(self, call: Call, kept: dict[str, str]) -> None:
        machine, body = seen(self._world, call), call.body
        if "metadata" not in body:
            raise invalid("metadata is missing")
        for name, known in (
            ("machine_version", machine.instance_id),
            ("updated_at", rfc3339(machine.updated_at)),
        ):
            if body.get(name) not in (None, known):
                raise Refusal(412, f"failed_precondition: {name} is stale, it is {known} now")
        self._keep(machine, kept | body["metadata"])

    def _keep(self, machine: Machine, metadata: dict[str, str]) -> None:
        machine.config = {**machine.config, "metadata": metadata}
        self._world.changed(machine)


def _of(machine: Machine) -> dict[str, str]:
    known: dict[str, Any] = machine.config.get("metadata") or {}
    return dict(known)
