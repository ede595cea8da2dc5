"""The command shows what the admin API answers, and says in one line what is wrong."""

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import jwt
from click.testing import CliRunner, Result
from twisted.trial.unittest import SynchronousTestCase

import matrix
from matrix.cli import main
from matrix.cli._server import Server
from matrix.testing.issuer import LocalIssuer

TOKEN = "the-admin-token-of-this-test-0123456789"
STATUS = {
    "version": "0.1.0",
    "uptime_s": 3725.0,
    "provider": "local",
    "listeners": {"public": "https://localhost:8443/"},
    "machines": {"running": 2, "suspended": 1},
    "open_connections": 4,
    "directory_stale_s": None,
}
EVENTS = {
    "user": "id",
    "email": "alice@localhost",
    "events": [
        {
            "at": "2026-11-23T12:00:01.5+00:00",
            "kind": "suspend",
            "cause": "idle\x1b[2J",
            "detail": {},
        },
        {
            "at": "2026-11-23T12:00:00+00:00",
            "kind": "wake",
            "cause": "request",
            "detail": {"ms": 412, "was": "suspended"},
        },
    ],
}
CONTROLLED = {"user": "id", "email": "alice@localhost", "state": "running", "ms": 412}


class AdminApi(BaseHTTPRequestHandler):
    """Answers as the internal listener does; keeps what was asked."""

    asked: ClassVar[list[str]] = []
    answers: ClassVar[dict[str, tuple[int, Any]]] = {}

    def do_GET(self) -> None:
        self.asked.append(f"{self.command} {self.path}")
        status, content = self.answers.get(self.path.partition("?")[0], (404, {"title": "?"}))
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            status, content = 401, {"title": "Sign in first", "reason": "token"}
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Location", "/admin/v1/status")
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output clean."""


class CommandTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir(parents=True)
        AdminApi.asked.clear()
        AdminApi.answers.clear()

    def serve(self) -> str:
        server = ThreadingHTTPServer(("127.0.0.1", 0), AdminApi)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        self.addCleanup(server.server_close)
        self.addCleanup(thread.join)
        self.addCleanup(server.shutdown)
        return f"http://127.0.0.1:{server.server_port}"

    def running(self, token: str = TOKEN) -> str:
        """An embedded Matrix that runs."""
        url = self.serve()
        self.write_run_file({"internal": url, "admin_token": token, "pid": 1})
        return url

    def write_run_file(self, content: object) -> None:
        (self.folder / "run.json").write_text(json.dumps(content))

    def matrix(self, *arguments: str, **environment: str) -> Result:
        clean = {
            name: None
            for name in os.environ
            if name.startswith("MATRIX_") or name in ("DATABASE_URL", "CREDENTIALS_DIRECTORY")
        }
        return CliRunner().invoke(
            main,
            ["--state-dir", str(self.folder), *arguments],
            env={**clean, **environment},
            prog_name="matrix",
        )

    def works(self, *arguments: str, **environment: str) -> str:
        result = self.matrix(*arguments, **environment)
        self.assertEqual((result.exit_code, result.stderr), (0, ""))
        return result.stdout

    def fails(self, *arguments: str, **environment: str) -> str:
        """The one line that a failing command prints."""
        result = self.matrix(*arguments, **environment)
        self.assertEqual((result.exit_code, result.stdout), (1, ""), result.output)
        self.assertRegex(result.stderr, r"\AError: [^\n]+\n\Z")
        self.assertNotIn(TOKEN, result.stderr)
        return result.stderr


class StatusTests(CommandTestCase):
    def test_table(self) -> None:
        url = self.running()
        AdminApi.answers["/admin/v1/status"] = (200, STATUS)
        self.assertEqual(
            self.works("status").splitlines(),
            [
                "Matrix 0.1.0, up 1 h 2 min",
                "public       https://localhost:8443/",
                f"admin API    {url}",
                "provider     local",
                "machines     3 (2 running, 1 suspended)",
                "connections  4",
                "directory    up to date",
            ],
        )

    def test_json(self) -> None:
        self.running()
        AdminApi.answers["/admin/v1/status"] = (200, STATUS)
        self.assertEqual(json.loads(self.works("status", "--json")), STATUS)

    def test_trouble_shows(self) -> None:
        self.running()
        troubled = STATUS | {"machines": None, "directory_stale_s": 75.0}
        AdminApi.answers["/admin/v1/status"] = (200, troubled)
        text = self.works("status")
        self.assertIn("unknown: the database cannot be reached", text)
        self.assertIn("stale for 1 min 15 s", text)

    def test_workers_if_there_are_any(self) -> None:
        self.running()
        workers = [{"number": 1, "up": True}, {"number": 2, "up": False}]
        AdminApi.answers["/admin/v1/status"] = (200, STATUS | {"workers": workers})
        self.assertIn("workers      1 of 2 up", self.works("status"))

    def test_no_machines_yet(self) -> None:
        self.running()
        AdminApi.answers["/admin/v1/status"] = (200, STATUS | {"machines": {}})
        self.assertIn("machines     none yet", self.works("status"))


class EventsTests(CommandTestCase):
    def test_table_in_which_no_control_character_is_left(self) -> None:
        self.running()
        AdminApi.answers["/admin/v1/users/alice/events"] = (200, EVENTS)
        lines = self.works("events", "alice").splitlines()
        self.assertEqual(lines[0].split(), ["TIME", "EVENT", "CAUSE", "DETAIL"])
        self.assertIn("suspend  idle\ufffd[2J", lines[1])
        self.assertTrue(lines[2].endswith("wake     request   ms=412 was=suspended"), lines[2])
        self.assertEqual(AdminApi.asked, ["GET /admin/v1/users/alice/events?limit=50"])

    def test_limit_and_json(self) -> None:
        self.running()
        AdminApi.answers["/admin/v1/users/alice/events"] = (200, EVENTS)
        text = self.works("events", "alice", "--limit", "7", "--json")
        self.assertEqual(json.loads(text), EVENTS)
        self.assertEqual(AdminApi.asked, ["GET /admin/v1/users/alice/events?limit=7"])

    def test_none(self) -> None:
        self.running()
        AdminApi.answers["/admin/v1/users/alice/events"] = (200, EVENTS | {"events": []})
        self.assertEqual(self.works("events", "alice"), "no events\n")

    def test_nobody_of_that_name(self) -> None:
        self.running()
        problem = {"title": "Not found", "detail": "no user is known as 'mal'", "reason": "user"}
        AdminApi.answers["/admin/v1/users/mal/events"] = (404, problem)
        self.assertEqual(self.fails("events", "mal"), "Error: no user is known as 'mal'\n")


class ControlTests(CommandTestCase):
    def test_wake_and_suspend(self) -> None:
        self.running()
        for verb, state in (("wake", "running"), ("suspend", "suspended")):
            answer = CONTROLLED | {"state": state}
            AdminApi.answers[f"/admin/v1/users/a%40b%2Fc/{verb}"] = (200, answer)
            self.assertEqual(self.works(verb, "a@b/c"), f"alice@localhost:  {state}, 412 ms\n")
            self.assertEqual(json.loads(self.works(verb, "a@b/c", "--json")), answer)
        self.assertEqual(AdminApi.asked[0], "POST /admin/v1/users/a%40b%2Fc/wake")

    def test_a_failure_says_why(self) -> None:
        self.running()
        problem = {"title": "Your machine is not ready yet", "detail": "it did not answer"}
        AdminApi.answers["/admin/v1/users/alice/wake"] = (503, problem)
        self.assertEqual(
            self.fails("wake", "alice"), "Error: Your machine is not ready yet: it did not answer\n"
        )


class LocateTests(CommandTestCase):
    def test_nothing_runs_there(self) -> None:
        self.assertIn(f"no Matrix runs in {self.folder}", self.fails("status"))

    def test_it_ran_but_does_no_more(self) -> None:
        self.write_run_file({"internal": "http://127.0.0.1:1", "admin_token": TOKEN})
        self.assertIn(
            "does not answer at http://127.0.0.1:1 (Connection refused): is it running?",
            self.fails("status"),
        )

    def test_a_run_file_of_something_else(self) -> None:
        for content in ([], {}, {"internal": 1, "admin_token": "x"}, {"internal": "file:///etc"}):
            self.write_run_file(content)
            self.assertIn("is not what Matrix writes", self.fails("status"))

    def test_settings_name_the_server(self) -> None:
        url = self.serve()
        AdminApi.answers["/admin/v1/status"] = (200, STATUS)
        given = {"MATRIX_INTERNAL": url.removeprefix("http://"), "MATRIX_ADMIN_TOKEN": TOKEN}
        self.assertIn(url, self.works("status", **given))
        env_file = self.folder / "env"
        env_file.write_text("".join(f"{name}={value}\n" for name, value in given.items()))
        self.assertIn(url, self.works("--env-file", str(env_file), "status"))

    def test_production_without_a_token(self) -> None:
        text = self.fails("status", DATABASE_URL="postgresql://u:p@h/n")
        self.assertIn("MATRIX_ADMIN_TOKEN is not set", text)

    def test_a_wrong_token(self) -> None:
        self.running(token="another")
        self.assertIn("check MATRIX_ADMIN_TOKEN", self.fails("status"))

    def test_something_else_answers(self) -> None:
        self.running()
        for answer in ((200, b"<html>"), (404, b"<html>"), (500, [1]), (302, b"")):
            AdminApi.answers["/admin/v1/status"] = answer
            self.assertIn("is not Matrix", self.fails("status"))
        self.assertEqual(len(AdminApi.asked), 4)

    def test_another_version_answers(self) -> None:
        self.running()
        AdminApi.answers["/admin/v1/status"] = (200, {"hello": 1})
        self.assertIn("another version", self.fails("status"))

    def test_a_proxy_of_the_environment_is_left_alone(self) -> None:
        self.running()
        AdminApi.answers["/admin/v1/status"] = (200, STATUS)
        self.works("status", http_proxy="http://127.0.0.1:1", HTTP_PROXY="http://127.0.0.1:1")

    def test_bad_settings_are_named(self) -> None:
        self.assertIn("MATRIX_IDLE_TIMEOUT", self.fails("status", MATRIX_IDLE_TIMEOUT="soon"))
        self.assertIn("no such file", self.fails("--env-file", "/nowhere", "status"))

    def test_repr_hides_the_token(self) -> None:
        self.assertNotIn(TOKEN, repr(Server("http://127.0.0.1:1", TOKEN)))


class TokenTests(CommandTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.issuer = LocalIssuer.open(self.folder / "issuer")

    def claims(self, token: str) -> dict[str, Any]:
        return jwt.decode(token, options={"verify_signature": False})

    def test_for_a_user(self) -> None:
        claims = self.claims(self.works("token", "alice").strip())
        self.assertEqual(claims["sub"], self.issuer.user("alice").id)
        self.assertEqual(claims["exp"] - claims["iat"], 3600)

    def test_life_and_json(self) -> None:
        answer = json.loads(self.works("token", "bob", "--life", "60", "--json"))
        claims = self.claims(answer["token"])
        self.assertEqual(answer["user"], "bob")
        self.assertEqual(claims["exp"] - claims["iat"], 60)

    def test_unknown_user(self) -> None:
        self.assertIn("only alice, bob", self.fails("token", "mallory"))

    def test_in_production_tokens_come_from_elsewhere(self) -> None:
        text = self.fails("token", "alice", MATRIX_ISSUER="https://ref.supabase.co/auth/v1")
        self.assertIn("tokens come from https://ref.supabase.co/auth/v1", text)

    def test_where_no_matrix_ever_ran_no_key_is_made(self) -> None:
        empty = self.folder / "empty"
        empty.mkdir()
        self.assertIn("ever started", self.fails("--state-dir", str(empty), "token", "alice"))
        self.assertEqual(list(empty.iterdir()), [])


class UsageTests(CommandTestCase):
    def test_usage_errors_have_a_status_of_their_own(self) -> None:
        for arguments in (
            ["token"],
            ["nonsense"],
            ["events", "alice", "--limit", "0"],
            ["token", "alice", "--life", "-1"],
            ["status", "--nonsense"],
        ):
            result = self.matrix(*arguments)
            self.assertEqual(result.exit_code, 2, arguments)
            self.assertIn("Usage: matrix", result.stderr)

    def test_version(self) -> None:
        self.assertEqual(self.works("--version"), f"matrix {matrix.__version__}\n")

    def test_as_a_module_and_without_loading_what_it_does_not_need(self) -> None:
        program = (
            "import sys, matrix.cli\n"
            "print(sorted({'pydantic', 'twisted', 'cryptography'} & set(sys.modules)))"
        )
        found = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
        self.assertEqual(found.stdout, b"[]\n")
        module = [sys.executable, "-m", "matrix", "--version"]
        found = subprocess.run(module, capture_output=True, check=True)
        self.assertEqual(found.stdout, f"matrix {matrix.__version__}\n".encode())
