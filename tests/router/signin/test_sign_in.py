"""Signing in with what one types: the pages, what they take, and what they refuse."""

from __future__ import annotations

import json
from html.parser import HTMLParser

from twisted.trial.unittest import SynchronousTestCase

from matrix.auth import ApiRefusal, ApiUnreachable
from matrix.metrics import series
from matrix.model import User, UserState
from matrix.router.signin.attempts import AT_ONCE, PER_ADDRESS, PER_CODE
from matrix.router.signin.clerk import CODE_PAUSE
from tests.router.signin.hall import CODE, EMAILS, PASSWORD, Hall, cookie_of, text_of
from tests.router.world import ALICE, Client

ALICES = {"email": "alice@example.org", "password": PASSWORD, "how": "password"}
CODES = {"email": "alice@example.org", "code": CODE, "how": "code"}


class Fields(HTMLParser):
    """The fields of a page's form, by name."""

    def __init__(self, client: Client) -> None:
        super().__init__()
        self.fields: dict[str, dict[str, str]] = {}
        self.labels: list[str] = []
        self.ids: list[str] = []
        self.alerts = 0
        self.feed(client.body.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "input":
            self.fields[given["name"]] = given
        if tag == "label":
            self.labels.append(given["for"])
        self.alerts += given.get("role") == "alert"
        self.ids.append(given.get("id", ""))


class HallCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.hall = Hall()

    def outcomes(self, way: str) -> dict[str, float]:
        found = {}
        for outcome in ("good", "wrong", "limited", "refused", "unavailable"):
            count = self.hall.registry.counter(series.SIGN_INS, way, outcome).value
            if count:
                found[outcome] = count
        return found


class GreetingTests(HallCase):
    def test_a_browser_without_a_session_gets_the_form_where_it_wanted_to_go(self) -> None:
        client = self.hall.browse('/notes/a%20b?x=1&y="2"')
        self.assertEqual(client.status, 401)
        self.assertIn("www-authenticate", client.headers)
        self.assertEqual(client.headers["cache-control"], "no-store")
        self.assertEqual(client.transport.data.lower().count(b"cache-control"), 1)
        page = Fields(client)
        self.assertEqual(page.fields["next"]["value"], '/notes/a%20b?x=1&y="2"')
        self.assertEqual(sorted(page.fields), ["email", "next", "password"])

    def test_no_credential_is_written_into_it(self) -> None:
        client = self.hall.browse("/notes?access_token=eyJhbGciOi.secret.x&a=1")
        self.assertEqual(client.status, 401)
        self.assertEqual(Fields(client).fields["next"]["value"], "/notes?a=1")
        self.assertNotIn(b"secret", client.body)

    def test_what_is_the_applications_own_is_kept(self) -> None:
        client = self.hall.browse("/join?code=of-an-invitation")
        self.assertEqual(Fields(client).fields["next"]["value"], "/join?code=of-an-invitation")

    def test_no_script_runs_and_nobody_frames_it(self) -> None:
        policy = self.hall.browse().headers["content-security-policy"]
        self.assertIn("default-src 'none'", policy)
        self.assertNotIn("script-src", policy)
        self.assertIn("form-action 'self'", policy)
        self.assertIn("frame-ancestors 'none'", policy)

    def test_programs_get_a_401_as_before(self) -> None:
        client = self.hall.ask("/", token=None)
        self.assertEqual(client.status, 401)
        self.assertEqual(json.loads(client.body)["reason"], "missing")

    def test_each_field_says_what_it_is(self) -> None:
        page = Fields(self.hall.browse())
        self.assertEqual(page.labels, ["email", "password"])
        email, password = page.fields["email"], page.fields["password"]
        self.assertEqual((email["type"], email["autocomplete"]), ("email", "username"))
        self.assertEqual(email["inputmode"], "email")
        self.assertIn("autofocus", email)
        self.assertEqual(password["type"], "password")
        self.assertEqual(password["autocomplete"], "current-password")

    def test_whose_session_has_ended_is_told_so(self) -> None:
        cookie = self.hall.sign_in()
        self.hall.send({}, "/-/logout", cookie)
        client = self.hall.browse("/notes", cookie)
        self.assertEqual(client.status, 401)
        self.assertIn("Your session has ended.", text_of(client))
        self.assertIn("__Host-matrix=;", client.headers["set-cookie"])

    def test_where_somebody_may_not_be_is_no_place_to_sign_in(self) -> None:
        cookie = self.hall.sign_in()
        self.hall.store.put_user(User(ALICE, "alice@example.org", UserState.BLOCKED))
        client = self.hall.browse("/", cookie)
        self.hall.let_pass(1.0)
        self.assertEqual(client.status, 403)
        self.assertIn(b'href="/-/logout"', client.body)


class PasswordTests(HallCase):
    def test_it_makes_a_session(self) -> None:
        client = self.hall.send(ALICES | {"next": "/notes?a=1"})
        self.assertEqual((client.status, client.headers["location"]), (303, "/notes?a=1"))
        name, *rules = client.headers["set-cookie"].split("; ")
        self.assertRegex(name, r"^__Host-matrix=[\w-]{102}$")
        self.assertEqual(rules, ["Path=/", "Secure", "HttpOnly", "SameSite=Lax", "Max-Age=2592000"])
        self.assertEqual(client.headers["cache-control"], "no-store")
        me = json.loads(self.hall.who(name).body)
        self.assertEqual((me["user"], me["email"]), (ALICE, "alice@example.org"))
        self.assertEqual(self.outcomes("password"), {"good": 1})

    def test_the_session_reaches_the_machine_and_no_machine_sees_it(self) -> None:
        cookie = self.hall.sign_in()
        client = self.hall.ask("/", token=None, Cookie=f"{cookie}; theme=dark")
        self.hall.let_pass(0.5)
        self.assertEqual(client.status, 200)
        [head] = self.hall.place().heads
        self.assertNotIn(b"__Host-matrix", head)
        self.assertIn(b"theme=dark", head)

    def test_a_wrong_one_is_told_at_the_field(self) -> None:
        for email in ("alice@example.org", "nobody@example.org"):
            client = self.hall.send(ALICES | {"email": email, "password": "guess", "next": "/x"})
            self.assertEqual(client.status, 401)
            self.assertIn("www-authenticate", client.headers)
            self.assertNotIn("set-cookie", client.headers)
            page = Fields(client)
            self.assertEqual(page.alerts, 1)
            self.assertEqual(page.fields["password"]["aria-invalid"], "true")
            self.assertIn(page.fields["password"]["aria-describedby"], page.ids)
            self.assertIn("autofocus", page.fields["password"])
            self.assertNotIn("autofocus", page.fields["email"])
            self.assertEqual(page.fields["email"]["value"], email)
            self.assertNotIn("value", page.fields["password"])
            self.assertEqual(page.fields["next"]["value"], "/x")
            self.assertIn("address or the password is wrong", text_of(client))
            self.assertNotIn(b"guess", client.body)
            self.assertIn(b"<title>Error: Sign in", client.body)
        self.assertEqual(self.outcomes("password"), {"wrong": 2})

    def test_who_forgets_a_field_is_asked_for_it(self) -> None:
        for given, field in (
            ({"password": ""}, "password"),
            ({"email": ""}, "email"),
            ({"email": "alice"}, "email"),
            ({"email": "a b@example.org"}, "email"),
            ({"email": "a@b\0c"}, "email"),
            ({"email": f"{'a' * 65}@example.org"}, "email"),
        ):
            client = self.hall.send(ALICES | given)
            self.assertEqual(client.status, 400, given)
            page = Fields(client)
            self.assertEqual(page.fields[field]["aria-invalid"], "true")
            self.assertIn("autofocus", page.fields[field])
        self.assertEqual(self.hall.issuer.asked, [])

    def test_what_was_typed_is_text_and_nothing_else(self) -> None:
        client = self.hall.send(ALICES | {"email": '"><script>alert(1)</script>@x'})
        self.assertNotIn(b"<script>alert", client.body)

    def test_it_leads_nowhere_else(self) -> None:
        for target in ("https://evil.example", "//evil.example", "/\\evil", "javascript:x", ""):
            client = self.hall.send(ALICES | {"next": target})
            self.assertEqual(client.headers["location"], "/", target)

    def test_another_page_signs_nobody_in(self) -> None:
        for more in (
            {"Origin": "https://evil.example"},
            {"Origin": "null"},
            {"Origin": ""},
            {"Origin": "", "Sec_Fetch_Site": "cross-site"},
            {"Origin": "", "Sec_Fetch_Site": "same-site"},
            {"Origin": "https://listed.example", "Sec_Fetch_Site": "same-origin"},
        ):
            client = self.hall.send(ALICES, **more)
            self.assertEqual(client.status, 403, more)
            self.assertNotIn("set-cookie", client.headers)
        self.assertEqual(self.hall.issuer.asked, [])

    def test_a_browser_that_says_so_otherwise_is_believed(self) -> None:
        client = self.hall.send(ALICES, Origin="", Sec_Fetch_Site="same-origin")
        self.assertEqual(client.status, 303)

    def test_a_body_that_is_no_form_is_refused(self) -> None:
        for more, body in (
            ({"Content_Type": "application/json"}, b'{"email":"a"}'),
            ({}, b"email=%ff"),
            ({}, b"\xff"),
            ({}, b"&".join(b"a=1" for _ in range(50))),
        ):
            headers = {"Content_Type": "application/x-www-form-urlencoded", **more}
            client = self.hall.ask(
                "/-/signin",
                method="POST",
                token=None,
                body=body,
                Origin="https://door",
                Content_Length=str(len(body)),
                **headers,
            )
            self.assertEqual(client.status, 400, body)

    def test_there_is_no_other_way(self) -> None:
        self.assertEqual(self.hall.send(ALICES | {"how": "magic"}).status, 404)

    def test_a_session_of_before_is_replaced_and_ended(self) -> None:
        first = self.hall.sign_in()
        second = self.hall.sign_in(cookie=first)
        self.assertNotEqual(first, second)
        self.hall.turn()
        self.assertEqual(self.hall.issuer.count("logout"), 1)
        self.assertEqual(self.hall.who(first).status, 401)
        self.assertEqual(self.hall.who(second).status, 200)

    def test_a_session_that_was_planted_stays_another_ones(self) -> None:
        planted = self.hall.sign_in("bob@example.org")
        mine = self.hall.sign_in(cookie=planted)
        self.assertNotEqual(planted, mine)
        self.assertEqual(json.loads(self.hall.who(mine).body)["user"], ALICE)

    def test_sessions_of_several_browsers_live_side_by_side(self) -> None:
        both = [self.hall.sign_in(), self.hall.sign_in()]
        for cookie in both:
            self.assertEqual(self.hall.who(cookie).status, 200)

    def test_secrets_are_in_no_log(self) -> None:
        cookie = self.hall.sign_in()
        self.hall.who(cookie)
        text = repr(self.hall.log.records)
        for secret in (PASSWORD, cookie.partition("=")[2]):
            self.assertNotIn(secret, text)


class CodeTests(HallCase):
    def ask_for_code(self, email: str = "alice@example.org") -> Client:
        client = self.hall.send({"email": email, "how": "send", "next": "/notes"})
        self.assertFalse(client.answered, "it takes as long for everybody")
        self.hall.let_pass(CODE_PAUSE + 0.1)
        return client

    def test_it_is_mailed_and_signs_in(self) -> None:
        client = self.ask_for_code()
        self.assertEqual(client.status, 200)
        page = Fields(client)
        self.assertEqual(page.labels, ["code"])
        code = page.fields["code"]
        self.assertEqual((code["autocomplete"], code["inputmode"]), ("one-time-code", "numeric"))
        self.assertIn("autofocus", code)
        self.assertEqual(page.fields["email"]["value"], "alice@example.org")
        client = self.hall.send(CODES | {"next": page.fields["next"]["value"]})
        self.assertEqual((client.status, client.headers["location"]), (303, "/notes"))
        self.assertEqual(self.hall.who(cookie_of(client)).status, 200)

    def test_spaces_and_dashes_do_not_matter(self) -> None:
        for code in (" 123456 ", "123 456", "123-456"):
            self.assertEqual(self.hall.send(CODES | {"code": code}).status, 303, code)

    def test_nobody_learns_who_has_an_account(self) -> None:
        known, unknown = self.ask_for_code(), self.ask_for_code("carol@example.org")
        self.assertEqual(known.status, unknown.status)
        self.assertEqual(
            text_of(known).replace("alice", "carol").partition("Request")[0],
            text_of(unknown).partition("Request")[0],
        )

    def test_nor_by_asking_twice(self) -> None:
        self.hall.issuer.failure = ApiRefusal(429, "over_email_send_rate_limit")
        self.assertEqual(self.ask_for_code().status, 200)

    def test_nor_by_how_long_it_takes(self) -> None:
        self.hall.issuer.held = []
        self.assertEqual(self.ask_for_code().status, 200)
        self.hall.issuer.answer()
        self.hall.turn()

    def test_an_outage_is_told(self) -> None:
        self.hall.issuer.failure = ApiUnreachable("down")
        client = self.ask_for_code()
        self.assertEqual((client.status, client.headers["retry-after"]), (503, "5"))
        self.assertEqual(Fields(client).fields["email"]["value"], "alice@example.org")

    def test_a_wrong_one_is_told_at_the_field(self) -> None:
        client = self.hall.send(CODES | {"code": "654321"})
        self.assertEqual(client.status, 401)
        page = Fields(client)
        self.assertEqual(page.fields["code"]["aria-invalid"], "true")
        self.assertIn(page.fields["code"]["aria-describedby"], page.ids)
        self.assertNotIn("value", page.fields["code"])

    def test_what_is_no_code_is_not_tried(self) -> None:
        for code in ("", " - ", "12;34", "12\n\u0663"):
            self.assertEqual(self.hall.send(CODES | {"code": code}).status, 400, code)
        self.assertEqual(self.hall.issuer.asked, [])


class TroubleTests(HallCase):
    def refused(self, failure: Exception) -> Client:
        self.hall.issuer.failure = failure
        client = self.hall.send(ALICES)
        self.assertNotIn("set-cookie", client.headers)
        self.assertEqual(Fields(client).alerts, 1)
        return client

    def test_each_refusal_has_its_status_and_its_words(self) -> None:
        for code, issued, status, words in (
            ("email_not_confirmed", 400, 403, "is not confirmed yet"),
            ("user_banned", 400, 403, "This account is blocked"),
            ("mfa_verification_required", 403, 403, "A second factor is needed"),
            ("captcha_failed", 400, 403, "CAPTCHA"),
            ("email_provider_disabled", 422, 403, "switched off"),
            ("over_request_rate_limit", 429, 429, "Too many attempts"),
            ("", 401, 503, "does not know this router"),
            ("something_new", 422, 403, "The sign-in service refused"),
        ):
            client = self.refused(ApiRefusal(issued, code))
            self.assertEqual(client.status, status, code)
            self.assertIn(words, text_of(client))

    def test_what_is_limited_says_for_how_long(self) -> None:
        client = self.refused(ApiRefusal(429, "over_request_rate_limit", 17.0))
        self.assertEqual(client.headers["retry-after"], "17")

    def test_an_outage_of_the_issuer(self) -> None:
        client = self.refused(ApiUnreachable("down"))
        self.assertEqual((client.status, client.headers["retry-after"]), (503, "5"))
        self.assertEqual(self.outcomes("password"), {"unavailable": 1})

    def test_an_outage_of_the_directory_leaves_no_session_behind(self) -> None:
        self.hall.store.lose()
        client = self.hall.send(ALICES)
        self.assertEqual(client.status, 503)
        self.assertIn("database", text_of(client))
        self.assertEqual(len(self.hall.issuer.ended), 1)

    def test_a_token_that_does_not_count_leaves_none_either(self) -> None:
        self.hall.issuer.accept.clear()
        client = self.hall.send(ALICES)
        self.assertEqual(client.status, 502)
        self.assertIn("(malformed)", text_of(client))
        self.assertEqual(len(self.hall.issuer.ended), 1)


class LimitTests(HallCase):
    def test_an_address_has_so_many_attempts(self) -> None:
        for _ in range(PER_ADDRESS):
            self.assertEqual(self.hall.send(ALICES | {"password": "guess"}).status, 401)
        client = self.hall.send(ALICES)
        self.assertEqual(client.status, 429)
        self.assertGreaterEqual(int(client.headers["retry-after"]), 1)
        self.assertEqual(self.hall.issuer.count("password"), PER_ADDRESS)
        self.hall.let_pass(float(client.headers["retry-after"]), 0.5)
        self.assertEqual(self.hall.send(ALICES).status, 303)

    def test_those_that_succeed_do_not_count(self) -> None:
        for _ in range(3 * PER_ADDRESS):
            self.hall.sign_in()

    def test_codes_are_asked_for_as_seldom(self) -> None:
        asked = []
        for _ in range(2 * PER_ADDRESS):
            asked.append(self.hall.send({"email": "alice@example.org", "how": "send"}))
            self.hall.let_pass(CODE_PAUSE + 0.1)
        statuses = [client.status for client in asked]
        self.assertEqual(statuses[:PER_ADDRESS], [200] * PER_ADDRESS)
        self.assertIn(429, statuses)
        self.assertEqual(self.hall.issuer.count("send"), statuses.count(200))

    def test_many_at_once_are_not_let_by(self) -> None:
        self.hall.issuer.held = []
        clients = [self.hall.send(ALICES | {"password": "guess"}) for _ in range(3 * AT_ONCE)]
        self.assertEqual(self.hall.issuer.count("password"), AT_ONCE)
        self.hall.issuer.answer()
        self.assertEqual(sum(client.status == 429 for client in clients), 2 * AT_ONCE)
        self.assertEqual(self.hall.send(ALICES).status, 303)

    def test_an_account_has_so_many_guesses_at_its_code(self) -> None:
        statuses = [self.hall.send(CODES | {"code": "000000"}).status for _ in range(PER_CODE + 1)]
        self.assertEqual(statuses, [401] * PER_CODE + [429])
        self.assertEqual(self.hall.send(CODES | {"email": "ALICE@example.org"}).status, 429)
        self.assertEqual(self.hall.send(CODES | {"email": "bob@example.org"}).status, 303)
        self.assertEqual(self.hall.send(ALICES).status, 303, "a password does")


class SignInPageTests(HallCase):
    def test_it_can_be_opened_by_itself(self) -> None:
        client = self.hall.browse("/-/signin?next=/notes")
        self.assertEqual(client.status, 200)
        self.assertEqual(Fields(client).fields["next"]["value"], "/notes")

    def test_who_is_signed_in_goes_on(self) -> None:
        cookie = self.hall.sign_in()
        for query, location in (("?next=/notes", "/notes"), ("", "/"), ("?next=/-/signin", "/")):
            client = self.hall.browse(f"/-/signin{query}", cookie)
            self.assertEqual((client.status, client.headers["location"]), (303, location))

    def test_a_cookie_that_is_worth_nothing_goes(self) -> None:
        client = self.hall.browse("/-/signin", "__Host-matrix=" + "A" * 102)
        self.assertEqual(client.status, 200)
        self.assertIn("Max-Age=0", client.headers["set-cookie"])

    def test_every_user_has_an_address(self) -> None:
        for email, user_id in EMAILS.items():
            me = json.loads(self.hall.who(self.hall.sign_in(email)).body)
            self.assertEqual(me["user"], user_id)
