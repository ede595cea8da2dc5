"""Leases: the right of one caller to change a machine, for a while."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matrix.testing.fly.call import Action, Call
from matrix.testing.fly.records import Machine
from matrix.testing.fly.refusals import Refusal, invalid
from matrix.testing.fly.world import World, rfc3339

TTL_DEFAULT = 30
"""Seconds."""

OWNER = "somebody@example.com"


class Leases:
    """What can be done with them."""

    def __init__(self, world: World) -> None:
        self._world = world

    def actions(self) -> Sequence[Action]:
        """The table."""
        path = "/apps/<app>/machines/<machine>/lease"
        return (
            Action("leases.get", "GET", path, self.get, answer="Lease"),
            Action("leases.acquire", "POST", path, self.acquire, 201,
                   "CreateLeaseRequest", "Lease"),
            Action("leases.release", "DELETE", path, self.release),
        )  # fmt: skip

    def current(self, machine: Machine) -> dict[str, Any] | None:
        """The lease that is held on a machine now."""
        lease = machine.lease
        return lease if lease is not None and lease["expires_at"] > self._world.now() else None

    def check(self, machine: Machine, nonce: str | None) -> None:
        """@raise Refusal: another caller has a lease on the machine."""
        lease = self.current(machine)
        if lease is not None and lease["nonce"] != nonce:
            raise Refusal(
                409,
                f"machine ID {machine.id} lease currently held by {lease['owner']}, "
                f"expires at {rfc3339(lease['expires_at'])}",
            )

    def guard(self, machine: Machine, nonce: str | None) -> None:
        """L{check}, of what may or may not ask for a lease."""
        if self._world.tuning.switches.lease_guards_start == "yes":
            self.check(machine, nonce)

    def grant(self, machine: Machine, ttl: int, description: str) -> dict[str, Any]:
        """A new lease, or more time for the old one."""
        lease = self.current(machine)
        machine.lease = {
            "nonce": lease["nonce"] if lease is not None else self._world.new_id("lease", 20),
            "expires_at": int(self._world.now() + ttl),
            "owner": OWNER,
            "description": description,
            "version": machine.instance_id,
        }
        self._world.store.save(machine)
        return machine.lease

    def get(self, call: Call) -> dict[str, Any]:
        """Who has it."""
        lease = self.current(self._world.machine(call))
        if lease is None:
            raise Refusal(404, "lease not found")
        return self._enveloped(lease)

    def acquire(self, call: Call) -> dict[str, Any]:
        """Take it, or keep it longer."""
        machine, body = self._world.machine(call), call.body or {}
        self.check(machine, call.nonce)
        ttl = body.get("ttl") or call.number("ttl") or TTL_DEFAULT
        if ttl < 1:
            raise invalid(f"ttl is {ttl}: at least a second is needed")
        return self._enveloped(self.grant(machine, ttl, body.get("description", "")))

    def release(self, call: Call) -> dict[str, Any]:
        """Give it back."""
        machine = self._world.machine(call)
        self.check(machine, call.nonce)
        if self.current(machine) is None:
            raise Refusal(404, "lease not found")
        machine.lease = None
        self._world.store.save(machine)
        return {"status": "success", "data": {"ok": True}}

    def _enveloped(self, lease: dict[str, Any]) -> dict[str, Any]:
        if self._world.tuning.switches.lease_envelope == "flat":
            return lease
        return {"status": "success", "data": lease}
