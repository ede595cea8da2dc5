"""Machines as records: making, reading, changing and destroying them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matrix.machines._fly_rates import READING
from matrix.testing.fly.call import Action, Call
from matrix.testing.fly.leases import Leases
from matrix.testing.fly.lifecycle import Lifecycle
from matrix.testing.fly.records import DEFAULT_PORT, App, Machine
from matrix.testing.fly.refusals import NOBODY, Refusal, invalid, not_found, refuse
from matrix.testing.fly.states import GONE, SETTLED
from matrix.testing.fly.views import machine_view
from matrix.testing.fly.world import REGIONS, World

USABLE = frozenset({"creating", "created", "hydrating", "extending"})
"""States of a volume in which a machine may have it."""

_MEMORY = {"shared": (256, 2048), "performance": (2048, 8192)}
"""MB for each CPU."""


class Machines:
    """What can be done with them, but for starting and stopping."""

    def __init__(self, world: World, lifecycle: Lifecycle, leases: Leases) -> None:
        self._world = world
        self._lifecycle = lifecycle
        self._leases = leases

    def actions(self) -> Sequence[Action]:
        """The table."""
        all_, one = "/apps/<app>/machines", "/apps/<app>/machines/<machine>"
        return (
            Action("machines.list", "GET", all_, self.listed, answer="[Machine]"),
            Action("machines.create", "POST", all_, self.create,
                   body="CreateMachineRequest", answer="Machine"),
            Action("machines.get", "GET", one, self.get, answer="Machine", rate=READING),
            Action("machines.update", "POST", one, self.update,
                   body="UpdateMachineRequest", answer="Machine"),
            Action("machines.destroy", "DELETE", one, self.destroy),
            Action("machines.events", "GET", f"{one}/events", self.events,
                   answer="[MachineEvent]"),
            Action("machines.versions", "GET", f"{one}/versions", self.versions,
                   answer="[MachineVersion]"),
        )  # fmt: skip

    def listed(self, call: Call) -> list[dict[str, Any]]:
        """An app's machines, filtered."""
        world, app = self._world, self._world.app(call)
        chosen = chooser(call)
        hide = world.tuning.switches.late_in_lists == "yes"
        return [
            machine_view(world, machine, call.flag("summary"))
            for machine in list(world.machines.values())
            if machine.app == app.name
            and chosen(machine)
            and not (hide and machine.visible_at > world.now())
        ]

    def get(self, call: Call) -> dict[str, Any]:
        """One machine, once it can be seen."""
        return machine_view(self._world, seen(self._world, call))

    def create(self, call: Call) -> dict[str, Any]:
        """A new one, which is launched unless told otherwise."""
        world, app, body = self._world, self._world.app(call), call.body
        region = body.get("region") or REGIONS[0]
        if region not in REGIONS:
            raise invalid(f"region {region!r} is unknown")
        config = body.get("config") or {}
        _check_config(config)
        name = body.get("name")
        for other in world.machines_of(app):
            if name is not None and other.name == name:
                text = "already_exists: unique machine name violation, machine ID "
                raise Refusal(409, f'{text}{other.id} already exists with name "{name}"')
        host = self._host(app, region, config)
        self._check_room(region, _volume(config))
        machine = self._made(app, name, region, host, config)
        machine.launch = not body.get("skip_launch", False)
        world.machines[machine.id] = machine
        self._lifecycle.create(machine)
        if body.get("lease_ttl"):
            self._leases.grant(machine, body["lease_ttl"], "")
        return machine_view(world, machine)

    def _check_room(self, region: str, volume_id: str | None) -> None:
        room = self._world.capacity.get(region)
        if room is None:
            return
        there = [one for one in self._world.machines.values() if one.region == region]
        if sum(1 for one in there if not one.gone_at) >= room:
            name = "region-full" if volume_id is None else "volume-host-full"
            raise refuse(name, volume=volume_id or "")

    def _made(
        self, app: App, name: str | None, region: str, host: int | None, config: dict[str, Any]
    ) -> Machine:
        world, now = self._world, self._world.now()
        machine_id, version = world.new_id("machine"), world.new_ulid()
        machine = Machine(
            machine_id,
            app.name,
            name or f"machine-{machine_id[:8]}",
            region,
            world.place(machine_id) if host is None else host,
            "",
            config,
            version,
            created_at=now,
            updated_at=now,
            visible_at=now + world.takes("unseen", machine_id),
        )
        machine.private_ip = world.new_address(machine.port or DEFAULT_PORT)
        machine.versions = [{"version": version, "user_config": config}]
        return machine

    def _host(self, app: App, region: str, config: dict[str, Any]) -> int | None:
        """That of its volume, which must be there and free; C{None} if it has none."""
        volume_id = _volume(config)
        if volume_id is None:
            return None
        world = self._world
        volume = world.volumes.get(volume_id)
        if volume is None or volume.app != app.name or volume.is_gone:
            raise refuse("volume-not-found")
        if volume.region != region:
            raise invalid(f"volume {volume.id} is in {volume.region}, not in {region}")
        holder = world.holder(volume.id)
        if holder is not None:
            shown = NOBODY if holder.state == "destroying" else holder.id
            raise Refusal(412, f"failed_precondition: volume already claimed by machine {shown}")
        if volume.state not in USABLE or volume.origin:
            raise Refusal(412, f"failed_precondition: volume {volume.id} is {volume.state}")
        if volume.unreachable:
            raise refuse("volume-host-full", volume=volume.id)
        return volume.host

    def update(self, call: Call) -> dict[str, Any]:
        """A new version from a whole config, which replaces the old one."""
        world, body = self._world, call.body
        machine = seen(world, call)
        self._leases.check(machine, call.nonce)
        reachable(machine)
        current = body.get("current_version")
        if current is not None and current != machine.instance_id:
            text = f"aborted: current version is {machine.instance_id}, not {current}"
            raise Refusal(409, text)
        if "config" not in body:
            raise invalid("config is missing: an update needs the whole of it")
        _check_config(body["config"])
        for name in ("region", "name"):
            if body.get(name) not in (None, getattr(machine, name)):
                raise invalid(f"the {name} of a machine cannot be changed")
        if _volume(body["config"]) != machine.volume:
            raise invalid("the volume of a machine cannot be changed")
        if machine.state not in SETTLED or machine.step is not None:
            raise refuse("concurrent-update")
        if machine.state == "destroyed":
            raise not_found("machine")
        self._lifecycle.update(machine, body["config"], not body.get("skip_launch", False))
        return machine_view(world, machine)

    def destroy(self, call: Call) -> dict[str, Any]:
        """At once answered, later done."""
        machine = self._world.machine(call)
        self._leases.check(machine, call.nonce)
        if machine.state in GONE:
            return {"ok": True}
        force = call.flag("force") or call.flag("kill")
        if not force and machine.state not in ("stopped", "suspended", "failed", "created"):
            text = "failed_precondition: unable to destroy machine, not currently stopped"
            raise Refusal(412, text)
        self._lifecycle.destroy(machine)
        return {"ok": True}

    def events(self, call: Call) -> list[dict[str, Any]]:
        """What happened to it, the latest first."""
        limit = call.number("limit") or 20
        return seen(self._world, call).events[: max(1, min(limit, 50))]

    def versions(self, call: Call) -> list[dict[str, Any]]:
        """Its configs, the latest first."""
        return seen(self._world, call).versions


