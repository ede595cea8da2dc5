"""What goes wrong when it is asked for: each row of the catalogue, and how often."""

from __future__ import annotations

from collections import Counter
from typing import Any

from matrix.errors import ConfigurationError
from matrix.machines._fly_errors import Action, Refusal, Verdict, judge
from matrix.testing.fly.api import Answer
from matrix.testing.fly.case import CONFIG, FlyCase
from matrix.testing.fly.faults import Fault
from matrix.testing.fly.refusals import ROWS

ONE = "/apps/users/machines"

MEANT: dict[str, tuple[Action, Verdict]] = {
    "created": (Action.START, Verdict.SOON),
    "replacing": (Action.START, Verdict.SOON),
    "stopping": (Action.START, Verdict.SOON),
    "still-active": (Action.START, Verdict.SOON),
    "getting-replaced": (Action.START, Verdict.SOON),
    "starting": (Action.START, Verdict.DONE),
    "already-started": (Action.START, Verdict.DONE),
    "concurrent-update": (Action.UPDATE, Verdict.SOON),
    "leased": (Action.START, Verdict.SOON),
    "volume-of-nobody": (Action.CREATE, Verdict.SOON),
    "rate": (Action.START, Verdict.SOON),
    "timeout": (Action.WAIT, Verdict.SOON),
    "unavailable": (Action.START, Verdict.AMBIGUOUS),
    "internal": (Action.CREATE, Verdict.AMBIGUOUS),
    "host-memory": (Action.START, Verdict.NO_CAPACITY),
    "host-cpus": (Action.START, Verdict.NO_CAPACITY),
    "insufficient": (Action.START, Verdict.NO_CAPACITY),
    "no-capacity": (Action.START, Verdict.NO_CAPACITY),
    "region-full": (Action.CREATE, Verdict.NO_CAPACITY),
    "volume-host-full": (Action.CREATE, Verdict.NO_CAPACITY),
    "no-room-for-volume": (Action.VOLUME, Verdict.NO_CAPACITY),
    "governor": (Action.START, Verdict.NO_CAPACITY),
    "deploys-disabled": (Action.START, Verdict.NO_CAPACITY),
    "not-found": (Action.START, Verdict.PERMANENT),
    "volume-not-found": (Action.CREATE, Verdict.PERMANENT),
    "volume-claimed": (Action.CREATE, Verdict.PERMANENT),
    "volume-bound": (Action.VOLUME, Verdict.PERMANENT),
    "name-violation": (Action.CREATE, Verdict.AMBIGUOUS),
    "machine-limit": (Action.CREATE, Verdict.PERMANENT),
    "quota": (Action.CREATE, Verdict.PERMANENT),
    "snapshot-scheduled": (Action.SNAPSHOT, Verdict.DONE),
    "stale-version": (Action.OTHER, Verdict.AMBIGUOUS),
}
"""What Matrix is to make of each row, where it may meet it."""


class RowTests(FlyCase):
    """Each row, as the next answer of a call."""

    def test_each_is_what_matrix_takes_it_for(self) -> None:
        machine = self.stopped()
        for name, row in ROWS.items():
            self.emulator("POST", "/faults", {"kind": "row", "row": name, "times": 1})
            answer = self.call("POST", f"{ONE}/{machine}/start")
            self.assertEqual(answer.status, row.status, name)
            self.assertEqual(answer.value.get("status"), row.code, name)
            action, verdict = MEANT[name]
            text = Refusal(answer.status, answer.value["error"], row.code or "")
            self.assertEqual(judge(action, text)[0], verdict, name)
        self.assertEqual(self.state(machine), "stopped")
        self.power(machine, "start")

    def test_they_can_be_listed(self) -> None:
        self.assertEqual(set(self.emulator("GET", "/rows")), set(MEANT))


class KindTests(FlyCase):
    """What can become of a call besides a refusal."""

    def suspend(self, **fault: Any) -> tuple[Answer, str]:
        """The answer to a suspension with a fault, and the machine's state then."""
        machine = self.started()
        self.emulator("POST", "/faults", {"action": "machines.suspend", "times": 1, **fault})
        answer = self.call("POST", f"{ONE}/{machine}/suspend")
        return answer, self.state(machine)

    def test_done_with_its_answer_lost(self) -> None:
        answer, state = self.suspend(kind="lost")
        self.assertEqual((answer.status, state), (0, "suspending"))

    def test_cut_off_before_it_was_done(self) -> None:
        answer, state = self.suspend(kind="before")
        self.assertEqual((answer.status, state), (0, "started"))

    def test_a_bare_status(self) -> None:
        answer, state = self.suspend(kind="status", status=502)
        self.assertEqual((answer.status, state), (502, "started"))

    def test_a_bare_status_although_it_was_done(self) -> None:
        answer, state = self.suspend(kind="done-status", status=408)
        self.assertEqual((answer.status, state), (408, "suspending"))

    def test_an_error_in_a_success(self) -> None:
        answer, state = self.suspend(kind="error-in-ok")
        self.assertEqual((answer.status, answer.value["status"], state), (200, "error", "started"))

    def test_slow(self) -> None:
        machine = self.started()
        self.emulator("POST", "/faults", {"kind": "slow", "seconds": 3, "times": 1})
        waiting = self.begin("POST", f"{ONE}/{machine}/suspend")
        self.clock.advance(2.9)
        self.assertNoResult(waiting)
        self.assertEqual(self.state(machine), "started")
        self.clock.advance(0.1)
        self.assertEqual(self.successResultOf(waiting).status, 200)
        self.assertEqual(self.state(machine), "suspending")

    def test_creation_without_room(self) -> None:
        self.emulator("POST", "/capacity", {"fra": 1})
        volume = self.volume()
        self.started()
        body = {"region": "fra", "config": dict(CONFIG)}
        self.refused(422, "could not find a candidate host", "POST", ONE, body)
        mounts = [{"volume": volume, "path": "/data"}]
        body = {"region": "fra", "config": {**CONFIG, "mounts": mounts}}
        self.refused(412, f"existing volume id '{volume}'", "POST", ONE, body)
        self.ok("POST", ONE, {"region": "ams", "config": dict(CONFIG)})
        self.emulator("POST", "/capacity", {"fra": None})
        self.ok("POST", ONE, body)

    def test_starts_that_fail(self) -> None:
        self.tuning.set("failed_start", "1")
        machine = self.created()
        self.pass_time()
        self.assertEqual(self.state(machine), "failed")
        self.tuning.set("failed_start", "0")
        self.assertEqual(self.power(machine, "start")["previous_state"], "failed")
        self.pass_time()
        self.assertEqual(self.state(machine), "started")


