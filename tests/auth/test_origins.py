"""Which pages may use a cookie, and which may read answers."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from matrix.auth import Origins
from matrix.errors import Forbidden


class CheckTests(SynchronousTestCase):
    HOST = b"matrix.example"
    OWN = b"https://matrix.example"

    def allowed(
        self,
        method: bytes,
        origin: bytes | None,
        *,
        host: bytes | None = HOST,
        upgrade: bool = False,
    ) -> bool:
        try:
            Origins().check(method, origin, host, upgrade)
        except Forbidden as error:
            self.assertEqual((error.status, error.reason), (403, "origin"))
            return False
        return True

    def test_safe_methods_need_none(self) -> None:
        for method in (b"GET", b"HEAD", b"OPTIONS"):
            self.assertTrue(self.allowed(method, None))
            self.assertTrue(self.allowed(method, b"https://evil.example"))

    def test_unsafe_methods_and_upgrades_need_ours(self) -> None:
        for method, upgrade in (
            (b"POST", False),
            (b"PUT", False),
            (b"PATCH", False),
            (b"DELETE", False),
            (b"PROPFIND", False),
            (b"get", False),
            (b"GET", True),
        ):
            self.assertTrue(self.allowed(method, self.OWN, upgrade=upgrade), method)
            for origin in (
                None,
                b"",
                b"null",
                b"https://evil.example",
                b"http://matrix.example",
                b"https://matrix.example.evil.example",
                b"https://bob.matrix.example",
                b"https://evil.example/https://matrix.example",
                b"https://matrix.example, https://evil.example",
                b"https://matrix.example:8443",
                b"https://matrix.example/",
                b"matrix.example",
            ):
                self.assertFalse(self.allowed(method, origin, upgrade=upgrade), origin)

    def test_case_and_default_port_do_not_matter(self) -> None:
        self.assertTrue(self.allowed(b"POST", self.OWN, host=b"Matrix.Example"))
        self.assertTrue(self.allowed(b"POST", self.OWN, host=b"matrix.example:443"))
        self.assertTrue(self.allowed(b"POST", b"https://localhost:8443", host=b"localhost:8443"))
        self.assertFalse(self.allowed(b"POST", b"https://localhost", host=b"localhost:8443"))

    def test_no_host_is_nobodys_page(self) -> None:
        self.assertFalse(self.allowed(b"POST", b"https://", host=None))

    def test_listed_origins_are_as_good_as_ours(self) -> None:
        origins = Origins([b"https://app.example", b"http://localhost:3000"])
        for origin in (b"https://app.example", b"http://localhost:3000"):
            origins.check(b"POST", origin, self.HOST, False)
            origins.check(b"GET", origin, self.HOST, True)
        for origin in (
            b"http://app.example",
            b"https://app.example:8443",
            b"https://localhost:3000",
        ):
            with self.assertRaises(Forbidden):
                origins.check(b"POST", origin, self.HOST, False)


class TrustTests(SynchronousTestCase):
    """Who is listed, and who is trusted."""

    origins = Origins([b"https://app.example"])

    def test_our_own_origin_is_trusted_and_not_listed(self) -> None:
        self.assertTrue(self.origins.trusts(b"https://door.example", b"door.example"))
        self.assertFalse(self.origins.lists(b"https://door.example"))

    def test_a_listed_one_is_both(self) -> None:
        self.assertTrue(self.origins.trusts(b"https://app.example", b"door.example"))
        self.assertTrue(self.origins.trusts(b"https://app.example", None))
        self.assertTrue(self.origins.lists(b"https://app.example"))

    def test_any_other_is_neither(self) -> None:
        for origin in (b"null", b"", b"https://app.example.evil", b"https://APP.example", b"*"):
            self.assertFalse(self.origins.trusts(origin, b"door.example"), origin)
            self.assertFalse(self.origins.lists(origin), origin)
