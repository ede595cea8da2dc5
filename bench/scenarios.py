"""The scenarios and their bars: a table to read and to extend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from bench import measure

SUBJECT = "matrix"


@dataclass(frozen=True)
class Bar:
    """What one figure of Matrix should be: in itself, or as a ratio to a peer's."""

    figure: str
    relation: Literal[">=", "<="]
    value: float
    peer: str | None = None
    """Whose figure Matrix's is divided by."""
    over: str | None = None
    """Whose figure is taken off both first: what the load generator alone measures."""
    unit: str = ""

    def met(self, value: float) -> bool:
        """Whether a value is good enough."""
        return value >= self.value if self.relation == ">=" else value <= self.value

    def text(self) -> str:
        """As in C{>= 1.2 × envoy-cached}."""
        sign = {">=": "≥", "<=": "≤"}[self.relation]
        return f"{sign} {self.value:g}" + (f" × {self.peer}" if self.peer else f" {self.unit}")


@dataclass(frozen=True)
class Scenario:
    """One row of the table: what is measured with whom, and what is aimed at."""

    name: str
    title: str
    peers: Sequence[str]
    measure: measure.Measure
    bars: Sequence[Bar] = ()
    fresh: bool = False
    """Start the proxies anew for each round: memory once used is not given back."""


def _transfers() -> list[Scenario]:
    return [
        Scenario(
            name=f"{word}-{connections}",
            title=f"{word}, {connections} connection{'s' * (connections > 1)}, the size in all",
            peers=(SUBJECT, "nginx"),
            measure=measure.transfer(connections, upload=word == "upload"),
            bars=(
                Bar("mb_per_s", ">=", 0.9, "nginx"),
                Bar("peak_growth_mb", "<=", 16, unit="MB (memory flat)"),
            ),
        )
        for word in ("download", "upload")
        for connections in (1, 8)
    ]


_ALL = (
    Scenario(
        name="get-1k",
        title="1 KB GET, 64 connections",
        peers=(SUBJECT, "envoy-cached", "envoy", "caddy", "nginx", "chp", "twisted", "direct"),
        measure=measure.closed_loop("/1k", 64),
        bars=(
            Bar("rps", ">=", 1.2, "envoy-cached"),
            Bar("rps", ">=", 2.5, "envoy"),
            Bar("rps", ">=", 2.2, "caddy"),
            Bar("rps", ">=", 4.0, "chp"),
            Bar("rps", ">=", 15.0, "twisted"),
            Bar("rps", ">=", 0.45, "nginx"),
            Bar("p99_ms", "<=", 1.2, "envoy-cached"),
        ),
    ),
    Scenario(
        name="fixed-rate",
        title="2,000 requests/s of 1 KB, latency",
        peers=(SUBJECT, "envoy-cached", "envoy", "direct"),
        measure=measure.fixed_rate("/1k", 2000),
        bars=(
            Bar("p50_ms", "<=", 0.3, over="direct", unit="ms over direct"),
            Bar("p99_ms", "<=", 1.5, over="direct", unit="ms over direct"),
            Bar("p99_ms", "<=", 1.0, "envoy-cached"),
        ),
    ),
    Scenario(
        name="post-10k",
        title="10 KB POST, 64 connections",
        peers=(SUBJECT, "envoy-cached", "envoy", "nginx", "direct"),
        measure=measure.closed_loop("/sink", 64, body=10240),
        bars=(Bar("rps", ">=", 1.0, "envoy-cached"),),
    ),
    *_transfers(),
    Scenario(
        name="sse",
        title="SSE, 2,000 streams, an event a second each",
        peers=(SUBJECT, "envoy-cached", "nginx"),
        measure=measure.event_streams(2000),
        bars=(
            Bar("p99_ms", "<=", 100, unit="ms late"),
            Bar("cpu_us", "<=", 1.5, "envoy-cached"),
        ),
    ),
    Scenario(
        name="idle-tls",
        title="10,000 idle TLS connections",
        peers=(SUBJECT, "envoy-cached"),
        measure=measure.idle_connections(10_000, "plain"),
        bars=(Bar("kb_each", "<=", 45, unit="KB each"),),
        fresh=True,
    ),
    Scenario(
        name="idle-websockets",
        title="8,000 idle WebSockets",
        peers=(SUBJECT, "envoy-cached"),
        measure=measure.idle_connections(8_000, "websocket"),
        bars=(Bar("kb_each", "<=", 90, unit="KB each"),),
        fresh=True,
    ),
    Scenario(
        name="echo",
        title="WebSocket echo, 256 connections, 128-byte messages",
        peers=(SUBJECT, "chp", "envoy-cached", "nginx"),
        measure=measure.echo(256),
        bars=(Bar("per_s", ">=", 1.5, "chp"),),
    ),
    Scenario(
        name="handshakes-new",
        title="TLS handshakes, new",
        peers=(SUBJECT, "caddy", "nginx"),
        measure=measure.handshakes(resume=False),
        bars=(Bar("per_s", ">=", 0.8, "caddy"),),
    ),
    Scenario(
        name="handshakes-resumed",
        title="TLS handshakes, resumed",
        peers=(SUBJECT, "caddy", "nginx"),
        measure=measure.handshakes(resume=True),
        bars=(Bar("per_s", ">=", 0.8, "caddy"),),
    ),
)

SCENARIOS: Mapping[str, Scenario] = {scenario.name: scenario for scenario in _ALL}
