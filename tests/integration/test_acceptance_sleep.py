"""Users and their machines, seen from outside: woken when wanted, asleep when not, apart always."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from unittest import skipUnless
from urllib.request import ProxyHandler, Request, build_opener

import pytest

from matrix.testing.running import environment_of, status_of
from matrix.testing.running_case import MatrixCase

IDLE = 3.0
"""Seconds: long enough for a few requests, short enough to wait for."""

NAVIGATION = [("Sec-Fetch-Mode", "navigate"), ("Accept", "text/html,*/*;q=0.8")]


class Case(MatrixCase):
    SETTINGS = {"idle": IDLE}


@pytest.fixture(scope="module", autouse=True)
def _one_for_all() -> Iterator[None]:
    with Case.shared():
        yield


class LifeTests(Case):
    """What becomes of a machine between two requests."""

    def test_a_first_request_makes_the_machine_which_sleeps_and_is_woken(self) -> None:
        first = self.ask("carol", "PUT", "/v1/files/note.txt", b"remember me")
        self.assertEqual(first.status, 201)
        self.assertRegex(first.headers["matrix-wake"], r"^provisioning;dur=\d+$")
        born = self.matrix.machine_processes("carol")
        self.assertTrue(born)
        self.assertNotIn("T", self.states("carol"))
        boot = self.row("carol")["boot_id"]

        began = time.monotonic()
        self.until_asleep("carol")
        slept_after = time.monotonic() - began
        self.assertGreater(slept_after, IDLE - 1)

        second = self.ask("carol", "GET", "/v1/files/note.txt")
        self.assertEqual((second.status, second.body), (200, b"remember me"))
        self.assertRegex(second.headers["matrix-wake"], r"^suspended;dur=\d+$")
        self.assertRegex(
            second.headers["server-timing"],
            r"^auth;dur=[\d.]+, route;dur=[\d.]+, wake;dur=[\d.]+, ready;dur=[\d.]+, "
            r"upstream;dur=[\d.]+$",
        )
        self.assertEqual(self.matrix.machine_processes("carol"), born)
        self.assertNotIn("T", self.states("carol"))
        self.assertEqual(self.row("carol")["boot_id"], boot)
        third = self.ask("carol", "GET", "/v1/files/note.txt")
        self.assertNotIn("matrix-wake", third.headers)
        self.tell("first request", wake=first.headers["matrix-wake"])
        self.tell(
            "second", wake=second.headers["matrix-wake"], timing=second.headers["server-timing"]
        )
        self.tell("third", timing=third.headers["server-timing"])

    def test_events_tell_why(self) -> None:
        self.ask("dave", "GET", "/v1/files/")
        self.until_asleep("dave")
        self.ask("dave", "GET", "/v1/files/")
        # A wake is on record when those who waited for it are on their way.
        self.matrix.until(lambda: len(self.matrix.events("dave", "wake")) == 2, 10.0, "two wakes")
        told = [(event["kind"], event["cause"]) for event in self.matrix.events("dave")]
        self.assertEqual(told, [("wake", "request"), ("suspend", "idle"), ("wake", "request")])
        wake, _, birth = self.matrix.events("dave")
        self.assertEqual(wake["detail"]["was"], "suspended")
        self.assertEqual(birth["detail"]["was"], "provisioning")

    def test_a_wake_by_an_operator_says_so(self) -> None:
        self.ask("erin", "GET", "/v1/files/")
        self.matrix.suspend("erin")
        self.assertEqual(self.states("erin"), {"T"})
        woken = self.matrix.admin(f"users/{self.matrix.user_id('erin')}/wake", "POST")
        self.assertEqual(woken["state"], "running")
        self.assertNotIn("T", self.states("erin"))
        told = [(event["kind"], event["cause"]) for event in self.matrix.events("erin")[:2]]
        self.assertEqual(told, [("wake", "operator"), ("suspend", "operator")])


class BusyTests(Case):
    """A machine that works on though nobody uses it says so, as its environment tells it to."""

    def say(self, user: str, method: str, **wanted: object) -> tuple[int, dict[str, object]]:
        """What one of a machine's own processes is answered."""
        (leader, *_) = self.matrix.machine_processes(user)
        told = dict(one.decode().split("=", 1) for one in environment_of(leader) if b"=" in one)
        request = Request(
            f"{told['MATRIX_ROUTER_URL']}/machine/v1/{told['MATRIX_USER']}/busy",
            json.dumps(wanted).encode(),
            {
                "Authorization": f"Bearer {told['MATRIX_ROUTER_TOKEN']}",
                "Content-Type": "application/json",
            },
            method=method,
        )
        with build_opener(ProxyHandler({})).open(request, timeout=20) as answer:
            return answer.status, json.load(answer)

    def test_it_sleeps_when_it_has_done(self) -> None:
        self.ask("heidi", "GET", "/v1/files/")
        status, lease = self.say("heidi", "PUT", reason="indexing photos", seconds=600)
        self.assertEqual((status, lease["reason"]), (200, "indexing photos"))
        shown = self.matrix.admin(f"users/{self.matrix.user_id('heidi')}")
        self.assertEqual(shown["busy"]["reason"], "indexing photos")
        time.sleep(IDLE + 2)
        self.assertNotIn("T", self.states("heidi"))
        self.assertEqual(self.row("heidi")["state"], "running")
        self.assertEqual(self.say("heidi", "DELETE"), (200, {"was_busy": True}))
        self.until_asleep("heidi")
        told = [(event["kind"], event["cause"]) for event in self.matrix.events("heidi")]
        expected = [("suspend", "idle"), ("busy", "indexing photos"), ("wake", "request")]
        self.assertEqual(told, expected)


