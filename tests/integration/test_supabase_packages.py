"""The cookies that Supabase's own packages make are those that a running Matrix takes."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matrix.testing.running_case import MatrixCase
from matrix.testing.supplied import SuppliedMatrix

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "tests" / "npm" / "cookies.mjs"
INSTALLED = ROOT / ".node"
"""Where script/test installs the packages that C{tests/npm} pins."""

SECONDS = 120
"""For some two dozen sign-ins, on a busy host."""


def made_cookies(url: str, email: str, password: str) -> Mapping[str, Mapping[str, Any]]:
    """
    What a browser would send after signing in with the packages, in each way they know.

    @raise AssertionError: Node.js or the packages are not installed, or the sign-in failed.
    """
    node = shutil.which("node")
    if node is None:
        raise AssertionError("node: apt-get install nodejs npm")
    if not (INSTALLED / "node_modules" / "@supabase" / "ssr").is_dir():
        raise AssertionError(f"{INSTALLED} lacks Supabase's packages: script/test installs them")
    # Modules are looked for beside the program: so it runs where they are.
    program = shutil.copy(PROGRAM, INSTALLED / PROGRAM.name)
    done = subprocess.run(
        [node, program, url, email, password],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    if done.returncode != 0:
        raise AssertionError(f"the packages did not sign in: {done.stderr[-3000:]}")
    cases: Mapping[str, Mapping[str, Any]] = json.loads(done.stdout)
    return cases


class PackageTests(MatrixCase):
    """C{@supabase/ssr} and C{@supabase/supabase-js}, against a Matrix and its issuer."""

    cases: Mapping[str, Mapping[str, Any]]

    @classmethod
    def setUpClass(cls) -> None:
        cls.matrix = matrix = SuppliedMatrix()
        cls.addClassCleanup(cls.forget)
        matrix.start()
        issuer = matrix.issuer()
        url = issuer.issuer.removesuffix("/auth/v1")
        cls.cases = made_cookies(url, issuer.user("alice").email, issuer.password("alice"))

    def whoami(self, cookie: str) -> tuple[int, Any]:
        answer = self.matrix.door.ask("GET", "/-/session", headers=[("Cookie", cookie)])
        return answer.status, json.loads(answer.body)

    def names(self, label: str) -> list[str]:
        return [pair.partition("=")[0] for pair in self.cases[label]["cookie"].split("; ")]

    def test_each_session_is_its_users(self) -> None:
        alice = self.matrix.user_id("alice")
        signed_in = {label: case for label, case in self.cases.items() if case["token"]}
        self.assertEqual(len(signed_in), 24)
        for label, case in signed_in.items():
            with self.subTest(label):
                status, told = self.whoami(f"theme=dark; {case['cookie']}; lang=de")
                self.assertEqual((status, told.get("user")), (200, alice), told)

    def test_they_came_in_one_and_in_many_cookies(self) -> None:
        """Else the test above would not have tried what it should."""
        for place in ("browser", "server"):
            sizes = [
                len(self.names(f"{place}, {encoding}, profile of {length}"))
                for encoding in ("base64url", "raw")
                for length in (0, 1500, 3000, 5000, 8000)
            ]
            self.assertEqual(sizes, [1, 2, 3, 4, 6, 1, 3, 5, 7, 11], place)
        cookie = self.cases["browser, base64url, profile of 0"]["cookie"]
        self.assertTrue(cookie.startswith("sb-127-auth-token=base64-"))
        self.assertIn("sb-127-auth-token.7", self.names("a chunk left over"))

    def test_the_token_of_the_cookie_is_the_one_that_is_taken(self) -> None:
        """A refreshed session's cookie brings the newer token."""
        ends = []
        for label in ("a short session after a long one", "refreshed"):
            status, told = self.whoami(self.cases[label]["cookie"])
            self.assertEqual(status, 200)
            ends.append((told["session"], told["expires_at"]))
        [(first, before), (second, after)] = ends
        self.assertEqual(first, second)
        self.assertLessEqual(before, after)
        tokens = {case["token"] for case in self.cases.values() if case["token"]}
        self.assertEqual(len(tokens), 23, "only the left-over chunk changes no token")

    def test_after_signing_out_there_is_none(self) -> None:
        case = self.cases["signed out"]
        self.assertNotIn("base64-", case["cookie"])
        status, told = self.whoami(case["cookie"])
        self.assertEqual((status, told["reason"]), (401, "missing"))

    def test_without_node_it_fails_and_says_what_to_install(self) -> None:
        with self.assertRaisesRegex(AssertionError, "sign in"):
            made_cookies("http://127.0.0.1:9", "nobody@example.org", "wrong")
