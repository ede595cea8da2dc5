"""Which boot a machine is in, from what Fly says has happened to it."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from matrix.machines._fly_boots import Boot, boot_id, latest
from matrix.machines._fly_types import FlyEvent, FlyMachine
from matrix.model import MachineState

FIRST = "launch/created start/starting start/started"
SLEEP = "suspend/suspending suspend/suspended"
RESUME = "start/starting start/started"


def events(text: str, first: int = 0) -> list[FlyEvent]:
    """As Fly lists them, the newest first; each has its number in time as its id."""
    found = []
    for number, word in enumerate(text.split(), first):
        kind, status = word.split("/")
        found.append(FlyEvent(id=str(number), type=kind, status=status, timestamp=number // 2))
    return found[::-1]


class LatestTests(SynchronousTestCase):
    def test_the_first(self) -> None:
        self.assertEqual(latest(events(FIRST)), Boot("1", MachineState.PROVISIONING))

    def test_while_it_starts(self) -> None:
        self.assertEqual(latest(events("launch/created start/starting")).id, "1")

    def test_a_resume_is_none(self) -> None:
        text = f"{FIRST} {SLEEP} {RESUME}"
        self.assertEqual(latest(events(text)), Boot("1", MachineState.SUSPENDED))

    def test_an_interrupted_suspension_is_none(self) -> None:
        self.assertEqual(latest(events(f"{FIRST} suspend/suspending {RESUME}")).id, "1")

    def test_a_start_after_a_stop_is_one(self) -> None:
        text = f"{FIRST} stop/stopping exit/stopped {RESUME}"
        self.assertEqual(latest(events(text)), Boot("5", MachineState.STOPPED))

    def test_a_restart_by_fly_is_one(self) -> None:
        self.assertEqual(latest(events(f"{FIRST} exit/restarting {RESUME}")).id, "4")

    def test_a_suspended_machine_that_was_stopped(self) -> None:
        text = f"{FIRST} {SLEEP} stop/stopping exit/stopped {RESUME}"
        self.assertEqual(latest(events(text)).id, "7")

    def test_a_boot_that_is_no_longer_listed(self) -> None:
        self.assertEqual(latest(events(f"{SLEEP} {RESUME}")).id, None)
        self.assertEqual(latest(events(f"start/started {SLEEP} {RESUME}")).id, None)
        self.assertEqual(latest([]), Boot(None, None))

    def test_events_that_say_nothing_of_states(self) -> None:
        self.assertEqual(latest([*events("check/"), *events(FIRST)]).id, "1")


class BootIdTests(SynchronousTestCase):
    """Where the events do not reach back, what was known of before holds on."""

    def machine(self, text: str) -> FlyMachine:
        return FlyMachine(id="m", state="started", instance_id="v1", events=tuple(events(text, 9)))

    def test_events_are_believed_before_the_row(self) -> None:
        self.assertEqual(boot_id(self.machine(FIRST), "old", MachineState.RUNNING), "10")

    def test_a_resume_keeps_what_is_known(self) -> None:
        found = self.machine(f"{SLEEP} {RESUME}")
        for was in (MachineState.SUSPENDED, MachineState.RUNNING):
            self.assertEqual(boot_id(found, "old", was), "old")

    def test_a_boot_of_which_nothing_is_listed_is_another(self) -> None:
        found = self.machine("start/started")
        self.assertNotEqual(boot_id(found, "old", MachineState.STOPPED), "old")
        self.assertTrue(boot_id(found, None, MachineState.RUNNING).startswith("v1-"))
