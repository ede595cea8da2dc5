"""From rounds to the table: medians, ratios, bars."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from statistics import median

from bench import machine
from bench.measure import Effort
from bench.peers import PEERS
from bench.runner import QUIET, Outcome
from bench.scenarios import SUBJECT, Bar
from bench.tools import tool_versions


def value(outcome: Outcome, peer: str, figure: str) -> float:
    """The median over the rounds."""
    return median(round_[figure] for round_ in outcome.rounds[peer])


def judged(outcome: Outcome, bar: Bar) -> tuple[float, str] | None:
    """The value that a bar is about, and how it came about; C{None} if a peer did not run."""
    if {SUBJECT, bar.peer or SUBJECT, bar.over or SUBJECT} - outcome.rounds.keys():
        return None
    ours = _series(outcome, SUBJECT, bar)
    if bar.peer is None:
        return median(ours), _number(median(ours))
    theirs = _series(outcome, bar.peer, bar)
    ratio = median(a / b if b else float("inf") for a, b in zip(ours, theirs, strict=True))
    both = f"{_number(median(ours))} : {_number(median(theirs))}"
    return ratio, f"{ratio:.2f} ({both}{_cores(outcome, bar.peer)})"


def _series(outcome: Outcome, peer: str, bar: Bar) -> list[float]:
    """A peer's figure in each round. What is compared is compared within a round, because the
    machine's pace changes from one to the next."""
    figures = [round_[bar.figure] for round_ in outcome.rounds[peer]]
    if bar.over is None:
        return figures
    base = [round_[bar.figure] for round_ in outcome.rounds[bar.over]]
    return [figure - below for figure, below in zip(figures, base, strict=True)]


def _cores(outcome: Outcome, peer: str) -> str:
    """What shares of their cores both used, where that was measured."""
    shares = [
        _number(value(outcome, name, "core"))
        for name in (SUBJECT, peer)
        if "core" in outcome.rounds[name][0]
    ]
    return f"; core {' : '.join(shares)}" if shares else ""


def summary(outcomes: Sequence[Outcome]) -> str:
    """The table of bars."""
    lines = [
        "| scenario | figure | bar | Matrix | met |",
        "|---|---|---|---|---|",
    ]
    for outcome in outcomes:
        for bar in outcome.scenario.bars:
            found = judged(outcome, bar)
            if found is not None:
                met = "yes" if bar.met(found[0]) else "**no**"
                row = (outcome.scenario.title, bar.figure, bar.text(), found[1], met)
                lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def details(outcome: Outcome) -> str:
    """All medians of a scenario, with the smallest and largest of its first figure."""
    rounds = outcome.rounds
    title = f"### {outcome.scenario.name}: {outcome.scenario.title}"
    failed = [f"- {peer} failed: {why}" for peer, why in outcome.failures.items()]
    if not rounds:
        return "\n".join([title, *failed])
    figures = list(next(iter(rounds.values()))[0])
    lines = [
        title,
        *failed,
        f"| peer | {' | '.join(figures)} | {figures[0]}, all rounds |",
        f"|---|{'---|' * (len(figures) + 1)}",
    ]
    for peer, measured in rounds.items():
        medians = [_number(value(outcome, peer, figure)) for figure in figures]
        first = [round_[figures[0]] for round_ in measured]
        spread = f"{_number(min(first))} … {_number(max(first))}"
        lines.append(f"| {peer} | {' | '.join(medians)} | {spread} |")
    return "\n".join(lines)


def document(
    outcomes: Sequence[Outcome], rounds: int, effort: Effort, arguments: Sequence[str]
) -> str:
    """All of RESULTS.md."""
    names = list(dict.fromkeys(name for outcome in outcomes for name in outcome.rounds))
    peers = "\n".join(
        f"| {name} | {PEERS[name].version()} | {PEERS[name].settings} |" for name in names
    )
    parts = [
        "# Matrix and its peers",
        f"Written by `script/bench {shlex.join(arguments)}`".rstrip("` ") + "` on "
        f"{time.strftime('%Y-%m-%d %H:%M', time.gmtime())} UTC. Machine: "
        f"{machine.description()}; one core for the proxy, the other for load and backend.",
        f"Medians of {rounds} round{'s' * (rounds > 1)} of {effort.seconds} s, interleaved; "
        f"transfers of {effort.size / 2**20:.0f} MiB. {_quietness(outcomes)}",
        "## Bars",
        summary(outcomes),
        "A ratio is the median of Matrix's figure divided by the peer's in the same round; in "
        "brackets the median of each, and the shares of their cores that they used meanwhile.",
        "## Figures",
        "`core` is the share of its core that the proxy used: well below 1, and load generator "
        "or backend were the bottleneck; then `cpu_us` (microseconds of processor time for one "
        "request, event, message or handshake) tells more than the rate. Memory and processor "
        "time are those of the proxy's processes without the backend.",
        *(details(outcome) for outcome in outcomes),
        "## Versions and settings",
        "All terminate TLS with the same P-256 certificate, keep client connections alive, and "
        "run on one core with one worker. All get the same requests, token included.",
        f"| peer | version | settings |\n|---|---|---|\n{peers}",
        f"Tools: {tool_versions()}.",
    ]
    return "\n\n".join(parts) + "\n"


def _quietness(outcomes: Sequence[Outcome]) -> str:
    """How far the figures can be trusted."""
    busy = [share for outcome in outcomes for share in outcome.busy]
    disturbed = [share for outcome in outcomes for share in outcome.disturbed] or [0.0]
    loud = sum(share > QUIET for share in busy)
    return (
        f"Before {loud} of {len(busy)} rounds others used more than {QUIET:.0%} of the machine "
        f"(at most {max(busy):.0%}); during measurements they had {median(disturbed):.1%} of the "
        f"proxy's core (median; at most {max(disturbed):.0%}).{_pace(outcomes)}"
    )


def _pace(outcomes: Sequence[Outcome]) -> str:
    paces = [pace for outcome in outcomes for pace in outcome.paces]
    if not paces:
        return ""
    return (
        f" A fixed loop took {min(paces):.0f} to {max(paces):.0f} ms of processor time (median "
        f"{median(paces):.0f}): so much does the core's own pace change."
    )


def _number(number: float) -> str:
    if abs(number) >= 1000:
        return f"{number:,.0f}"
    return f"{number:.3g}"