class ApartTests(Case):
    """Nobody sees what is another's."""

    SECRET = b"what alice alone may read"

    def setUp(self) -> None:
        put = self.ask("alice", "PUT", "/v1/files/secret.txt", self.SECRET)
        self.assertIn(put.status, (201, 204))
        self.assertEqual(self.ask("bob", "GET", "/v1/files/").status, 200)

    def test_bob_sees_no_file_of_alice_through_the_api(self) -> None:
        self.assertEqual(self.ask("alice", "GET", "/v1/files/secret.txt").body, self.SECRET)
        self.assertEqual(self.ask("bob", "GET", "/v1/files/").json()["entries"], [])
        self.assertEqual(self.ask("bob", "GET", "/v1/files/secret.txt").status, 404)
        alices = self.matrix.user_id("alice")
        for path in (
            f"/v1/files/../../../{alices}/data/workspace/secret.txt",
            f"/v1/files/..%2f..%2f..%2f{alices}%2fdata%2fworkspace%2fsecret.txt",
            f"/v1/files/%2fproc%2fself%2fcwd%2f..%2f..%2f{alices}%2fdata",
        ):
            answer = self.ask("bob", "GET", path)
            self.assertGreaterEqual(answer.status, 400, path)
            self.assertNotIn(self.SECRET, answer.body)

    def test_headers_make_nobody_else_of_bob(self) -> None:
        door, token = self.matrix.door, self.matrix.token("bob")
        for name in ("X-Matrix-User", "X_Matrix_User", "x-matrix-user"):
            headers = [(name, self.matrix.user_id("alice"))]
            answer = door.ask("GET", "/v1/files/", token, headers)
            self.assertEqual(answer.json()["entries"], [])

    @skipUnless(os.geteuid() == 0, "only root can give each machine a user of its own")
    def test_bobs_processes_cannot_reach_alices_files(self) -> None:
        (bobs, *_) = self.matrix.machine_processes("bob")
        (alices, *_) = self.matrix.machine_processes("alice")
        uid = int(status_of(bobs)["Uid"].split()[0])
        self.assertEqual(set(status_of(bobs)["Uid"].split()), {str(uid)})
        self.assertNotIn(uid, (0, int(status_of(alices)["Uid"].split()[0])))
        state = self.matrix.state
        socket = str(self.row("alice")["address"]).removeprefix("unix:")
        # Or everything below would be closed for a reason that has nothing to do with machines.
        self.matrix.home.chmod(0o711)
        self.addCleanup(self.matrix.home.chmod, 0o700)
        closed = [
            self.matrix.workspace("alice") / "secret.txt",
            self.matrix.workspace("alice"),
            state / "machines",
            state / "admin-token",
            state / "master-secret",
            state / "run.json",
            state / "issuer",
            state / "access.log",
            state / "tls",
            f"/proc/{self.matrix.pid}/environ",
            f"/proc/{alices}/environ",
            f"/proc/{alices}/cwd/workspace/secret.txt",
        ]
        for path in closed:
            self.assertEqual(_as_user(uid, "read", path), "PermissionError", path)
        self.assertEqual(_as_user(uid, "connect", socket), "PermissionError")
        own = self.matrix.workspace("bob")
        self.assertEqual(_as_user(uid, "read", own), "opened")

    def test_machines_have_nothing_of_the_routers(self) -> None:
        secrets = [
            (self.matrix.state / "master-secret").read_bytes().strip(),
            (self.matrix.state / "admin-token").read_bytes().strip(),
        ]
        machines = self.matrix.machine_processes("bob")
        self.assertTrue(machines)
        for pid in machines:
            environment = environment_of(pid)
            self.assertFalse([s for s in secrets if any(s in line for line in environment)])
            names = {line.partition(b"=")[0] for line in environment if line}
            self.assertFalse({n for n in names if re.match(rb"DATABASE|PG|MATRIX_DAEMON", n)})
            mine, theirs = _descriptors(pid), _descriptors(self.matrix.pid)
            self.assertFalse(
                {place for place in mine & theirs if not place.startswith(("/dev/", "anon_inode:"))}
            )

    def test_one_machines_token_opens_no_other(self) -> None:
        def token(user: str) -> bytes:
            (pid, *_) = self.matrix.machine_processes(user)
            lines = environment_of(pid)
            return next(line for line in lines if line.startswith(b"MATRIX_MACHINE_TOKEN="))

        self.assertNotEqual(token("alice"), token("bob"))