class AimTests(FlyCase):
    """Which calls are meant, and how often."""

    def statuses(self, machine: str, calls: int, what: str = "start") -> list[int]:
        return [self.call("POST", f"{ONE}/{machine}/{what}").status for _ in range(calls)]

    def test_the_next_few_of_one_machine(self) -> None:
        one, other = self.started(), self.started()
        fault = {"kind": "row", "row": "still-active", "action": "machines.start", "times": 2}
        self.emulator("POST", "/faults", {**fault, "machine": one})
        self.assertEqual(self.statuses(other, 1), [200])
        self.assertEqual(self.statuses(one, 1, "cordon"), [200])
        self.assertEqual(self.statuses(one, 3), [412, 412, 200])
        self.assertEqual(self.emulator("GET", "/faults"), [])

    def test_a_pattern_of_actions(self) -> None:
        machine = self.started()
        self.emulator("POST", "/faults", {"kind": "status", "status": 500, "action": "machines.*"})
        self.assertEqual(self.statuses(machine, 2), [500, 500])
        self.ok("GET", "/apps/users")
        self.emulator("DELETE", "/faults")
        self.assertEqual(self.statuses(machine, 1), [200])

    def test_what_is_scripted_goes_first(self) -> None:
        machine = self.started()
        self.emulator("POST", "/faults", {"kind": "status", "status": 500})
        number = self.emulator("POST", "/faults", {"kind": "status", "status": 501, "times": 1})
        self.assertEqual(self.statuses(machine, 2), [501, 500])
        self.emulator("DELETE", f"/faults/{number['number']}")

    def test_a_rate_is_kept_and_the_same_with_the_same_seed(self) -> None:
        machine = self.started()
        fault = {"kind": "row", "row": "starting", "action": "machines.start", "rate": 0.1}
        self.emulator("POST", "/faults", fault)
        first = self.statuses(machine, 1000)
        self.assertTrue(70 < Counter(first)[409] < 130, Counter(first))
        self.again()
        self.emulator("POST", "/faults", fault)
        self.assertEqual(self.statuses(machine, 1000), first)

    def test_what_makes_no_sense(self) -> None:
        for fault, what in (
            ({"kind": "row", "row": "x"}, "there is no row 'x'"), ({"kind": "x"}, "no fault"),
            ({"kind": "lost", "rate": 2}, "rate is 2"), ({"kind": "lost", "x": 1}, "no fault"),
            ({"kind": "lost", "times": 0}, "times is 0"),
            ({"kind": "status", "status": 200}, "status is 200"),
        ):  # fmt: skip
            self.assertIn(what, self.emulator("POST", "/faults", fault, status=400)["error"])
            self.assertRaises(ConfigurationError, Fault.read, fault)


class CallsTests(FlyCase):
    """Counting: the evidence of who asked Fly for what."""

    def test_every_call_is_counted_and_the_emulators_own_are_not(self) -> None:
        self.emulator("DELETE", "/calls")
        self.assertEqual(self.emulator("GET", "/calls")["total"], 0)
        machine = self.started()
        self.power(machine, "suspend")
        self.emulator("POST", "/faults", {"kind": "lost", "times": 1})
        self.call("POST", f"{ONE}/{machine}/start")
        self.call("GET", "/nowhere")
        counts = self.emulator("GET", f"/calls?action=machines.start&subject={machine}")
        self.assertEqual(
            counts["by_action"],
            {
                "machines.create": 1, "machines.get": 1, "machines.suspend": 1,
                "machines.start": 1, "unknown": 1,
            },
        )  # fmt: skip
        self.assertEqual((counts["total"], counts["by_status"]["0"]), (5, 1))
        (made,) = counts["calls"]
        self.assertEqual((made["status"], made["fault"]), (0, "lost"))

    def test_those_that_were_refused_count_too(self) -> None:
        self.emulator("DELETE", "/calls")
        self.call("GET", "/apps/users", token="wrong")
        counts = self.emulator("GET", "/calls")
        self.assertEqual((counts["total"], counts["by_status"]), (1, {"401": 1}))
