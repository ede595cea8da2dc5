"""The links that embedded mode prints make sessions as passwords do."""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from matrix.auth import ApiUnreachable
from matrix.router.signin.links import Account, SignInLinks
from matrix.router.signin.reception import Login
from tests.router.signin.hall import LINK, PASSWORD, Client, Hall, cookie_of, links, text_of
from tests.router.world import ALICE


class LinkTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.hall = Hall(Login("builtin", links=links()))

    def follow(self, query: str, cookie: str = "", **more: str) -> Client:
        return self.hall.browse(f"/-/signin?{query}", cookie, **more)

    def test_a_link_makes_a_session_and_goes_on(self) -> None:
        client = self.follow(f"code={LINK}")
        self.assertEqual((client.status, client.headers["location"]), (303, "/"))
        self.assertEqual(client.headers["cache-control"], "no-store")
        self.assertEqual(client.headers["referrer-policy"], "no-referrer")
        rules = client.headers["set-cookie"].split("; ")[1:]
        self.assertEqual(rules, ["Path=/", "Secure", "HttpOnly", "SameSite=Lax", "Max-Age=2592000"])
        me = json.loads(self.hall.who(cookie_of(client)).body)
        self.assertEqual(me["user"], ALICE)
        self.assertEqual(self.hall.issuer.asked, ["password"])

    def test_each_time_another(self) -> None:
        cookies = {cookie_of(self.follow(f"code={LINK}")) for _ in range(3)}
        self.assertEqual(len(cookies), 3)

    def test_the_session_reaches_the_machine(self) -> None:
        cookie = cookie_of(self.follow(f"code={LINK}"))
        client = self.hall.ask("/", token=None, Cookie=cookie)
        self.hall.let_pass(0.5)
        self.assertEqual(client.status, 200)

    def test_it_goes_on_to_a_local_target(self) -> None:
        client = self.follow(f"code={LINK}&next=/docs%3Fpage=2")
        self.assertEqual(client.headers["location"], "/docs?page=2")

    def test_and_to_no_other(self) -> None:
        for target in (
            "https://evil.example/",
            "//evil.example/",
            "/%5Cevil.example",
            "/%09/evil.example",
            "javascript:alert(1)",
            "%0d%0aSet-Cookie:%20a=b",
            "",
        ):
            client = self.follow(f"code={LINK}&next={target}")
            self.assertEqual((client.status, client.headers["location"]), (303, "/"), target)

    def test_a_code_that_is_not_ours_is_refused(self) -> None:
        for query in ("code=guess", "code=", "code=%ff%fe", f"code={LINK}x", "code=%ed%a0%80"):
            client = self.hall.ask(f"/-/signin?{query}", token=None)
            self.assertEqual(client.status, 401, query)
            self.assertEqual(json.loads(client.body)["reason"], "sign-in-code")
            self.assertIn("www-authenticate", client.headers)
            self.assertNotIn("set-cookie", client.headers)

    def test_a_browser_is_told_what_to_do_about_it(self) -> None:
        client = self.follow("code=guess")
        self.assertEqual(client.status, 401)
        self.assertIn("printed when it started last", text_of(client))
        self.assertIn(b"<form", client.body)

    def test_without_a_code_there_is_the_form(self) -> None:
        client = self.follow("next=/notes")
        self.assertEqual(client.status, 200)
        self.assertIn("matrix token alice", text_of(client))

    def test_a_look_at_the_link_uses_nothing(self) -> None:
        self.hall.ask(f"/-/signin?code={LINK}", method="HEAD", token=None)
        self.assertEqual(self.hall.issuer.asked, [])

    def test_an_outage_is_told(self) -> None:
        self.hall.issuer.failure = ApiUnreachable("down")
        client = self.follow(f"code={LINK}")
        self.assertEqual(client.status, 503)
        self.assertNotIn("set-cookie", client.headers)

    def test_links_work_without_the_form(self) -> None:
        hall = Hall(Login("off", links=links()))
        self.assertEqual(hall.browse(f"/-/signin?code={LINK}").status, 303)
        self.assertEqual(hall.browse("/-/signin").status, 404)

    def test_without_links_a_code_is_nothing(self) -> None:
        client = Hall().browse(f"/-/signin?code={LINK}")
        self.assertEqual(client.status, 200)
        self.assertNotIn("set-cookie", client.headers)

    def test_each_code_has_its_user(self) -> None:
        alice, bob = Account("a@x", "1"), Account("b@x", "2")
        found = SignInLinks({"a": alice, "b": bob})
        self.assertEqual([found.redeem(code) for code in "abc"], [alice, bob, None])

    def test_the_code_and_the_password_are_in_no_log(self) -> None:
        self.follow(f"code={LINK}")
        text = repr(links()) + repr(Account("a@x", PASSWORD))
        self.assertNotIn(LINK, text)
        self.assertNotIn(PASSWORD, text)
