"""How each kind of scenario is measured: one round with one peer gives named figures."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bench import tools
from bench.peers import Peer

Figures = Mapping[str, float]
Measure = Callable[[Peer, "Effort"], Figures]

WARM_SECONDS = 1
MICRO = 1e6


@dataclass(frozen=True)
class Effort:
    """How long and how much a round is."""

    seconds: int = 5
    size: int = 2**30
    """Bytes of a download or upload."""
    crowd: float = 1.0
    """The share of the connections that a scenario is meant to have."""


class Meter:
    """What a proxy used of its core in a span."""

    def __init__(self, peer: Peer) -> None:
        self._usage = peer.usage()
        self._cpu = self._usage.cpu_seconds()
        self._began = time.monotonic()

    def figures(self, count: float) -> dict[str, float]:
        """
        The share of the core, and microseconds of it for each of C{count} things.

        A share well below 1 says that something else was the bottleneck.
        """
        used = self._usage.cpu_seconds() - self._cpu
        share = used / (time.monotonic() - self._began)
        return {"core": share, "cpu_us": used / max(1.0, count) * MICRO}


def closed_loop(path: str, connections: int, body: int = 0) -> Measure:
    """Requests per second of some connections that are never idle."""

    def measure(peer: Peer, effort: Effort) -> Figures:
        tools.wrk(peer, path, connections, WARM_SECONDS, body)
        meter = Meter(peer)
        found = tools.wrk(peer, path, connections, effort.seconds, body)
        return {
            "rps": found["requests"] / found["seconds"],
            "p50_ms": found["p50_ms"],
            "p99_ms": found["p99_ms"],
            **meter.figures(found["requests"]),
        }

    return measure


def fixed_rate(path: str, rate: int) -> Measure:
    """Latency at a rate that is far from what the proxy could do."""

    def measure(peer: Peer, effort: Effort) -> Figures:
        meter = Meter(peer)
        found = tools.k6(peer, path, rate, effort.seconds)
        figures = meter.figures(found["requests"])
        shown = {name: found[name] for name in ("p50_ms", "p99_ms", "dropped")}
        return {**shown, "cpu_us": figures["cpu_us"]}

    return measure


def transfer(connections: int, upload: bool) -> Measure:
    """Bytes per second, and what the proxy's memory did meanwhile."""

    def measure(peer: Peer, effort: Effort) -> Figures:
        tools.transfer(peer, connections, effort.size // 16, upload)
        usage = peer.usage()
        usage.forget_peak()
        before, meter = usage.memory(), Meter(peer)
        seconds = tools.transfer(peer, connections, effort.size, upload)
        figures = meter.figures(effort.size / 2**20)
        return {
            "mb_per_s": effort.size / seconds / 1e6,
            "memory_mb": before / 1e6,
            "peak_growth_mb": max(0, usage.peak() - before) / 1e6,
            "growth_mb": (usage.memory() - before) / 1e6,
            "core": figures["core"],
            "cpu_us_per_mib": figures["cpu_us"],
        }

    return measure


def event_streams(streams: int) -> Measure:
    """How late the events of many streams are, and what one costs the proxy."""

    def measure(peer: Peer, effort: Effort) -> Figures:
        count = int(streams * effort.crowd)
        task = {"connections": count, "seconds": effort.seconds}
        with tools.client(peer, "streams", **task) as observe:
            meter = Meter(peer)
            found = observe()
            figures = meter.figures(found["events"])
        expected = count * effort.seconds
        return {
            "p50_ms": found["p50_ms"],
            "p99_ms": found["p99_ms"],
            "delivered": found["events"] / expected,
            **figures,
        }

    return measure


def idle_connections(count: int, kind: str) -> Measure:
    """Memory for each connection that is open and silent."""

    def measure(peer: Peer, effort: Effort) -> Figures:
        wanted, usage = int(count * effort.crowd), peer.usage()
        with tools.client(peer, "idle", kind, connections=wanted) as hold:
            before = usage.memory()
            held = hold()["connections"] - 1  # the first was there before
            time.sleep(WARM_SECONDS)
            grown = usage.memory() - before
        return {"kb_each": grown / held / 1000, "connections": held + 1}

    return measure


def echo(connections: int) -> Measure:
    """WebSocket messages there and back per second."""

    def measure(peer: Peer, effort: Effort) -> Figures:
        task = {"connections": connections, "seconds": effort.seconds}
        with tools.client(peer, "echo", **task) as observe:
            meter = Meter(peer)
            found = observe()
            figures = meter.figures(found["count"])
        return {"per_s": found["rate"], **figures}

    return measure


def handshakes(resume: bool) -> Measure:
    """TLS handshakes per second."""

    def measure(peer: Peer, effort: Effort) -> Figures:
        task = {"seconds": effort.seconds, "resume": resume}
        with tools.client(peer, "handshakes", **task) as observe:
            meter = Meter(peer)
            found = observe()
            figures = meter.figures(found["count"])
        return {"per_s": found["rate"], **figures}

    return measure
