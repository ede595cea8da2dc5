"""The public names of each room. A change here is a change to what other rooms may rely on."""

from importlib import import_module
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).parent.parent

EXPORTS = {
    "api": [
        "Api",
        "BearerCheck",
        "Check",
        "EventStream",
        "dump",
        "read_json",
        "read_model",
        "send_json",
    ],
    "auth": [
        "AMBIENT",
        "OUTCOMES",
        "SESSION_COOKIE",
        "ApiRefusal",
        "ApiUnreachable",
        "AuthApi",
        "Credential",
        "Failures",
        "Grant",
        "IGate",
        "IKeySource",
        "Issuer",
        "JwksKeys",
        "Key",
        "MachineSecrets",
        "MemoryGate",
        "Policy",
        "Reason",
        "Source",
        "StaticKeys",
        "TokenGate",
        "allows_set_cookie",
        "check_origin",
        "find_token",
        "refusal",
        "secret_key",
        "without_session_cookies",
    ],
    "cli": [
        "main",
    ],
    "daemon": [],
    "directory": [
        "DirectoryUnavailable",
        "EmbeddedPostgres",
        "IDirectory",
        "ISessions",
        "MemoryDirectory",
        "PostgresDirectory",
        "StaleRow",
        "UnknownUser",
        "migrate",
        "open_directory",
    ],
    "http": [
        "FORBIDDEN",
        "SERVICE_RESTART",
        "TRY_AGAIN_LATER",
        "UNAUTHORIZED",
        "Answer",
        "Backend",
        "BodySink",
        "Counters",
        "Exchange",
        "Handler",
        "HeaderList",
        "HeaderRules",
        "Hold",
        "Keeper",
        "Limits",
        "Relay",
        "Render",
        "Request",
        "RequestHead",
        "ServerConnection",
        "ServerFactory",
        "Stream",
        "TrustedProxies",
        "accept_key",
        "close_frame",
        "error_headers",
        "has_trace",
        "probe",
        "problem",
        "render_problem",
    ],
    "machines": [
        "LIFECYCLE",
        "IProvider",
        "IllegalTransition",
        "LifecycleEvent",
        "LocalProvider",
        "MachineGone",
        "MemoryFleet",
        "MemoryProvider",
        "Observed",
        "ProviderError",
        "Started",
        "next_state",
    ],
    "metrics": [
        "Counter",
        "Gauge",
        "Histogram",
        "LoopLag",
        "Merged",
        "Merger",
        "Registry",
        "RequestMeter",
        "Snapshot",
        "process_registry",
        "series",
    ],
    "net": [
        "Admission",
        "Arrivals",
        "Daemon",
        "FileShares",
        "IWheel",
        "LocalAuthority",
        "NativeClientEndpoint",
        "NativeServerEndpoint",
        "NativeTransport",
        "Presence",
        "Timed",
        "Wheel",
        "allow_many_files",
        "bind",
        "event_loop",
        "file_shares",
        "parse_listen",
        "server_context",
        "share_ticket_keys",
        "ticket_keys",
    ],
    "processes": [
        "ExitWatch",
        "Identity",
        "Process",
        "SpawnError",
        "find",
        "group_members",
        "host_boot",
        "is_alive",
        "marked_members",
        "python_reach",
        "read_pid_file",
        "session_members",
        "signal_group",
        "signal_process",
        "spawn",
        "state",
        "user_members",
        "watch_exit",
    ],
    "router": [],
    "settings": ["TYPO_RATIO", "OtherIssuer", "Settings", "env_name", "example", "load", "table"],
    "testing": [],
}


class ExportTests(SynchronousTestCase):
    def test_each_room_offers_these_names(self) -> None:
        for room, names in EXPORTS.items():
            module = import_module(f"matrix.{room}")
            self.assertEqual(getattr(module, "__all__", []), names, room)

    def test_each_name_is_there(self) -> None:
        for room, names in EXPORTS.items():
            module = import_module(f"matrix.{room}")
            for name in names:
                self.assertTrue(hasattr(module, name), f"matrix.{room}.{name}")

    def test_each_room_is_listed(self) -> None:
        rooms = {path.parent.name for path in (ROOT / "matrix").glob("*/__init__.py")}
        self.assertEqual(rooms, set(EXPORTS))