class TokenTests(Case):
    """Who is not known does not come in, and is told why."""

    def assert_refused(self, token: str, reason: str) -> None:
        door = self.matrix.door
        answer = door.ask("GET", "/", token)
        self.assertEqual(answer.status, 401)
        self.assertEqual(answer.headers["content-type"], "application/problem+json")
        self.assertTrue(answer.headers["www-authenticate"].startswith("Bearer"))
        problem = answer.json()
        self.assertEqual((problem["status"], problem["reason"]), (401, reason))
        self.assertEqual(problem["type"], "urn:matrix:problem:unauthorized")
        page = door.ask("GET", "/", token, NAVIGATION)
        self.assertEqual(page.status, 401)
        self.assertTrue(page.headers["content-type"].startswith("text/html"))
        self.assertIn(b"Sign in", page.body)
        self.assertTrue(problem["detail"])

    def test_no_token(self) -> None:
        self.assert_refused("", "missing")

    def test_no_jwt(self) -> None:
        self.assert_refused("open-sesame", "malformed")

    def test_a_forged_token(self) -> None:
        head, payload, signature = self.matrix.token("alice").split(".")
        forged = f"{head}.{payload}.{'A' if signature[0] != 'A' else 'B'}{signature[1:]}"
        self.assert_refused(forged, "signature")

    def test_a_token_signed_by_nobody(self) -> None:
        self.assert_refused(self.matrix.token("alice", alg="none"), "algorithm")

    def test_a_token_signed_with_the_public_key(self) -> None:
        self.assert_refused(self.matrix.token("alice", alg="HS256"), "algorithm")

    def test_an_expired_token(self) -> None:
        self.assert_refused(self.matrix.token("alice", life=-60), "expired")

    def test_a_token_that_expires_while_it_is_known(self) -> None:
        leeway = 30.0  # MATRIX_TOKEN_LEEWAY's default
        token = self.matrix.token("alice", life=1.5 - leeway)
        self.assertEqual(self.matrix.door.ask("GET", "/v1/files/", token).status, 200)
        time.sleep(3)
        self.assert_refused(token, "expired")

    def test_a_refused_request_makes_no_machine(self) -> None:
        self.assert_refused(self.matrix.token("frank", life=-60), "expired")
        self.assertIsNone(self.matrix.machine("frank"))
        self.assertEqual(self.matrix.machine_processes("frank"), [])


TRY = """
import os, socket, sys
uid, kind, path = int(sys.argv[1]), sys.argv[2], sys.argv[3]
os.setgroups([])
os.setresgid(uid, uid, uid)
os.setresuid(uid, uid, uid)
try:
    if kind == "connect":
        socket.socket(socket.AF_UNIX).connect(path)
    elif os.path.isdir(path):
        os.listdir(path)
    else:
        open(path, "rb").read(1)
    print("opened")
except OSError as error:
    print(type(error).__name__)
"""


def _as_user(uid: int, kind: str, path: object) -> str:
    """What comes of it when a machine's user tries to C{read} or C{connect} to a path."""
    done = subprocess.run(
        [sys.executable, "-ISc", TRY, str(uid), kind, str(path)],
        cwd="/",
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    return done.stdout.strip()


def _descriptors(pid: int) -> set[str]:
    """What a process has open: files by name, sockets and pipes by number."""
    folder = f"/proc/{pid}/fd"
    return {os.readlink(f"{folder}/{number}") for number in os.listdir(folder)}
