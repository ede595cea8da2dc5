"""How a machine goes from state to state, its program with it.

Each state that ends by itself has a step, which is kept with the time it is due: an emulator
that was killed in between takes it when it runs again.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from matrix.testing.fly.call import seconds
from matrix.testing.fly.programs import Boot, IPrograms, NotStarted
from matrix.testing.fly.records import Machine
from matrix.testing.fly.states import check_change
from matrix.testing.fly.world import World

RETRIES = 10
"""As often as Fly restarts a machine that names no other number."""

GRACE = 5.0
"""Seconds from the signal to SIGKILL, of a machine that names no other number."""

PATH = "/usr/local/bin:/usr/bin:/bin"

Step = Callable[[Machine, object], Coroutine[Any, Any, None]]


class Lifecycle:
    """
    Changes states. Whether something may be asked for is for L{matrix.testing.fly.power} to
    say: this does it.
    """

    _log = Logger()

    def __init__(self, world: World, programs: IPrograms) -> None:
        self._world = world
        self._programs = programs
        self._timers: dict[str, IDelayedCall] = {}
        self._turns: dict[str, object] = {}
        """Of each machine, what the step that is under way got: with another one there, a
        later request has overtaken it."""
        self._steps: Mapping[str, Step] = {
            "prepare": self._prepare,
            "boot": self._boot,
            "resume": self._resume,
            "suspend": self._suspend,
            "stop": self._stop,
            "restart": self._restart,
            "replace": self._replace,
            "destroy": self._destroy,
        }
        self._closed = False
        programs.on_death(self._died)

    def load(self) -> None:
        """Go on with what an earlier emulator left."""
        for machine in list(self._world.machines.values()):
            alive = self._programs.adopt(machine.id, self._world.store.machine(machine.id))
            if machine.step == "boot" and alive and not self._programs.stands(machine.id):
                self._started(machine)  # it was, and only that was not written down
            elif machine.step is not None:
                if machine.state == "suspending":
                    self._programs.send(machine.id, signal.SIGSTOP)
                self._arm(machine)
            elif machine.state == "started":
                if not alive:
                    self._died(machine.id)
            elif machine.state == "suspended" and alive:
                self._programs.send(machine.id, signal.SIGSTOP)
            elif machine.state == "suspended":
                self.lose_memory(machine)
            elif alive:
                self._forget(self._programs.end(machine.id, signal.SIGKILL, 0.0))

    def close(self) -> None:
        """Take no further step."""
        self._closed = True
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._turns.clear()

    def create(self, machine: Machine) -> None:
        """A machine's life begins."""
        self._world.note(machine, "launch", "created", "user")
        self._begin(machine, "prepare", "pull")
        self._world.store.save(machine)

    def start(self, machine: Machine, source: str = "user") -> None:
        """Resume a suspended machine, boot any other."""
        interrupts = machine.state == "suspending"
        machine.restarts = 0
        machine.request = {"interrupts": interrupts}
        if self._happens("snapshot_loss", machine):
            machine.memory = False
        if machine.memory or interrupts:
            self._enter(
                machine, "starting", event="start", source=source, step="resume", after="resume"
            )
        else:
            self._cold_start(machine, source)

    def stop(self, machine: Machine, number: int | None, grace: float | None) -> None:
        """
        @param number: the signal; the config's if C{None}, as is the grace.
        """
        machine.request = {"signal": number, "grace": grace}
        machine.memory = False
        self._enter(machine, "stopping", event="stop", source="user", step="stop", after="stop")

    def suspend(self, machine: Machine) -> None:
        """It stands still at once; its memory is kept when that was written."""
        self._enter(
            machine, "suspending", event="suspend", source="user", step="suspend", after="suspend"
        )
        self._programs.send(machine.id, signal.SIGSTOP)

    def restart(self, machine: Machine, number: int | None, grace: float | None) -> None:
        """Stop and boot."""
        machine.request = {"signal": number, "grace": grace}
        self._enter(
            machine, "restarting", event="restart", source="user", step="restart", after="stop"
        )

    def update(self, machine: Machine, config: dict[str, Any], launch: bool) -> None:
        """A new version. A machine that was stopped or suspended is stopped afterwards."""
        before = machine.state
        machine.config = config
        machine.instance_id = self._world.new_ulid()
        machine.versions.insert(0, {"version": machine.instance_id, "user_config": config})
        machine.memory = False
        runs = before in ("started", "created") and launch
        then = "starting" if runs else "created" if before == "created" else "stopped"
        machine.request = {"then": then}
        state = "updating" if before in ("started", "created") else "replacing"
        self._enter(machine, state, event="update", source="user", step="replace", after="replace")

    def destroy(self, machine: Machine, source: str = "user") -> None:
        """Whatever it does."""
        self._enter(
            machine, "destroying", event="destroy", source=source, step="destroy", after="destroy"
        )

    def lose_memory(self, machine: Machine) -> None:
        """What it had in memory is gone, which its state does not show."""
        machine.memory = False
        self._world.store.save(machine)

    def come_back(self, machine: Machine) -> None:
        """Its host was away, and is back: what was to happen goes on, and what ran is booted."""
        if machine.step is not None:
            self._arm(machine)
        elif machine.state == "started":
            self._enter(machine, "restarting", event="restart", source="flyd", step="restart")

    def kill(self, machine: Machine) -> None:
        """End its processes as if the host's kernel had."""
        self._programs.send(machine.id, signal.SIGKILL)

    def boot_of(self, machine: Machine) -> Boot:
        """What its program is started with."""
        store, volume = self._world.store, machine.volume
        place = store.machine(machine.id)
        data = store.volume(volume) if volume else place / "root"
        environment = {"PATH": PATH, "LANG": "C.UTF-8", "HOME": str(data)}
        guest = machine.config.get("guest") or {}
        environment |= {
            "FLY_APP_NAME": machine.app,
            "FLY_IMAGE_REF": machine.config["image"],
            "FLY_MACHINE_ID": machine.id,
            "FLY_MACHINE_VERSION": machine.instance_id,
            "FLY_PRIVATE_IP": machine.private_ip,
            "FLY_PROCESS_GROUP": "app",
            "FLY_REGION": machine.region,
            "FLY_VM_MEMORY_MB": str(guest.get("memory_mb", 256)),
            **(machine.config.get("env") or {}),
        }
        return Boot(machine.id, place, data, machine.private_ip, machine.port, environment)

    async def _prepare(self, machine: Machine, turn: object) -> None:
        machine.prepared, machine.step = True, None
        if machine.launch:
            self._cold_start(machine, "flyd")
        else:
            self._world.changed(machine)

    async def _boot(self, machine: Machine, turn: object) -> None:
        if machine.volume is None:
            # The root file system does not outlive a stop.
            self._world.store.drop(self.boot_of(machine).data)
        if self._happens("failed_start", machine):
            self._enter(machine, "failed", event="exit", source="flyd")
            return
        try:
            await self._programs.boot(self.boot_of(machine))
        except NotStarted as error:
            if self._is_turn(machine, turn):
                self._log.error("machine {id} did not start: {why}", id=machine.id, why=error)
                self._enter(machine, "failed", event="exit", source="flyd")
            return
        if self._is_turn(machine, turn):
            self._started(machine)
        elif machine.state in ("destroying", "destroyed"):
            await self._programs.end(machine.id, signal.SIGKILL, 0.0)

    async def _resume(self, machine: Machine, turn: object) -> None:
        kept = machine.memory or machine.request.get("interrupts")
        if kept and self._programs.running(machine.id):
            self._programs.send(machine.id, signal.SIGCONT)
            self._started(machine)
        else:
            await self._boot(machine, turn)

    async def _suspend(self, machine: Machine, turn: object) -> None:
        machine.memory = self._programs.running(machine.id)
        self._enter(machine, "suspended", event="suspend", source="flyd")

    async def _stop(self, machine: Machine, turn: object) -> None:
        await self._end(machine)
        if self._is_turn(machine, turn):
            machine.active_until = self._world.now() + self._takes("still_active", machine)
            self._enter(
                machine, "stopped", event="exit", source="flyd", exit_event=_exit(requested=True)
            )

    async def _restart(self, machine: Machine, turn: object) -> None:
        await self._end(machine)
        if self._is_turn(machine, turn):
            self._cold_start(machine, "flyd")

    async def _replace(self, machine: Machine, turn: object) -> None:
        then = machine.request.get("then", "stopped")
        await self._end(machine)
        if self._is_turn(machine, turn):
            if then == "starting":
                self._cold_start(machine, "flyd")
            else:
                self._enter(machine, then, event="update", source="flyd")

    async def _destroy(self, machine: Machine, turn: object) -> None:
        await self._programs.end(machine.id, signal.SIGKILL, 0.0)
        machine.gone_at = self._world.now()
        machine.lease = None
        self._enter(machine, "destroyed", event="destroy", source="flyd")
        self._world.store.drop(self._world.store.machine(machine.id))

    async def _end(self, machine: Machine) -> None:
        """Stop its program as its config, or the request, says."""
        config = machine.config.get("stop_config") or {}
        default = self._world.tuning.switches.default_signal
        number = machine.request.get("signal")
        if number is None:
            number = getattr(signal, config.get("signal") or default)
        grace = machine.request.get("grace")
        if grace is None:
            grace = seconds(config.get("timeout"), GRACE)
        machine.request = {}
        await self._programs.end(machine.id, number, grace)

    def _cold_start(self, machine: Machine, source: str) -> None:
        self._enter(machine, "starting", event="start", source=source, step="boot", after="start")

    def _started(self, machine: Machine) -> None:
        machine.memory = False
        self._enter(machine, "started", event="start", source="flyd")
        if not self._programs.running(machine.id):
            self._died(machine.id)

    def _died(self, machine_id: str) -> None:
        """A program ended, and nobody had asked for it."""
        machine = self._world.machines.get(machine_id)
        if machine is None or self._closed:
            return
        if machine.state == "suspended":
            self.lose_memory(machine)
        if machine.state != "started" or machine.unreachable:
            return
        restart = machine.config.get("restart") or {}
        policy = restart.get("policy") or "on-failure"
        again = policy in ("always", "on-failure")
        if policy == "on-failure" and machine.restarts >= restart.get("max_retries", RETRIES):
            again = False
        if again:
            machine.restarts += 1
            self._enter(
                machine,
                "restarting",
                event="exit",
                source="flyd",
                exit_event=_exit(restarting=True),
                step="restart",
            )
        elif machine.config.get("auto_destroy"):
            self.destroy(machine, "flyd")
        else:
            self._enter(
                machine, "stopping", event="exit", source="flyd", step="stop", exit_event=_exit()
            )

    def _enter(
        self,
        machine: Machine,
        state: str,
        *,
        event: str,
        source: str,
        step: str | None = None,
        after: str | None = None,
        **more: Any,
    ) -> None:
        """
        Change the state, kept together with the step that ends it.

        @param after: the timing that the step waits for; it is taken at once if C{None}.
        """
        check_change(machine.state, state)
        self._calm(machine)
        machine.state, machine.step = state, None
        if step is not None:
            self._begin(machine, step, after)
        self._world.note(machine, event, state, source, **more)
        self._world.changed(machine)

    def _begin(self, machine: Machine, step: str, after: str | None) -> None:
        """Take a step after a while."""
        delay = 0.0 if after is None else self._takes(after, machine)
        machine.step, machine.due = step, self._world.now() + delay
        self._arm(machine)

    def _calm(self, machine: Machine) -> None:
        """Nothing that was to happen will."""
        self._turns.pop(machine.id, None)
        timer = self._timers.pop(machine.id, None)
        if timer is not None:
            timer.cancel()

    def _arm(self, machine: Machine) -> None:
        self._calm(machine)
        delay = max(0.0, machine.due - self._world.now())
        self._timers[machine.id] = self._world.clock.callLater(delay, self._take, machine)

    def _take(self, machine: Machine) -> None:
        self._timers.pop(machine.id)
        if machine.unreachable and machine.step != "destroy":
            return  # until its host is back
        turn = self._turns[machine.id] = object()
        self._forget(self._steps[str(machine.step)](machine, turn))

    def _is_turn(self, machine: Machine, turn: object) -> bool:
        return self._turns.get(machine.id) is turn

    def _happens(self, chance: str, machine: Machine) -> bool:
        odds = getattr(self._world.tuning.chances, chance)
        return self._world.happens(odds, chance, machine.id)

    def _takes(self, timing: str, machine: Machine) -> float:
        return self._world.takes(timing, machine.id)

    def _forget(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something whose end nobody waits for."""
        Deferred.fromCoroutine(work).addErrback(
            lambda failure: self._log.failure("a machine's step failed", failure=failure)
        )


def _exit(requested: bool = False, restarting: bool = False) -> dict[str, Any]:
    return {"requested_stop": requested, "restarting": restarting, "oom_killed": False}
