"""The command line of script/bench."""

from __future__ import annotations

import argparse
import resource
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from bench import report
from bench.auth import check_tokens
from bench.core import compare
from bench.measure import Effort
from bench.peers import PEERS
from bench.processes import BenchError
from bench.runner import Outcome, run, say
from bench.scenarios import SCENARIOS, SUBJECT
from bench.site import Site

RESULTS = Path(__file__).with_name("RESULTS.md")
QUICK = Effort(seconds=1, size=64 * 2**20, crowd=0.1)


def parser() -> argparse.ArgumentParser:
    """The options."""
    options = argparse.ArgumentParser(
        prog="script/bench", description="Compare Matrix with other proxies at the same job."
    )
    options.add_argument("--rounds", type=_at_least_one, default=5, help="default: 5")
    options.add_argument("--seconds", type=_at_least_one, default=5, help="of a round; default: 5")
    options.add_argument("--size", type=_at_least_one, default=1024, help="MiB; default: 1024")
    options.add_argument(
        "--only",
        default="",
        metavar="NAME,...",
        help="scenarios and peers to keep; scenarios: "
        f"{', '.join(SCENARIOS)}; peers: {', '.join(PEERS)}",
    )
    options.add_argument("--quick", action="store_true", help="one short, small round")
    options.add_argument(
        "--patience",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="how long to wait before each round for others to be quiet; default: 0",
    )
    options.add_argument("--output", type=Path, help=f"default: {RESULTS.name}, if all was run")
    options.add_argument(
        "--core", action="store_true", help="only count instructions of the core, and compare"
    )
    options.add_argument(
        "--auth", action="store_true", help="only time checks of tokens, and hold them to the bars"
    )
    options.add_argument(
        "--save", action="store_true", help="with --core: keep the count as the one to compare to"
    )
    return options


def main(arguments: Sequence[str]) -> int:
    """
    Run what was asked for.

    @return: the exit status; 0 also if bars are missed, for they are findings.
    """
    chosen = parser().parse_args(arguments)
    if chosen.core:
        return compare(save=chosen.save)
    if chosen.auth:
        return check_tokens()
    scenarios, peers = _selection(chosen.only)
    effort = QUICK if chosen.quick else Effort(chosen.seconds, chosen.size * 2**20)
    rounds = 1 if chosen.quick else chosen.rounds
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    outcomes: list[Outcome] = []
    site = Site()
    try:
        site.start()
        for name in scenarios:
            scenario = SCENARIOS[name]
            wanted = [peer for peer in scenario.peers if peer in peers or not peers]
            if wanted:
                found = run(site, scenario, wanted, rounds, effort, chosen.patience)
                outcomes.append(found)
    finally:
        site.close()
        # Also when interrupted: what was measured by then is not lost.
        if outcomes:
            whole = len(outcomes) == len(SCENARIOS) and not peers and not chosen.quick
            _write(report.document(outcomes, rounds, effort, arguments), chosen.output, whole)
    return 0


def _write(text: str, output: Path | None, whole: bool) -> None:
    """Print the result, and keep it: in its usual place only if it is all there."""
    sys.stdout.write(text)
    place = output or (RESULTS if whole else None)
    if place is not None:
        place.write_text(text)
        say(f"written to {place}")


def _selection(only: str) -> tuple[list[str], set[str]]:
    """
    The scenarios to run, and the peers, none meaning all.

    @raise BenchError: a name is neither.
    """
    names = [name for name in only.split(",") if name]
    for name in names:
        if name not in SCENARIOS and name not in PEERS:
            known = ", ".join((*SCENARIOS, *PEERS))
            raise BenchError(f"--only {name}: no such scenario or peer; there are {known}")
    scenarios = [name for name in names if name in SCENARIOS] or list(SCENARIOS)
    peers = {name for name in names if name in PEERS}
    return scenarios, peers | {SUBJECT} if peers else peers


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def _terminated(*_: object) -> None:
    raise SystemExit(143)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _terminated)  # so that what was started is stopped
    try:
        sys.exit(main(sys.argv[1:]))
    except BenchError as error:
        sys.exit(f"script/bench: {error}")
