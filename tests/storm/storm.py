"""
A storm: many clients and a disturber upon one real Matrix, which must give nobody a wrong
answer and have nothing left of it all when it is over.
"""

from __future__ import annotations

import asyncio
import json
import shlex
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path

from matrix.machines._command import Command
from matrix.testing.issuer import LocalUser
from matrix.testing.running import RunningMatrix
from matrix.testing.wire import run
from tests.storm import plain, rude, streams
from tests.storm.disturber import Disturber
from tests.storm.figures import Figures, table
from tests.storm.verdict import BROKEN, Ended, Refused, Tally, Troubles, Wrong
from tests.storm.visitor import LOST, Resident, Visitor

DAEMONS = ("alice", "bob", "carol")
"""Users whose machines are real daemons."""

OTHERS = ("dave", "erin", "frank", "grace", "heidi")
"""Users whose machines are C{machine.py}."""

IDLE = 5.0
"""Seconds until a machine sleeps: more than an unused connection to it is kept."""

LIMITS = {
    "handshake_timeout": 3,
    "head_timeout": 2,
    "body_timeout": 4,
    "response_timeout": 5,
    "keepalive_timeout": 5,
    "stream_timeout": 5,
}
"""Seconds: short, so that clients and machines run into all of them, and C{rude.DAWDLE} is
longer than each."""

SETTLE = 2.75
"""Seconds after the machines fell asleep until no deadline is kept of those who asked whether
they did: a little more than the limit for a head."""

LATE = 1.5
"""Seconds after which clients who have not come to an end go nevertheless, all at once."""

HUNG = 60.0
"""Seconds for anything that a client tries: more than the limits of wake and answer together."""

TOKENS = 3
"""For each user: sessions."""

Scenario = Callable[[Visitor], Awaitable[str]]

COMMON: Sequence[tuple[Scenario, float]] = (
    (rude.leave_in_head, 2),
    (rude.half_handshake, 2),
    (rude.nonsense, 2),
    (rude.idle, 1),
)
"""What is tried, and how often: of everybody,"""

OF_DAEMONS = (*COMMON, (plain.files, 12))
"""of those who have a daemon,"""

OF_OTHERS: Sequence[tuple[Scenario, float]] = (
    *COMMON,
    (plain.get, 24),
    (plain.head, 2),
    (plain.post, 12),
    (plain.echo, 6),
    (plain.pipeline, 4),
    (plain.early, 1),
    (plain.slow_post, 2),
    (plain.slow_reader, 2),
    (plain.waking_page, 2),
    (plain.half_close, 2),
    (rude.leave_in_body, 5),
    (rude.leave_in_answer, 5),
    (rude.leave_in_pipeline, 2),
    (rude.leave_a_stall, 2),
    (rude.stop_reading, 1),
    (rude.stop_writing, 1),
    (rude.half_close_in_body, 2),
    (rude.broken_machine, 3),
    (rude.deadly, 0.1),
    (streams.websocket, 6),
    (streams.events, 6),
)  # fmt: skip
"""and of those who have not: but for what kills a machine, about once in a thousand."""


