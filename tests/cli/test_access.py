"""The commands that say who may come in: what they ask, show, and refuse to do unasked."""

import json

from click.testing import CliRunner

from matrix.cli import main

from .test_commands import TOKEN, AdminApi, CommandTestCase

ALICE = "0a1b2c3d-0000-4000-8000-00000000000a"
PHONE = "00000000-0000-4000-8000-000000000001"
LAPTOP = "00000000-0000-4000-8000-000000000002"
CLEANED = "\N{REPLACEMENT CHARACTER}"
USERS = "/admin/v1/users/alice"
NOBODY = (404, {"title": "Not found", "detail": "no user is known as 'x'", "reason": "user"})
WHO = {"user": ALICE, "email": "alice@localhost"}
LIVE = {
    "id": PHONE,
    "user": ALICE,
    "seen_at": "2026-11-23T12:00:00+00:00",
    "token_expires_at": "2026-11-23T13:00:00+00:00",
    "state": "live",
    "revoked_at": None,
    "revoke_cause": None,
}
REVOKED = {
    **LIVE,
    "id": LAPTOP,
    "state": "revoked",
    "revoked_at": "2026-11-23T12:30:00+00:00",
    "revoke_cause": "sign-out\x1b[2J",
}


class UsersTests(CommandTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.running()

    def test_block_and_unblock(self) -> None:
        AdminApi.answers[f"{USERS}/block"] = (200, {**WHO, "state": "blocked", "was": "active"})
        AdminApi.answers[f"{USERS}/unblock"] = (200, {**WHO, "state": "active", "was": "blocked"})
        self.assertEqual(
            self.works("users", "block", "alice"), "alice@localhost:  blocked, was active\n"
        )
        self.assertEqual(
            self.works("users", "unblock", "alice"), "alice@localhost:  active, was blocked\n"
        )
        self.assertEqual(AdminApi.asked, [f"POST {USERS}/block", f"POST {USERS}/unblock"])

    def test_once_more(self) -> None:
        answer = {**WHO, "email": "", "state": "blocked", "was": "blocked"}
        AdminApi.answers[f"{USERS}/block"] = (200, answer)
        self.assertEqual(self.works("users", "block", "alice"), f"{ALICE}:  blocked already\n")
        self.assertEqual(json.loads(self.works("users", "block", "alice", "--json")), answer)

    def test_who_is_not_known(self) -> None:
        AdminApi.answers[f"{USERS}/block"] = NOBODY
        self.assertEqual(self.fails("users", "block", "alice"), "Error: no user is known as 'x'\n")

    def test_delete_asks_first(self) -> None:
        AdminApi.answers[USERS] = (200, {"id": ALICE, "email": "alice@localhost"})
        deleted = f"/admin/v1/users/{ALICE}/delete"
        AdminApi.answers[deleted] = (200, {**WHO, "state": "deleted", "was": "active"})
        command = ["--state-dir", str(self.folder), "users", "delete", "alice"]
        for answer, status in (("n\n", 1), ("", 1), ("y\n", 0)):
            AdminApi.asked.clear()
            result = CliRunner().invoke(main, command, input=answer, prog_name="matrix")
            self.assertEqual(result.exit_code, status, result.output)
            self.assertIn(f"Delete alice@localhost ({ALICE})?", result.stderr)
            asked = [f"GET {USERS}"] + [f"POST {deleted}"] * (status == 0)
            self.assertEqual(AdminApi.asked, asked)
        self.assertEqual(result.stdout, "alice@localhost:  deleted, was active\n")

    def test_delete_told_not_to_ask(self) -> None:
        AdminApi.answers[f"{USERS}/delete"] = (200, {**WHO, "state": "deleted", "was": "active"})
        self.works("users", "delete", "--yes", "alice")
        self.assertEqual(AdminApi.asked, [f"POST {USERS}/delete"])

    def test_delete_of_nobody_does_not_ask(self) -> None:
        AdminApi.answers[USERS] = NOBODY
        self.assertIn("no user", self.fails("users", "delete", "alice"))


class SessionsTests(CommandTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.running()

    def listed(self, state: str, *sessions: object) -> list[str]:
        answer = {**WHO, "state": state, "sessions": sessions}
        AdminApi.answers[f"{USERS}/sessions"] = (200, answer)
        return self.works("sessions", "list", "alice", TZ="UTC").splitlines()

    def test_list(self) -> None:
        at = "2026-11-23 12:00:00.000  2026-11-23 13:00:00.000  "
        self.assertEqual(
            self.listed("active", LIVE, REVOKED),
            [
                f"{'SESSION':36}  {'FIRST SEEN':23}  {'TOKEN EXPIRES':23}  STATE",
                f"{PHONE}  {at}live",
                f"{LAPTOP}  {at}revoked 2026-11-23 12:30:00.000 (sign-out{CLEANED}[2J)",
            ],
        )
        self.assertEqual(AdminApi.asked, [f"GET {USERS}/sessions?limit=100"])

    def test_nobody_is_signed_in(self) -> None:
        self.assertEqual(self.listed("active"), ["no sessions"])

    def test_sessions_of_who_may_not_come_in(self) -> None:
        first, *others = self.listed("blocked", LIVE)
        self.assertEqual(first, "alice@localhost:  blocked; no session lets them in")
        self.assertEqual(len(others), 2)

    def test_all_sessions_of_a_user(self) -> None:
        answer = {**WHO, "state": "active", "revoked": [PHONE, LAPTOP]}
        AdminApi.answers[f"{USERS}/sessions/revoke"] = (200, answer)
        self.assertEqual(
            self.works("sessions", "revoke", "alice").splitlines(),
            [
                f"{'alice@localhost:':36}  2 revoked",
                f"{PHONE}  revoked",
                f"{LAPTOP}  revoked",
            ],
        )
        AdminApi.answers[f"{USERS}/sessions/revoke"] = (200, {**answer, "revoked": []})
        self.assertEqual(
            self.works("sessions", "revoke", "alice"), "alice@localhost:  no session to revoke\n"
        )

    def test_one_session(self) -> None:
        AdminApi.answers[f"/admin/v1/users/{LAPTOP}/sessions/revoke"] = NOBODY
        path = f"/admin/v1/sessions/{LAPTOP}/revoke"
        AdminApi.answers[path] = (200, {**REVOKED, "revoke_cause": "operator"})
        self.assertEqual(
            self.works("sessions", "revoke", LAPTOP, TZ="UTC"),
            f"{LAPTOP}:  revoked 2026-11-23 12:30:00.000 (operator)\n",
        )
        self.assertEqual(AdminApi.asked[-1], f"POST {path}")
        AdminApi.answers[path] = (200, {**REVOKED, "user": None})
        self.assertIn("neither a user nor a session", self.works("sessions", "revoke", LAPTOP))

    def test_neither_user_nor_session(self) -> None:
        AdminApi.answers[f"{USERS}/sessions/revoke"] = NOBODY
        line = self.fails("sessions", "revoke", "alice")
        self.assertIn("'alice'", line)
        self.assertIn("matrix sessions list USER", line)
        self.assertEqual(len(AdminApi.asked), 1)

    def test_other_refusals_are_told(self) -> None:
        refusal = {"title": "Not ready", "detail": "the database is away", "reason": "directory"}
        AdminApi.answers[f"/admin/v1/users/{PHONE}/sessions/revoke"] = (503, refusal)
        line = self.fails("sessions", "revoke", PHONE)
        self.assertEqual(line, "Error: Not ready: the database is away\n")
        self.assertNotIn(TOKEN, line)