def seen(world: World, call: Call) -> Machine:
    """
    The machine that a call reads.

    @raise Refusal: there is none, or it was made a moment ago and is not known everywhere.
    """
    machine = world.machine(call)
    if machine.visible_at > world.now():
        raise not_found("machine")
    return machine


def reachable(machine: Machine) -> None:
    """@raise Refusal: the machine's host is down."""
    if machine.unreachable:
        raise Refusal(408, "deadline_exceeded: the machine's host could not be reached")


def chooser(call: Call) -> Any:
    """Whether a machine is one of those that a listing asks for."""
    region, states = call.text("region"), call.choices("state")
    deleted = call.flag("include_deleted")
    metadata = {
        name.removeprefix("metadata."): values[-1]
        for name, values in call.query.items()
        if name.startswith("metadata.")
    }

    def chosen(machine: Machine) -> bool:
        known = machine.config.get("metadata") or {}
        return (
            (deleted or machine.state != "destroyed")
            and region in (None, machine.region)
            and (not states or machine.state in states)
            and all(known.get(name) == value for name, value in metadata.items())
        )

    return chosen


def _volume(config: dict[str, Any]) -> str | None:
    mounts = config.get("mounts") or []
    return mounts[0].get("volume") if mounts else None


def _check_config(config: dict[str, Any]) -> None:
    """@raise Refusal: no machine can be made of it, though it is well-formed."""
    if not config.get("image"):
        raise invalid("config.image is missing")
    mounts = config.get("mounts") or []
    if len(mounts) > 1:
        raise invalid("a machine has one mount")
    if mounts and not (mounts[0].get("volume") and mounts[0].get("path")):
        raise invalid("config.mounts[0] needs a volume and a path")
    guest = config.get("guest")
    if guest is not None:
        kind, cpus = guest.get("cpu_kind") or "shared", guest.get("cpus") or 1
        if kind not in _MEMORY:
            raise invalid(f"config.guest.cpu_kind {kind!r} is unknown")
        least, most = (limit * cpus for limit in _MEMORY[kind])
        memory = guest.get("memory_mb") or least
        if memory % 256 or not least <= memory <= most:
            raise invalid(
                f"config.guest.memory_mb is {memory}: {cpus} {kind} CPUs have {least} to {most}, "
                "in steps of 256"
            )
