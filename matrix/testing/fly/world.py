"""Everything that there is in the emulated Fly, and what all of its parts need."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from twisted.internet.interfaces import IReactorTime

from matrix.testing.fly.addresses import Addresses
from matrix.testing.fly.call import Call
from matrix.testing.fly.chance import Chance, ulid
from matrix.testing.fly.records import EVENTS_MAX, App, Machine, Volume
from matrix.testing.fly.refusals import Refusal, not_found
from matrix.testing.fly.store import Store
from matrix.testing.fly.tuning import Tuning
from matrix.testing.fly.waits import Waits

HOSTS = 4
"""In each region. A volume and its machine are on one; a fork goes to another."""

REMEMBERED = 86400.0
"""Seconds for which a destroyed machine can be listed; Fly keeps them for longer."""

REGIONS = ("ams", "cdg", "fra", "iad", "lhr", "ord", "sin", "sjc", "syd")


class World:
    """The records, kept on disk, and the time, chance and settings they live by."""

    def __init__(
        self,
        clock: IReactorTime,
        now: Callable[[], float],
        store: Store,
        *,
        tuning: Tuning,
        chance: Chance,
        addresses: Addresses,
    ) -> None:
        """
        @param now: the Unix time, seconds.
        """
        self.clock = clock
        self.now = now
        self.store = store
        self.tuning = tuning
        self.chance = chance
        self.waits = Waits(clock)
        self.capacity: dict[str, int] = {}
        """How many machines a region has room for; any number if it is not named."""
        self.error_regions: list[str] = []
        """Those that do not answer when an organization is listed."""
        self._addresses = addresses
        self._events = 0
        self.apps = {app.name: app for app in store.load(App)}
        self.machines = {machine.id: machine for machine in self._remembered()}
        self.volumes = {volume.id: volume for volume in store.load(Volume)}

    def _remembered(self) -> Iterator[Machine]:
        for machine in self.store.load(Machine):
            if machine.gone_at and machine.gone_at + REMEMBERED < self.now():
                self.store.forget(machine)
            else:
                yield machine

    def takes(self, timing: str, *who: str) -> float:
        """How many seconds something is to take this time."""
        span = getattr(self.tuning.timings, timing)
        return float(span.at(self.chance.draw(timing, *who)))

    def happens(self, odds: float, *what: str) -> bool:
        """
        Whether chance has it so.

        @param odds: from 0 to 1.
        """
        return odds > 0 and self.chance.draw(*what) < odds

    def new_id(self, kind: str, digits: int = 14) -> str:
        """An identifier that nothing has or had."""
        return self.chance.identifier(kind, self.store.next_number(), digits)

    def new_ulid(self) -> str:
        """Of a version or an event; sorts after all before."""
        self._events += 1
        return ulid(int(self.now() * 1000), self._events)

    def new_address(self, port: int) -> str:
        """For one more machine."""
        taken = {machine.private_ip for machine in self.machines.values() if not machine.gone_at}
        return self._addresses.give(taken, port)

    def place(self, seed: str, apart_from: int | None = None) -> int:
        """One of a region's hosts."""
        host = int(self.chance.draw("host", seed) * HOSTS)
        return (host + 1) % HOSTS if host == apart_from else host

    def app(self, call: Call) -> App:
        """
        The one that a call is about.

        @raise Refusal: there is none, or it is another organization's.
        """
        app = self.apps.get(call.path["app"])
        if app is None:
            raise not_found("app")
        if app.org != call.org:
            raise Refusal(403, "unauthorized: this app belongs to another organization")
        return app

    def machine(self, call: Call) -> Machine:
        """
        The one that a call is about.

        @raise Refusal: there is none, any more or yet.
        """
        app = self.app(call)
        machine = self.machines.get(call.path["machine"])
        if machine is None or machine.app != app.name or self.is_over(machine):
            raise not_found("machine")
        return machine

    def is_over(self, machine: Machine) -> bool:
        """Whether a machine is no longer even shown as destroyed."""
        shown = self.tuning.timings.destroyed.high
        return machine.gone_at > 0 and self.now() > machine.gone_at + shown

    def volume(self, call: Call) -> Volume:
        """@raise Refusal: the volume that a call is about is not there, or not any more."""
        app = self.app(call)
        volume = self.volumes.get(call.path["volume"])
        if volume is None or volume.app != app.name:
            raise not_found("volume")
        return volume

    def holder(self, volume_id: str) -> Machine | None:
        """The machine that a volume is bound to."""
        return next(
            (
                machine
                for machine in self.machines.values()
                if machine.volume == volume_id and machine.state != "destroyed"
            ),
            None,
        )

    def machines_of(self, app: App) -> Iterator[Machine]:
        """Those that are not destroyed."""
        for machine in self.machines.values():
            if machine.app == app.name and machine.state != "destroyed":
                yield machine

    def volumes_of(self, app: App) -> Iterator[Volume]:
        """Those that were not deleted."""
        for volume in self.volumes.values():
            if volume.app == app.name and not volume.is_gone:
                yield volume

    def note(self, machine: Machine, kind: str, status: str, source: str, **request: Any) -> None:
        """Something happened to a machine."""
        event: dict[str, Any] = {
            "id": self.new_ulid(),
            "type": kind,
            "status": status,
            "source": source,
            "timestamp": int(self.now() * 1000),
        }
        if request:
            event["request"] = request
        machine.events.insert(0, event)
        del machine.events[EVENTS_MAX:]

    def changed(self, machine: Machine) -> None:
        """Keep a machine as it is now, and tell those who wait."""
        machine.updated_at = self.now()
        self.store.save(machine)
        self.waits.changed(machine)

    def changed_volume(self, volume: Volume) -> None:
        """Keep a volume as it is now."""
        volume.updated_at = self.now()
        self.store.save(volume)


def rfc3339(at: float) -> str:
    """A Unix time as Fly writes it."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