class Storm:
    """One run, from a Matrix that is started to one that is gone."""

    def __init__(self, seed: str, clients: int, only: Sequence[str] = ()) -> None:
        """
        @param clients: how many at a time.
        @param only: names of what is to be tried, and no more.
        """
        self._only = only
        self.seed = seed
        self.tally = Tally()
        self.troubles = Troubles()
        self.looks: dict[str, Figures] = {}
        self.totals: dict[str, float] = {}
        """What the metrics say at the end."""
        self._clients = clients
        self._phase = 0
        names = (*OTHERS[:3], *DAEMONS[:2], *OTHERS[3:], *DAEMONS[2:])
        daemons = [LocalUser.named(name).id for name in DAEMONS]
        # All come from one address: if one is ever counted for good, others are refused.
        self.matrix = RunningMatrix(
            IDLE,
            local_command=_command(daemons),
            max_connections_per_address=3 * clients,
            **LIMITS,
        )
        self._residents = [(name, name in DAEMONS) for name in names]

    def run(self, warm_up: float, parts: Sequence[float]) -> None:
        """
        @param warm_up: seconds before the first look.
        @param parts: seconds of each further part, with a look after each; the last but one
            is the middle, since when memory must not grow.
        """
        try:
            self.matrix.start()
            self._meet()
            names = ("warm", *("middle", "end")[-len(parts) :])
            for name, seconds in zip(names, (warm_up, *parts), strict=True):
                run(self._part(seconds), seconds + 2 * HUNG)
                self._calm_down()
                self.looks[name] = Figures.take(self.matrix, self.users)
            self.totals = self._totals()
            self._stop()
        finally:
            self.matrix.close()

    def _meet(self) -> None:
        """Give everybody tokens, and those that are no good."""
        matrix = self.matrix
        self.users = [
            Resident(
                name,
                matrix.user_id(name),
                [matrix.token(name) for _ in range(TOKENS)],
                has_daemon,
            )
            for name, has_daemon in self._residents
        ]
        for user in self.users:
            for token in user.tokens:
                matrix.door.ask("GET", "/", token)
        token = matrix.token("dave")
        self._bad_tokens = {
            "expired": matrix.token("dave", life=-3600),
            "forged": token[:-8] + ("A" * 8 if token[-8:] != "A" * 8 else "B" * 8),
            "unsigned": matrix.token("dave", alg="none"),
            "confused": matrix.token("dave", alg="HS256"),
            "nothing": "",
            "nonsense": "a.b.c",
        }

    # a part

    async def _part(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        self._phase += 1
        seed = f"{self.seed}-{self._phase}"
        async with asyncio.TaskGroup() as group:
            disturber = Disturber(self.matrix, self.users, seed, self.troubles)
            group.create_task(disturber.run(until))
            for number in range(self._clients):
                client = Visitor(number, self.matrix.door, self.users, seed, self.troubles)
                roaming = group.create_task(self._roam(client, until))
                loop.call_at(until + LATE, roaming.cancel)

    async def _roam(self, client: Visitor, until: float) -> None:
        loop = asyncio.get_running_loop()
        bad_token = partial(rude.bad_token, tokens=self._bad_tokens)
        while loop.time() < until:
            client.be_somebody()
            scenarios, weights = self._mix(client.user)
            for _ in range(client.rng.randrange(1, 10)):
                (scenario,) = client.rng.choices(scenarios, weights)
                await self._try(client, scenario.__name__, scenario)
            if client.rng.random() < 0.1:
                await self._try(client, "bad_token", bad_token)
            client.leave()

    def _mix(self, user: Resident) -> tuple[list[Scenario], list[float]]:
        mix = OF_DAEMONS if user.has_daemon else OF_OTHERS
        chosen = [one for one in mix if not self._only or one[0].__name__ in self._only]
        return [scenario for scenario, _ in chosen or mix], [weight for _, weight in chosen or mix]

    async def _try(self, client: Visitor, name: str, scenario: Scenario) -> None:
        began = time.monotonic()
        try:
            outcome = await asyncio.wait_for(scenario(client), HUNG)
        except asyncio.CancelledError:
            self.tally.note(name, "left at the end")
            client.leave("reset")
            raise
        except Wrong as error:
            self._fault(client, name, "WRONG", began, error)
        except TimeoutError as error:
            self._fault(client, name, "HUNG", began, error)
        except LOST as error:
            self._suffered(client, name, BROKEN, began, error)
        except (Refused, Ended) as error:
            self._suffered(client, name, str(error), began, error)
        else:
            self.tally.note(name, outcome)
            return
        client.leave("reset")

    def _suffered(
        self, client: Visitor, name: str, outcome: str, began: float, error: Exception
    ) -> None:
        if self.troubles.explain(client.user.id, outcome, began):
            self.tally.note(name, f"{outcome}, disturbed")
        else:
            self._fault(client, name, outcome, began, error)

    def _fault(
        self, client: Visitor, name: str, outcome: str, began: float, error: Exception
    ) -> None:
        self.tally.note(name, f"{outcome}, UNEXPLAINED")
        after = time.monotonic() - began
        self.tally.faults.append(
            f"{time.strftime('%H:%M:%S')} {name} for {client.user.name}, after {after:.2f} s: "
            f"{outcome}: {error!r}"
        )

    # afterwards

    def _calm_down(self) -> None:
        """Have each machine awake once, so that it is done with everything, then all asleep."""
        for user in self.users:
            answer = self.matrix.door.ask("GET", "/", user.tokens[0])
            if answer.status != 200:
                self.tally.faults.append(f"{user.name} after the storm: {answer}")
        self.matrix.until(self._asleep, 60, "all machines are asleep")
        time.sleep(SETTLE)

    def _asleep(self) -> bool:
        time.sleep(0.25)
        machines = self.matrix.admin("machines")["machines"]
        return all(machine["state"] == "suspended" for machine in machines)

    def _totals(self) -> dict[str, float]:
        metric = self.matrix.metric
        return {
            "requests": metric("matrix_requests_total"),
            "refused": metric("matrix_refused_total"),
            "wakes": metric("matrix_wakes_total"),
            "wakes that failed": metric("matrix_wake_failures_total"),
            "suspends": metric("matrix_suspends_total"),
            "connections to machines": metric("matrix_upstream_connections_total"),
            "retries": metric("matrix_upstream_retries_total"),
            "access log records lost": metric("matrix_access_log_dropped_total"),
        }

    def _stop(self) -> None:
        """An orderly end, which leaves neither processes nor sockets."""
        self.matrix.stop()
        faults = self.tally.faults
        left = self.matrix.processes()
        if left:
            faults.append(f"processes left after the stop: {left}")
        sockets = [path for path in self.matrix.state.rglob("*") if path.is_socket()]
        if sockets:
            faults.append(f"sockets left after the stop: {sockets}")
        logged = sum(_lines(path) for path in self.matrix.state.glob("access.log*"))
        if logged != self.totals["requests"]:
            faults.append(f"{logged} lines in the access log")
        output = self.matrix.output()
        if "Traceback" in output:
            faults.append(f"Matrix was surprised: {output[output.index('Traceback') :][:3000]}")

    # report

    def faults(self) -> list[str]:
        """Everything that must not be."""
        looks = [*self.looks.values()]
        middle = looks[1] if len(looks) > 2 else None
        return [*self.tally.faults, *looks[-1].leaks(looks[0], middle)]

    def report(self) -> str:
        """All figures."""
        lines = ["what clients tried, and what came of it:"]
        for name, outcomes in sorted(self.tally.outcomes.items()):
            told = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.most_common())
            lines.append(f"  {name:18}{outcomes.total():>8}: {told}")
        lines += ["", "what was done to machines:"]
        lines += [f"  {name:18}{count:>8}" for name, count in self.troubles.count.most_common()]
        lines += ["", "what Matrix counted:"]
        lines += [f"  {name:26}{count:>10.0f}" for name, count in self.totals.items()]
        lines += ["", "what is held while nothing goes on:", table(self.looks)]
        return "\n".join(lines)


def _command(daemons: Sequence[str]) -> str:
    """Our daemon for these users, C{machine.py} for the others."""
    program = str(Path(__file__).with_name("machine.py"))
    words = [sys.executable, program, "{socket}", "{user}", ",".join(daemons)]
    return shlex.join([*words, *Command.parse(None).words])


def _lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(bool(json.loads(line)) for line in file)
