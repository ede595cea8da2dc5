"""The name, meaning and labels of every series that Matrix exposes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Merge = Literal["sum", "max", "min"]
"""How the numbers of several processes make one."""


@dataclass(frozen=True, slots=True)
class CounterSeries:
    """A family of counters. The exposition adds C{_total} to the name."""

    name: str
    help: str
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GaugeSeries:
    """A family of gauges."""

    name: str
    help: str
    labels: tuple[str, ...] = ()
    merge: Merge = "sum"


@dataclass(frozen=True, slots=True)
class HistogramSeries:
    """A family of histograms with the same bucket bounds, in the unit of the name."""

    name: str
    help: str
    bounds: tuple[float, ...]
    labels: tuple[str, ...] = ()


Series = CounterSeries | GaugeSeries | HistogramSeries

# Seconds. Phases of a warm request take tens of microseconds to milliseconds; a held one
# waits up to the wake timeout (30 s), a long answer a minute and more.
_REQUEST_BOUNDS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1,
    0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip
# Seconds. A resume is well under a second, a cold start several, a first boot up to minutes.
_WAKE_BOUNDS = (
    0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0,
)  # fmt: skip
# Seconds. Without much that is new one takes a second or two, a first one minutes.
_SNAPSHOT_BOUNDS = (0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0)
# Seconds. Below 1 ms is the loop's ordinary jitter; above 100 ms users notice.
_LAG_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)

REQUESTS = CounterSeries(
    "matrix_requests",
    "Requests answered, by who answered (proxied: the machine; own: Matrix) and status class.",
    ("kind", "status"),
)
REQUEST_SECONDS = HistogramSeries(
    "matrix_request_seconds",
    "Seconds spent in each phase of a request: auth, route, wake, ready, upstream, total.",
    _REQUEST_BOUNDS,
    ("phase",),
)
WAKES = CounterSeries(
    "matrix_wakes",
    "Machines woken, by the state they were found in and by what woke them.",
    ("was", "cause"),
)
WAKE_SECONDS = HistogramSeries(
    "matrix_wake_seconds",
    "Seconds from the decision to wake a machine until it answered HTTP, by prior state.",
    _WAKE_BOUNDS,
    ("was",),
)
MACHINE_MOVES = CounterSeries(
    "matrix_machine_moves",
    "Machines made elsewhere because they could not be started where they were: no-room, or "
    "host-down (from the newest snapshot).",
    ("cause",),
)
STOCK_MACHINES = GaugeSeries(
    "matrix_stock_machines", "Machines that are ready for users who come first.", merge="max"
)
STOCK_GIVEN = CounterSeries(
    "matrix_stock_given", "Users whose first machine was there before they came."
)
WAKE_FAILURES = CounterSeries(
    "matrix_wake_failures", "Wakes that failed, by what woke the machine.", ("cause",)
)
SUSPENDS = CounterSeries("matrix_suspends", "Machines suspended, by cause.", ("cause",))
SUSPENDS_CALLED_OFF = CounterSeries(
    "matrix_suspends_called_off",
    "Machines that stayed awake after all, wanted or not to be suspended, by why they were to "
    "sleep.",
    ("cause",),
)
AWAKE_MACHINES = GaugeSeries(
    "matrix_awake_machines",
    "Machines of the whole fleet that are awake, by what woke them; every router tells the same.",
    ("cause",),
    merge="max",
)
AWAKE_SECONDS = CounterSeries(
    "matrix_awake_seconds",
    "Seconds that machines of the whole fleet were awake, by what woke them; every router tells "
    "the same.",
    ("cause",),
)
HELD_REQUESTS = GaugeSeries("matrix_held_requests", "Requests held until their machine is ready.")
HELD_BYTES = GaugeSeries(
    "matrix_held_bytes", "Bytes of bodies that are held until their machine is ready."
)
BYTES = CounterSeries(
    "matrix_bytes",
    "Bytes of HTTP and of upgraded connections, by side (client, machine) and direction "
    "(in: towards Matrix; out: away from it).",
    ("side", "direction"),
)
OPEN_CONNECTIONS = GaugeSeries(
    "matrix_open_connections", "Open connections, by side (client, machine).", ("side",)
)
CONNECTIONS = CounterSeries(
    "matrix_connections",
    "Connections of clients accepted: admitted, refused (told why), cut (closed without a word).",
    ("verdict",),
)
HANDSHAKES = GaugeSeries("matrix_handshakes", "TLS handshakes in progress.")
HANDSHAKES_FAILED = CounterSeries(
    "matrix_handshakes_failed",
    "TLS handshakes that came to nothing: timeout, protocol, gone (the client left), silent "
    "(given up for others while too many were in progress), error (ours).",
    ("reason",),
)
TIMEOUTS = CounterSeries(
    "matrix_timeouts",
    "How often time ran out, by limit: handshake, head-time, body-silence, client-silence (it "
    "does not read), keep-alive, first-byte, machine-silence, stream-silence.",
    ("limit",),
)
ACCEPT_PAUSES = CounterSeries(
    "matrix_accept_pauses",
    "How often accepting was suspended for a moment, by what was short (files, handshakes).",
    ("short",),
)
OPEN_STREAMS = GaugeSeries(
    "matrix_open_streams",
    "Exchanges in progress, by kind (http, sse, websocket).",
    ("kind",),
)
UPSTREAM_CONNECTIONS = CounterSeries(
    "matrix_upstream_connections",
    "Connections to machines taken for a request, by result (connected, reused, failed).",
    ("result",),
)
UPSTREAM_RETRIES = CounterSeries(
    "matrix_upstream_retries", "Requests sent again on a fresh connection, by reason.", ("reason",)
)
REFUSED = CounterSeries(
    "matrix_refused",
    "Requests refused, by problem type and by the rule that refused.",
    ("slug", "reason"),
)
AUTH = CounterSeries(
    "matrix_auth",
    "Tokens looked at, by result: cached, verified, limited, or the reason of the refusal.",
    ("result",),
)
SIGN_INS = CounterSeries(
    "matrix_sign_ins",
    "Attempts to sign in at our own page, by way (password, code, send: a code was asked for, "
    "link) and outcome (good, wrong, limited, refused, unavailable).",
    ("way", "outcome"),
)
SESSION_REFRESHES = CounterSeries(
    "matrix_session_refreshes",
    "Refreshes of the sessions of our own cookie, by outcome: refreshed, refused (the session "
    "is over), failed (the issuer could not be asked).",
    ("outcome",),
)
AUTH_LIMITED = GaugeSeries(
    "matrix_auth_limited",
    "Client addresses with so many refused tokens that no more of theirs are checked for now.",
)
TOKENS = GaugeSeries("matrix_tokens", "Verified tokens, and names for them, that are remembered.")
TOKEN_BYTES = GaugeSeries("matrix_token_bytes", "Bytes that these take, estimated.")
JWKS_FETCHES = CounterSeries(
    "matrix_jwks_fetches",
    "Fetches of an issuer's keys, by outcome: good, unusable (no key set), unreachable.",
    ("issuer", "outcome"),
)
JWKS_AGE_SECONDS = GaugeSeries(
    "matrix_jwks_age_seconds",
    "How long ago an issuer's keys were fetched; they are used for an hour at most.",
    ("issuer",),
    merge="max",
)
RIGHTS_LOST = CounterSeries(
    "matrix_rights_lost",
    "Requests and streams ended because the right to them ended, by kind (http, sse, websocket) "
    "and cause (expired, revoked, blocked, deleted).",
    ("kind", "cause"),
)
SESSION_CHECKS = CounterSeries(
    "matrix_session_checks",
    "Sessions with open streams that the issuer was asked about, by outcome: good, ended (revoked "
    "here too), unrecorded (the directory could not be reached), refused, unreachable.",
    ("outcome",),
)
SNAPSHOTS = CounterSeries(
    "matrix_snapshots",
    "Snapshots of machines, by cause (interval, suspend, operator, rollout) and outcome: done, "
    "partial (some files could not be read), unchanged (none was needed), failed, none (what runs "
    "in the machine takes none).",
    ("cause", "outcome"),
)
SNAPSHOT_SECONDS = HistogramSeries(
    "matrix_snapshot_seconds",
    "Seconds from asking a machine for a snapshot until it was in the repository, by cause.",
    _SNAPSHOT_BOUNDS,
    ("cause",),
)
SNAPSHOT_BYTES = CounterSeries(
    "matrix_snapshot_bytes", "Bytes by which snapshots made repositories grow."
)
SNAPSHOTS_UNDER_WAY = GaugeSeries(
    "matrix_snapshots_under_way", "Snapshots that are being taken, those that wait their turn too."
)
SNAPSHOTS_FAILING = GaugeSeries(
    "matrix_snapshots_failing",
    "Users of whom the last attempt at a snapshot failed, in the whole fleet.",
    merge="max",
)
SNAPSHOTS_LATE_SECONDS = GaugeSeries(
    "matrix_snapshots_late_seconds",
    "By how much the machine in use that has waited longest for its snapshot is late.",
    merge="max",
)
REPOSITORY_READY = GaugeSeries(
    "matrix_repository_ready",
    "1 while the repositories of snapshots can be used, 0 while their store is away.",
    merge="min",
)
REPOSITORY_REQUESTS = CounterSeries(
    "matrix_repository_requests",
    "Requests of machines to their repositories, by method and status.",
    ("method", "status"),
)
REPOSITORY_BYTES = CounterSeries(
    "matrix_repository_bytes",
    "Bytes of content that repositories took in (in) and gave out (out).",
    ("direction",),
)
DIRECTORY_STALE_SECONDS = GaugeSeries(
    "matrix_directory_stale_seconds",
    "For how long changes in the directory may have gone unnoticed; 0 while all is well.",
    merge="max",
)
SURVEYS = CounterSeries(
    "matrix_surveys",
    "Comparisons of all rows with all that there is at the provider, by outcome: done, partial "
    "(some regions did not answer), doubtful (so much is missing that nothing was concluded), "
    "failed (the provider did not answer).",
    ("outcome",),
)
RECONCILED = CounterSeries(
    "matrix_reconciled",
    "Rows that were wrong about their machine, by the state before and after.",
    ("was", "now"),
)
STRAYS = GaugeSeries(
    "matrix_strays",
    "Machines and volumes at the provider that belong to nobody, as the last survey found.",
    ("kind",),
    merge="max",
)
STUCK_MACHINES = GaugeSeries(
    "matrix_stuck_machines",
    "Machines whose transition at the provider takes longer than any should.",
    merge="max",
)
ROUTES = GaugeSeries("matrix_routes", "Users that this process knows the way to.")
LOOP_LAG_SECONDS = HistogramSeries(
    "matrix_loop_lag_seconds", "By how much the event loop ran a timer late.", _LAG_BOUNDS
)
ACCESS_LOG_DROPPED = CounterSeries(
    "matrix_access_log_dropped", "Access log records that were never written."
)
ACCESS_LOG_ERRORS = CounterSeries(
    "matrix_access_log_errors", "Attempts to write the access log that failed."
)
UPKEEP = CounterSeries(
    "matrix_upkeep",
    "What was done with users' snapshots (thin, scrub, drill, erase), by outcome: done, nothing "
    "(there was nothing to do), busy (put off), failed.",
    ("chore", "outcome"),
)
UPKEEP_TROUBLED = GaugeSeries(
    "matrix_upkeep_troubled",
    "Users with whose snapshots the last attempt at something failed; 100 stands for more.",
    merge="max",
)
DRILL_SECONDS = GaugeSeries(
    "matrix_drill_seconds", "Seconds that the last restore drill took.", merge="max"
)
DRILL_BYTES = GaugeSeries(
    "matrix_drill_bytes", "Bytes that the last restore drill brought back.", merge="max"
)
BUILD_INFO = GaugeSeries(
    "matrix_build_info",
    "Always 1; the labels say what runs.",
    ("version", "python"),
    merge="max",
)
WORKERS = GaugeSeries(
    "matrix_workers", "Worker processes, by state (up, down); none without --workers.", ("state",)
)
WORKER_RESTARTS = CounterSeries(
    "matrix_worker_restarts",
    "Worker processes started again, by what became of the one before (died, hung).",
    ("reason",),
)

TABLE: tuple[Series, ...] = (
    REQUESTS,
    REQUEST_SECONDS,
    WAKES,
    WAKE_SECONDS,
    WAKE_FAILURES,
    MACHINE_MOVES,
    STOCK_MACHINES,
    STOCK_GIVEN,
    SUSPENDS,
    SUSPENDS_CALLED_OFF,
    AWAKE_MACHINES,
    AWAKE_SECONDS,
    HELD_REQUESTS,
    HELD_BYTES,
    BYTES,
    OPEN_CONNECTIONS,
    CONNECTIONS,
    HANDSHAKES,
    HANDSHAKES_FAILED,
    TIMEOUTS,
    ACCEPT_PAUSES,
    OPEN_STREAMS,
    UPSTREAM_CONNECTIONS,
    UPSTREAM_RETRIES,
    REFUSED,
    AUTH,
    SIGN_INS,
    SESSION_REFRESHES,
    AUTH_LIMITED,
    TOKENS,
    TOKEN_BYTES,
    JWKS_FETCHES,
    JWKS_AGE_SECONDS,
    RIGHTS_LOST,
    SESSION_CHECKS,
    SNAPSHOTS,
    SNAPSHOT_SECONDS,
    SNAPSHOT_BYTES,
    SNAPSHOTS_UNDER_WAY,
    SNAPSHOTS_FAILING,
    SNAPSHOTS_LATE_SECONDS,
    REPOSITORY_READY,
    REPOSITORY_REQUESTS,
    REPOSITORY_BYTES,
    DIRECTORY_STALE_SECONDS,
    SURVEYS,
    RECONCILED,
    STRAYS,
    STUCK_MACHINES,
    ROUTES,
    LOOP_LAG_SECONDS,
    ACCESS_LOG_DROPPED,
    ACCESS_LOG_ERRORS,
    UPKEEP,
    UPKEEP_TROUBLED,
    DRILL_SECONDS,
    DRILL_BYTES,
    BUILD_INFO,
    WORKERS,
    WORKER_RESTARTS,
)
