"""Starting, stopping and suspending machines, and waiting for what comes of it."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred

from matrix.testing.fly.call import Action, Call, seconds
from matrix.testing.fly.leases import Leases
from matrix.testing.fly.lifecycle import Lifecycle
from matrix.testing.fly.machines import reachable, seen
from matrix.testing.fly.migration import Migration
from matrix.testing.fly.programs import IPrograms
from matrix.testing.fly.records import Machine
from matrix.testing.fly.refusals import Refusal, cannot, invalid, refuse
from matrix.testing.fly.states import WAITABLE
from matrix.testing.fly.waits import Wanted
from matrix.testing.fly.world import World

WAIT_SECONDS = range(1, 61)


class Power:
    """What can be done with machines that are there."""

    def __init__(
        self,
        world: World,
        lifecycle: Lifecycle,
        leases: Leases,
        programs: IPrograms,
        migration: Migration,
    ) -> None:
        self._world = world
        self._lifecycle = lifecycle
        self._leases = leases
        self._programs = programs
        self._migration = migration

    def actions(self) -> Sequence[Action]:
        """The table."""
        one = "/apps/<app>/machines/<machine>"
        return (
            Action("machines.start", "POST", f"{one}/start", self.start),
            Action("machines.stop", "POST", f"{one}/stop", self.stop, body="StopRequest"),
            Action("machines.suspend", "POST", f"{one}/suspend", self.suspend),
            Action("machines.restart", "POST", f"{one}/restart", self.restart),
            Action("machines.signal", "POST", f"{one}/signal", self.signal, body="SignalRequest"),
            Action("machines.cordon", "POST", f"{one}/cordon", self.cordon),
            Action("machines.uncordon", "POST", f"{one}/uncordon", self.uncordon),
            Action("machines.wait", "GET", f"{one}/wait", self.wait,
                   answer="WaitMachineResponse"),
        )  # fmt: skip

    def start(self, call: Call) -> dict[str, Any]:
        """From stopped, suspended or failed; and interrupting a suspension."""
        machine = self._mine(call)
        before = machine.state
        if before == "started":
            if self._world.tuning.switches.start_when_started == "conflict":
                raise refuse("already-started")
            return _began(before)
        self._check_start(machine)
        moves = self._migration.may_happen(machine)
        if moves:
            self._migration.migrate(machine)
        self._lifecycle.start(machine)
        return _began(before, f"host-{machine.host}" if moves else "")

    def _check_start(self, machine: Machine) -> None:
        state = machine.state
        if state in ("starting", "restarting"):
            raise refuse("starting")
        if state in ("replacing", "updating"):
            raise refuse("getting-replaced")
        if state == "created" and machine.prepared:
            return
        if state == "suspending":
            if self._world.tuning.switches.start_while_suspending == "accepted":
                return
        elif state in ("stopped", "suspended", "failed"):
            if machine.active_until > self._world.now():
                raise refuse("still-active")
            return
        raise cannot("start", state)

    def stop(self, call: Call) -> dict[str, Any]:
        """Of a suspended machine, its memory goes."""
        machine, body = self._mine(call), call.body or {}
        number = getattr(signal, body["signal"]) if body.get("signal") else None
        grace = seconds(body["timeout"], 0.0) if body.get("timeout") else None
        if machine.state in ("stopped", "stopping"):
            return {"ok": True}
        ready = machine.state != "created" or machine.prepared
        if machine.state not in ("started", "suspended", "failed", "created") or not ready:
            raise cannot("stop", machine.state)
        self._lifecycle.stop(machine, number, grace)
        return {"ok": True}

    def suspend(self, call: Call) -> dict[str, Any]:
        """Answered before it is."""
        machine = self._mine(call)
        if machine.state in ("suspending", "suspended"):
            return {"ok": True}
        if machine.state != "started":
            raise cannot("suspend", machine.state)
        self._check_suspendable(machine)
        self._lifecycle.suspend(machine)
        return {"ok": True}

    def _check_suspendable(self, machine: Machine) -> None:
        config = machine.config
        guest, init = config.get("guest") or {}, config.get("init") or {}
        most = int(self._world.tuning.switches.suspend_memory_max)
        for wrong, why in (
            (guest.get("memory_mb", 256) > most, f"more than {most} MB of memory"),
            (bool(init.get("swap_size_mb")), "swap"),
            (bool(config.get("schedule")), "a schedule"),
            (bool(guest.get("gpu_kind") or guest.get("gpus")), "a GPU"),
        ):
            if wrong:
                text = f"failed_precondition: a machine with {why} cannot be suspended"
                raise Refusal(412, text)

    def restart(self, call: Call) -> dict[str, Any]:
        """Of one that runs."""
        machine = self._mine(call)
        name, timeout = call.text("signal"), call.text("timeout")
        number = getattr(signal, name, None) if name else None
        if name and number is None:
            raise invalid(f"there is no signal {name!r}")
        if call.flag("force_stop"):
            number = signal.SIGKILL
        if machine.state != "started":
            raise cannot("restart", machine.state)
        self._lifecycle.restart(machine, number, seconds(timeout, 0.0) if timeout else None)
        return {"ok": True}

    def signal(self, call: Call) -> dict[str, Any]:
        """To its program."""
        machine = seen(self._world, call)
        reachable(machine)
        if machine.state != "started":
            raise cannot("signal", machine.state)
        if "signal" not in call.body:
            raise invalid("signal is missing")
        self._programs.send(machine.id, getattr(signal, call.body["signal"]))
        return {"ok": True}

    def cordon(self, call: Call) -> dict[str, Any]:
        """Fly's proxy sends it no more requests; nothing here does."""
        return self._cordoned(call, True)

    def uncordon(self, call: Call) -> dict[str, Any]:
        """Undo L{cordon}."""
        return self._cordoned(call, False)

    def _cordoned(self, call: Call, cordoned: bool) -> dict[str, Any]:
        machine = self._mine(call)
        machine.cordoned = cordoned
        self._world.changed(machine)
        return {"ok": True}

    def wait(self, call: Call) -> Deferred[dict[str, Any]]:
        """Until a machine is as wanted, or the time is over."""
        machine = seen(self._world, call)
        switches = self._world.tuning.switches
        states = tuple(call.choices("state")) or ("started",)
        for state in states:
            if state not in WAITABLE:
                known = ", ".join(sorted(WAITABLE))
                raise invalid(f"invalid WaitMachineRequest.State: {state!r} is none of {known}")
        timeout = call.number("timeout")
        timeout = 60 if timeout is None else timeout
        if timeout not in WAIT_SECONDS:
            raise invalid(
                "invalid WaitMachineRequest.Timeout: value must be inside range [1s, 1m0s]"
            )
        version = call.text("version") or call.text("instance_id")
        needed = switches.stopped_wait_needs_version == "yes"
        if needed and "stopped" in states and version is None:
            raise invalid("invalid WaitMachineRequest: instance_id is required for state stopped")
        wanted = Wanted(states, version, call.text("from_event_id") or "")
        return self._world.waits.wait(machine, wanted, timeout, switches.timeout_wording)

    def _mine(self, call: Call) -> Machine:
        """The machine, if its host is there and nobody else holds a lease on it."""
        machine = self._world.machine(call)
        self._leases.guard(machine, call.nonce)
        reachable(machine)
        return machine


def _began(previous: str, new_host: str = "") -> dict[str, Any]:
    return {"previous_state": previous, "migrated": bool(new_host), "new_host": new_host}
