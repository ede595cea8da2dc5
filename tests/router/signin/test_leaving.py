"""Signing out: at the issuer and here, with every kind of credential, and by nobody else."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from matrix.auth import ApiRefusal, ApiUnreachable
from matrix.model import Principal, Session
from matrix.router.signin.reception import Login
from tests.router.signin.hall import LIFE, PASSWORD, Client, Hall, text_of
from tests.router.world import ALICE, COOKIE, LISTED, NOW, run

LOG_OUT = "/-/logout"
OURS = {"Origin": "https://door"}


class LeavingCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.hall = Hall()
        self.cookie = self.hall.sign_in()

    def log_out(self, cookie: str = "", **more: str) -> Client:
        client = self.hall.ask(
            LOG_OUT,
            method="POST",
            token=None,
            Content_Length="0",
            **({"Cookie": cookie} if cookie else {}),
            **{**OURS, **more},
        )
        self.hall.turn()
        return client

    def on_record(self) -> list[Session]:
        [found] = run(self.hall.store.sessions.of_user(ALICE))
        return [session for session in found if session.revoked_at is not None]


class PageTests(LeavingCase):
    def test_a_link_leads_to_a_button_and_ends_nothing(self) -> None:
        client = self.hall.browse(LOG_OUT, self.cookie)
        self.assertEqual(client.status, 200)
        self.assertIn(b'<form method="post" action="/-/logout">', client.body)
        self.assertIn("form-action 'self'", client.headers["content-security-policy"])
        self.assertEqual(self.hall.who(self.cookie).status, 200)

    def test_who_has_left_is_told_so(self) -> None:
        client = self.hall.browse(f"{LOG_OUT}?done=1")
        self.assertEqual(client.status, 200)
        self.assertIn("You are signed out", text_of(client))
        self.assertNotIn(b"<form", client.body)


class OwnSessionTests(LeavingCase):
    def test_it_ends_here_and_at_the_issuer(self) -> None:
        client = self.log_out(self.cookie)
        self.assertEqual((client.status, client.headers["location"]), (303, "/-/logout?done=1"))
        self.assertEqual(
            client.headers["set-cookie"],
            "__Host-matrix=; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=0",
        )
        self.assertEqual(self.hall.issuer.count("logout"), 1)
        [session] = self.on_record()
        self.assertEqual(session.revoke_cause, "sign-out")
        self.assertEqual(self.hall.issuer.ended, [session.id])
        self.assertEqual(self.hall.who(self.cookie).status, 401)

    def test_other_sessions_go_on(self) -> None:
        other = self.hall.sign_in()
        self.log_out(self.cookie)
        self.assertEqual(self.hall.who(other).status, 200)

    def test_one_whose_token_has_expired_is_ended_at_the_issuer_too(self) -> None:
        self.hall.clock.advance(10 * LIFE)
        self.assertEqual(self.log_out(self.cookie).status, 303)
        self.assertEqual(self.hall.issuer.asked[-2:], ["refresh", "logout"])
        self.assertEqual(len(self.hall.issuer.ended), 1)

    def test_an_issuer_that_is_down_does_not_keep_anybody(self) -> None:
        for failure in (ApiUnreachable("down"), ApiRefusal(403, "session_not_found")):
            cookie = self.hall.sign_in()
            self.hall.issuer.failure = failure
            self.assertEqual(self.log_out(cookie).status, 303)
            self.hall.issuer.failure = None
            self.assertEqual(self.hall.who(cookie).status, 401)

    def test_a_directory_that_is_down_is_told(self) -> None:
        self.hall.store.lose()
        client = self.log_out(self.cookie)
        self.assertEqual(client.status, 503)
        self.assertNotIn("set-cookie", client.headers, "it can be tried again")
        self.hall.store.recover()
        self.assertEqual(self.log_out(self.cookie).status, 303)

    def test_twice_is_no_mistake(self) -> None:
        for _ in range(2):
            self.assertEqual(self.log_out(self.cookie).status, 303)
        self.assertEqual(self.log_out().status, 303, "nobody was signed in")

    def test_no_other_page_signs_anybody_out(self) -> None:
        for more in (
            {"Origin": "https://evil.example"},
            {"Origin": "null"},
            {"Origin": "https://evil.example", "Sec_Fetch_Site": "same-origin"},
        ):
            client = self.log_out(self.cookie, **more)
            self.assertEqual(client.status, 403, more)
            self.assertNotIn("set-cookie", client.headers)
        self.assertEqual(self.hall.who(self.cookie).status, 200)

    def test_a_listed_page_does(self) -> None:
        self.assertEqual(self.log_out(self.cookie, Origin=LISTED).status, 303)

    def test_what_is_open_of_the_machine_is_closed(self) -> None:
        self.hall.awake()
        self.hall.place().mute = True
        waiting = self.hall.ask("/slow", token=None, Cookie=self.cookie)
        self.hall.turn()
        self.assertFalse(waiting.answered)
        self.log_out(self.cookie)
        self.hall.let_pass(0.2)
        self.assertEqual(waiting.status, 401)


class OtherCredentialTests(LeavingCase):
    def token(self) -> str:
        [token] = [each for each in self.hall.gate._tokens if each.startswith(b"access-")]
        return token.decode()

    def test_a_program_ends_its_session_with_its_token(self) -> None:
        token = self.token()
        client = self.hall.ask(LOG_OUT, method="POST", token=token, Content_Length="0")
        self.hall.turn()
        self.assertEqual(client.status, 204)
        self.assertEqual(self.hall.issuer.count("logout"), 1)
        self.assertEqual(self.hall.ask("/-/session", token=token).status, 401)
        self.assertEqual(self.on_record()[0].revoke_cause, "sign-out")

    def test_supabases_cookies_are_taken_back(self) -> None:
        cookies = f"{COOKIE}.0=base64-x; {COOKIE}.1=y; theme=dark; sb-x-auth-token-code-verifier=z"
        client = self.log_out(cookies)
        self.assertEqual(client.status, 303)
        taken = [
            line.partition(b"=")[0].removeprefix(b"Set-Cookie: ").decode()
            for line in client.transport.data.split(b"\r\n")
            if line.startswith(b"Set-Cookie")
        ]
        self.assertEqual(
            taken, ["__Host-matrix", f"{COOKIE}.0", f"{COOKIE}.1", "sb-x-auth-token-code-verifier"]
        )

    def test_made_up_names_make_no_headers(self) -> None:
        names = "; ".join(f"sb-{number}-auth-token=x" for number in range(500))
        client = self.log_out(f"sb-a,b(-auth-token=x; {names}")
        self.assertEqual(client.status, 303)
        self.assertNotIn(b"a,b(", client.transport.data)
        self.assertLess(client.transport.data.count(b"Set-Cookie"), 60)


class ModeTests(SynchronousTestCase):
    """What MATRIX_LOGIN changes."""

    def test_redirect_sends_people_to_the_operators_page_and_back(self) -> None:
        hall = Hall(Login("redirect", "https://app.example/login?theme=dark"))
        client = hall.browse('/notes/a%20b?x=1&y="2"')
        self.assertEqual(client.status, 303)
        self.assertEqual(
            client.headers["location"],
            "https://app.example/login?theme=dark&next="
            "https%3A%2F%2Fdoor%2Fnotes%2Fa%2520b%3Fx%3D1%26y%3D%222%22".replace(
                "%222%22", "%222%22"
            ),
        )
        self.assertNotIn("www-authenticate", client.headers)
        self.assertEqual(client.headers["cache-control"], "no-store")
        self.assertEqual(hall.ask("/", token=None).status, 401, "programs get a 401")

    def test_no_credential_is_sent_there(self) -> None:
        hall = Hall(Login("redirect", "https://app.example/login"))
        client = hall.browse("/-/signin?next=/notes%3Faccess_token%3Dsecret")
        self.assertTrue(client.headers["location"].endswith("next=https%3A%2F%2Fdoor%2Fnotes"))

    def test_nobody_is_sent_round_and_round(self) -> None:
        hall = Hall(Login("redirect", "https://app.example/login"))
        hall.gate.accept(b"revoked", Principal(ALICE, "r", NOW + 3600.0))
        hall.gate.bar("r")
        client = hall.browse("/", Authorization="Bearer revoked")
        self.assertEqual(client.status, 401)

    def test_our_sign_in_page_leads_there_too(self) -> None:
        hall = Hall(Login("redirect", "https://app.example/#/login"))
        client = hall.browse("/-/signin?next=/notes")
        self.assertEqual(client.status, 303)
        self.assertEqual(
            client.headers["location"],
            "https://app.example/?next=https%3A%2F%2Fdoor%2Fnotes#/login",
        )
        client = hall.browse("/-/signin?next=//evil.example")
        self.assertIn("next=https%3A%2F%2Fdoor%2F#", client.headers["location"])
        form = {"email": "alice@example.org", "password": PASSWORD}
        self.assertEqual(hall.send(form).status, 405)

    def test_a_refused_token_of_the_query_is_told_nobody(self) -> None:
        target = "/notes?access_token=old-token&x=1"
        client = Hall(Login("redirect", "https://app.example/login")).browse(target)
        back = "https://app.example/login?next=https%3A%2F%2Fdoor%2Fnotes%3Fx%3D1"
        self.assertEqual((client.status, client.headers["location"]), (303, back))
        client = Hall().browse(target)
        self.assertEqual(client.status, 401)
        self.assertIn(b"/notes?x=1", client.body)
        self.assertNotIn(b"old-token", client.transport.data)

    def test_off_is_an_error_page_and_no_form(self) -> None:
        hall = Hall(Login("off"))
        client = hall.browse("/")
        self.assertEqual(client.status, 401)
        self.assertNotIn(b"<form", client.body)
        self.assertEqual(hall.browse("/-/signin").status, 404)

    def test_sign_out_is_there_in_all_of_them(self) -> None:
        for login in (Login("off"), Login("redirect", "https://app.example/")):
            self.assertEqual(Hall(login).browse(LOG_OUT).status, 200)
