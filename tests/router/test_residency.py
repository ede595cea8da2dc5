"""The table of residency: what each input does in each state, and what no state may meet."""

from __future__ import annotations

from typing import Any

from automat import NoTransition
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from matrix.errors import MatrixError, Unavailable
from matrix.router.residency import residency
from matrix.testing.diagrams import transitions

WAITER = object()


class Core:
    """Notes what it is asked for."""

    def __init__(self) -> None:
        self.waiters: dict[Any, None] = {}
        self.asked: list[str] = []

    def begin_wake(self) -> None:
        self.asked.append("begin_wake")

    def begin_rest(self, cause: str) -> None:
        self.asked.append(f"begin_rest {cause}")

    def recall(self) -> None:
        self.asked.append("recall")

    def release(self) -> None:
        self.asked.append("release")

    def refuse(self, error: MatrixError) -> None:
        self.asked.append(f"refuse {error.reason}")

    def cut(self) -> None:
        self.asked.append("cut")


ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "want": (WAITER,),
    "failed": (Unavailable(reason="died"),),
    "rest": ("idle",),
}

WAYS = {
    "resting": [],
    "waking": ["want"],
    "awake": ["found"],
    "retiring": ["found", "rest"],
    "wanted back": ["found", "rest", "want"],
}
"""How each state is reached."""

TABLE = {
    ("resting", "want"): ("waking", ["begin_wake"]),
    ("resting", "found"): ("awake", []),
    ("resting", "rest"): ("resting", []),
    ("resting", "lost"): ("resting", []),
    ("waking", "want"): ("waking", []),
    ("waking", "woke"): ("awake", ["release"]),
    ("waking", "failed"): ("resting", ["refuse died"]),
    ("waking", "found"): ("waking", []),
    ("waking", "rest"): ("waking", []),
    ("waking", "lost"): ("waking", []),
    ("awake", "want"): ("awake", ["release"]),
    ("awake", "found"): ("awake", []),
    ("awake", "rest"): ("retiring", ["begin_rest idle"]),
    ("awake", "lost"): ("resting", ["cut"]),
    ("retiring", "want"): ("wanted back", ["recall"]),
    ("retiring", "found"): ("retiring", []),
    ("retiring", "rest"): ("retiring", []),
    ("retiring", "lost"): ("retiring", []),
    ("retiring", "rested"): ("resting", []),
    ("retiring", "kept"): ("awake", []),
    ("wanted back", "want"): ("wanted back", []),
    ("wanted back", "found"): ("wanted back", []),
    ("wanted back", "rest"): ("wanted back", []),
    ("wanted back", "lost"): ("wanted back", []),
    ("wanted back", "rested"): ("waking", ["begin_wake"]),
    ("wanted back", "kept"): ("awake", ["release"]),
}

INPUTS = ("want", "found", "woke", "failed", "rest", "rested", "kept", "lost")


def put(machine: Any, what: str) -> None:
    getattr(machine, what)(*ARGUMENTS.get(what, ()))


def reached(state: str) -> tuple[Any, Core]:
    core = Core()
    machine = residency(core)
    for what in WAYS[state]:
        put(machine, what)
    core.asked, core.waiters = [], {}
    return machine, core


class TableTests(SynchronousTestCase):
    def test_each_input_asks_for_what_the_table_says(self) -> None:
        for (state, what), (_, asked) in TABLE.items():
            machine, core = reached(state)
            put(machine, what)
            self.assertEqual(core.asked, asked, f"{what} while {state}")

    def test_each_input_leads_where_the_table_says(self) -> None:
        drawn = {(old, what): new for old, what, new in transitions(residency)}
        self.assertEqual(drawn, {key: new for key, (new, _) in TABLE.items()})

    def test_what_is_not_in_the_table_is_refused(self) -> None:
        refused = 0
        for state in WAYS:
            for what in INPUTS:
                if (state, what) not in TABLE:
                    machine, _ = reached(state)
                    with self.assertRaises(NoTransition, msg=f"{what} while {state}"):
                        put(machine, what)
                    refused += 1
        self.assertEqual(refused, len(WAYS) * len(INPUTS) - len(TABLE))

    def test_whoever_wants_it_waits_in_every_state(self) -> None:
        for state in WAYS:
            machine, core = reached(state)
            put(machine, "want")
            self.assertEqual(core.waiters, {WAITER: None}, state)

    def test_only_who_comes_on_its_way_to_sleep_holds_it_up(self) -> None:
        for state in WAYS:
            machine, core = reached(state)
            put(machine, "want")
            self.assertEqual("recall" in core.asked, state == "retiring", state)


class ReentryTests(SynchronousTestCase):
    def test_an_input_during_an_output_comes_after_it(self) -> None:
        core = Core()
        machine = residency(core)
        waiter: Deferred[Any] = Deferred()

        def fails_at_once() -> None:
            core.asked.append("begin_wake")
            machine.failed(Unavailable(reason="at-once"))
            core.asked.append("begun")

        core.begin_wake = fails_at_once  # type: ignore[method-assign]
        machine.want(waiter)
        self.assertEqual(core.asked, ["begin_wake", "begun", "refuse at-once"])
        machine.found()
        machine.rest("idle")
        self.assertEqual(core.asked[-1], "begin_rest idle")
