"""Runs scenarios: rounds in turn over all peers, so that what the machine does meets all alike."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from bench import machine
from bench.measure import Effort, Figures
from bench.peers import PEERS, Peer
from bench.processes import BenchError, Disturbance, busy_share
from bench.scenarios import Scenario
from bench.site import Site

QUIET = 0.1
"""Others using more than this share of the machine before a round make it a doubtful one."""


@dataclass
class Outcome:
    """What was measured of one scenario."""

    scenario: Scenario
    rounds: dict[str, list[Figures]] = field(default_factory=dict)
    """By peer."""
    busy: list[float] = field(default_factory=list)
    """What share of the machine others used before each round."""
    disturbed: list[float] = field(default_factory=list)
    """What share of the proxy's core others used during each measurement."""
    paces: list[float] = field(default_factory=list)
    """How long a fixed loop took before each measurement, in milliseconds."""
    failures: dict[str, str] = field(default_factory=dict)
    """Why a peer did not get through, by peer."""


def run(
    site: Site,
    scenario: Scenario,
    peers: Sequence[str],
    rounds: int,
    effort: Effort,
    patience: float = 0.0,
) -> Outcome:
    """
    Measure all peers in turn, some rounds long.

    @param patience: seconds to wait before each round for others to be quiet.
    """
    outcome = Outcome(scenario)
    with ExitStack() as stack:
        running: dict[str, Peer] = {}
        for name in () if scenario.fresh else peers:
            with _noted(outcome, name):
                running[name] = stack.enter_context(started(site, name))
        for number in range(rounds):
            outcome.busy.append(_quiet(patience))
            _note(outcome, number)
            # The order turns, so that nobody is always first after the pause.
            for name in (*peers[number % len(peers) :], *peers[: number % len(peers)]):
                if name in outcome.failures:
                    continue
                with _noted(outcome, name), ExitStack() as once:
                    peer = running.get(name) or once.enter_context(started(site, name))
                    _measure(outcome, peer, effort)
    return outcome


@contextmanager
def _noted(outcome: Outcome, name: str) -> Iterator[None]:
    """A peer that fails is out of the scenario; the others go on."""
    try:
        yield
    except BenchError as error:
        outcome.rounds.pop(name, None)
        outcome.failures[name] = str(error)
        say(f"    {name:14} FAILED: {error}")


def _measure(outcome: Outcome, peer: Peer, effort: Effort) -> None:
    outcome.paces.append(machine.pace())
    disturbance = Disturbance(peer.usage())
    figures = outcome.scenario.measure(peer, effort)
    outcome.disturbed.append(disturbance.share())
    outcome.rounds.setdefault(peer.name, []).append(figures)
    shown = ", ".join(f"{key} {value:.4g}" for key, value in figures.items())
    noise = f"pace {outcome.paces[-1]:.0f} ms, others {outcome.disturbed[-1]:.0%}"
    say(f"    {peer.name:14} {shown}  ({noise})")


def _quiet(patience: float) -> float:
    """What share of the machine others use, once it is little or patience has run out."""
    deadline = time.monotonic() + patience
    while (busy := busy_share()) > QUIET and time.monotonic() < deadline:
        time.sleep(1.0)
    return busy


def _note(outcome: Outcome, number: int) -> None:
    busy = outcome.busy[-1]
    warning = "  (NOT QUIET: not for comparison)" if busy > QUIET else ""
    name = outcome.scenario.name
    say(f"  {name}, round {number + 1}: load {machine.load()}, others {busy:.0%}{warning}")


@contextmanager
def started(site: Site, name: str) -> Iterator[Peer]:
    """A peer while it runs."""
    peer = PEERS[name](site)
    try:
        peer.start()
        yield peer
    finally:
        peer.stop()


def say(line: str) -> None:
    """Progress, apart from the result."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
