"""The three figures: a wake's own cost, a warm request's, and a crowd's."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from matrix.testing.wire import Answer, run
from tests.fleet.site import Site

WARM_USERS = 20
"""Whose machines are awake."""

ASIDE = ("begin", "commit", "rollback", "set ", "show ", "select set_config")
"""How statements begin that only go along with others."""


def quantile(values: Sequence[float], share: float) -> float:
    """The value that this share of them does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


@dataclass
class Verdict:
    """What was seen, and what should not have been."""

    lines: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def say(self, line: str) -> None:
        """A figure."""
        self.lines.append(line)

    def demand(self, held: bool, what: str) -> None:
        """@param what: what is wrong if it does not hold."""
        if not held:
            self.faults.append(what)


def _milliseconds(values: Sequence[float]) -> str:
    shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
    told = [f"{name} {quantile(values, share) * 1000:.1f}" for name, share in shares.items()]
    return ", ".join([*told, f"max {max(values) * 1000:.1f}"]) + " ms"


def wakes(site: Site, count: int, most: tuple[float, float]) -> Verdict:
    """
    One wake after the other, each of another sleeping machine.

    @param most: seconds that p50 and p99 may take beyond the machine's own time.
    """
    verdict = Verdict()
    names = site.names[:count]
    raw = [site.raw(name) for name in names[: max(5, count // 5)]]
    site.forget_calls()
    seconds = [run(_one(site, name)) for name in names]
    calls = site.calls()
    own = quantile(raw, 0.5)
    over = [took - own for took in seconds]
    verdict.say(f"raw: start and ask, without a router, {len(raw)} times: {_milliseconds(raw)}")
    verdict.say(f"through the router, {len(seconds)} wakes: {_milliseconds(seconds)}")
    verdict.say(f"beyond the machine's own {own * 1000:.1f} ms: {_milliseconds(over)}")
    verdict.say(f"calls to Fly: {dict(calls['by_action'])}, by status {dict(calls['by_status'])}")
    by_action = calls["by_action"]
    verdict.demand(by_action.get("machines.start") == len(names), "not one start for each wake")
    verdict.demand(by_action.get("machines.get", 0) <= len(names), "machines were looked at anew")
    verdict.demand("429" not in calls["by_status"], "Fly said 429")
    for share, limit in zip((0.5, 0.99), most, strict=True):
        took = quantile(over, share)
        verdict.demand(took <= limit, f"p{share * 100:g} is {took * 1000:.1f} ms")
    return verdict


async def _one(site: Site, name: str) -> float:
    """Seconds of a request that finds its machine asleep, on a connection that is there."""
    async with site.matrix.door.wire(site.tokens[name]) as wire:
        began = time.perf_counter()
        answer = await wire.request("GET", "/")
        seconds = time.perf_counter() - began
    assert answer.status == 200, answer
    assert answer.headers["matrix-wake"].startswith("suspended"), answer.headers
    assert answer.json()["user"] == site.ids[name], answer.body
    return seconds


ENDING = 1.0
"""Seconds within which the calls of a wake have ended that goes on without them."""


def warm(site: Site, count: int, pause: float = 20.0) -> Verdict:
    """
    Requests to machines that are awake; what they cost at Fly and in PostgreSQL.

    @param pause: seconds for which is looked what is asked of PostgreSQL without any request.
    """
    verdict = Verdict()
    names = site.names[:WARM_USERS]
    run(_requests(site, names, len(names)))
    site.log_statements()
    time.sleep(max(pause, ENDING))  # Fly counts a wait when it ends, which may be after the wake
    usual = Counter(site.statements())
    site.forget_calls()
    began = time.perf_counter()
    count -= count % len(names)
    statuses = run(_requests(site, names, count), 600)
    took = time.perf_counter() - began
    seen, calls = Counter(site.statements()), site.calls()
    extra = [what for what in seen if not what.lower().startswith(ASIDE)]
    per_request = [what for what in extra if seen[what] > count / 100]
    verdict.say(f"{count} requests in {took:.1f} s: {dict(statuses)}")
    verdict.say(f"calls to Fly: {calls['total']} {dict(calls['by_action'])}")
    verdict.say(f"statements in those {took:.1f} s: {sum(seen[what] for what in extra)}")
    verdict.lines += [f"    {seen[what]:4d} {what}" for what in extra]
    verdict.say(f"statements in {pause:.0f} s without requests: {sum(usual.values())}")
    verdict.demand(statuses == {200: count}, "a request failed")
    verdict.demand(not per_request, f"statements came with requests: {per_request}")
    asked = {action for action in calls["by_action"] if not action.startswith("orgs.")}
    verdict.demand(not asked, f"Fly was asked: {asked}")
    return verdict


async def _requests(site: Site, names: Sequence[str], count: int) -> Counter[int]:
    """So many requests, spread over these users, each with one connection that stays open."""
    statuses: Counter[int] = Counter()

    async def one(name: str) -> None:
        async with site.matrix.door.wire(site.tokens[name]) as wire:
            for _ in range(count // len(names)):
                statuses[(await wire.request("GET", "/")).status] += 1

    await asyncio.gather(*map(one, names))
    return statuses


def crowd(site: Site) -> Verdict:
    """All users at once, and all asleep."""
    verdict = Verdict()
    site.forget_calls()
    answers, seconds = run(_at_once(site), 300)
    calls = site.calls()
    statuses = Counter(answer.status for answer in answers)
    theirs = [
        answer.status == 200 and answer.json()["user"] == site.ids[name]
        for name, answer in zip(site.names, answers, strict=True)
    ]
    verdict.say(f"{len(answers)} sleeping users at once: {dict(statuses)}")
    verdict.say(f"answered after: {_milliseconds(seconds)}")
    verdict.say(f"calls to Fly: {dict(calls['by_action'])}, by status {dict(calls['by_status'])}")
    verdict.demand(all(theirs), "somebody was not answered by their own machine")
    verdict.demand("429" not in calls["by_status"], "Fly said 429")
    starts = calls["by_action"].get("machines.start")
    verdict.demand(starts == len(answers), f"{starts} starts for {len(answers)} machines")
    return verdict


async def _at_once(site: Site) -> tuple[list[Answer], list[float]]:
    wires = []
    for first in range(0, len(site.names), 50):  # handshakes are not what is measured
        some = site.names[first : first + 50]
        wires += await asyncio.gather(*(site.matrix.door.open(site.tokens[name]) for name in some))
    began = time.perf_counter()
    seconds: list[float] = []

    async def one(number: int) -> Answer:
        answer = await wires[number].request("GET", "/")
        seconds.append(time.perf_counter() - began)
        return answer

    try:
        return list(await asyncio.gather(*map(one, range(len(wires))))), seconds
    finally:
        for wire in wires:
            wire.close()
