"""From wherever a credential comes, it lets its user in, and no machine or log sees it."""

from __future__ import annotations

import json
import re
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from matrix.machines import ProviderError
from matrix.metrics import series
from matrix.router.accessline import format_combined, format_record
from matrix.testing import cookies
from tests.router.world import ALICE, COOKIE, Client, World

SESSION = {"access_token": "alice-token", "refresh_token": "r3fresh", "user": {}}
SUPABASE = cookies.field_of(cookies.ssr_cookies(cookies.in_chunks(SESSION, 3), COOKIE))
HANDSHAKE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec_WebSocket_Version": "13",
}
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # RFC 6455 section 1.3
TAKEN = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: " + ACCEPT + b"\r\n"
)
OURS = {"Origin": "https://door"}


class PlaceCase(SynchronousTestCase):
    """A world with alice's machine awake."""

    def setUp(self) -> None:
        self.world = World()
        self.world.awake()

    def served(self, target: str = "/", status: int = 200, **request: Any) -> Client:
        client = self.world.ask(target, **{"token": None, **request})
        self.world.let_pass(0.3)
        self.assertEqual(client.status, status)
        return client

    def refused(self, reason: str, target: str = "/", status: int = 401, **request: Any) -> Client:
        client = self.served(target, status, **request)
        self.assertEqual(json.loads(client.body)["reason"], reason)
        self.assertEqual(self.world.place().heads, [])
        return client

    @property
    def head(self) -> str:
        """What the machine was asked last."""
        return self.world.place().heads[-1].decode()

    def ticket(self, **request: Any) -> str:
        client = self.served("/-/ticket", 201, method="POST", **{"token": "alice-token", **request})
        return str(json.loads(client.body)["ticket"])


class CookieTests(PlaceCase):
    """Supabase's cookie."""

    def test_the_session_in_it_is_its_users(self) -> None:
        client = self.served(Cookie=f"theme=dark; {SUPABASE}")
        self.assertEqual(client.body, b"hello")
        self.assertIn(f"X-Matrix-User: {ALICE}", self.head)
        self.assertIn("\r\nCookie: theme=dark\r\n", self.head)
        self.assertNotIn("auth-token", self.head)

    def test_a_broken_one_is_none(self) -> None:
        self.refused("missing", Cookie=f"{COOKIE}=base64-%%%")

    def test_a_token_in_it_is_verified_like_any_other(self) -> None:
        forged = cookies.ssr_cookies({**SESSION, "access_token": "forged"}, COOKIE)
        self.refused("malformed", Cookie=cookies.field_of(forged))

    def test_it_counts_only_from_pages_that_are_trusted(self) -> None:
        for origin in ("https://evil.example", "null", "https://app.example.evil"):
            self.refused("origin", status=403, method="POST", Cookie=SUPABASE, Origin=origin)
            self.refused("origin", status=403, Cookie=SUPABASE, Origin=origin, **HANDSHAKE)
        self.refused("origin", status=403, method="POST", Cookie=SUPABASE)
        for origin in ("https://door", "https://app.example"):
            self.served(method="POST", Cookie=SUPABASE, Origin=origin)

    def test_a_token_beside_it_counts_first(self) -> None:
        self.served(method="POST", token="bob-token", Cookie=SUPABASE, status=200)
        self.assertNotIn(ALICE, self.world.place().heads)


class SubprotocolTests(PlaceCase):
    """Tokens among subprotocols."""

    def open(self, offer: str, chosen: bytes = b"", **request: Any) -> Client:
        self.world.place().answer = TAKEN + chosen + b"\r\n"
        return self.served(status=101, Sec_WebSocket_Protocol=offer, **HANDSHAKE, **request)

    def test_the_token_lets_in_and_goes_no_further(self) -> None:
        for offer, rest in (
            ("matrix.jwt.alice-token", None),
            ("jwt-alice-token", None),
            ("matrix, matrix.jwt.alice-token", None),
            ("chat, jwt-alice-token,superchat", "chat,superchat"),
        ):
            client = self.open(offer)
            self.assertNotIn("alice-token", self.head)
            found = re.search("Sec-WebSocket-Protocol: (.*)\r\n", self.head)
            self.assertEqual(found and found[1], rest, offer)
            self.assertNotIn(b"alice-token", client.transport.data)

    def test_the_machines_choice_counts(self) -> None:
        client = self.open("matrix, chat, jwt-alice-token", b"Sec-WebSocket-Protocol: chat\r\n")
        self.assertEqual(client.headers["sec-websocket-protocol"], "chat")
        self.assertEqual(client.transport.data.lower().count(b"sec-websocket-protocol"), 1)

    def test_without_one_the_marker_is_chosen(self) -> None:
        client = self.open("matrix, chat, jwt-alice-token")
        self.assertEqual(client.headers["sec-websocket-protocol"], "matrix")

    def test_without_the_marker_nothing_is(self) -> None:
        """Only the machine knows whether it speaks what else was offered."""
        client = self.open("chat, jwt-alice-token")
        self.assertNotIn("sec-websocket-protocol", client.headers)

    def test_no_page_of_another_origin_could_know_a_token(self) -> None:
        self.open("matrix.jwt.alice-token", Origin="https://evil.example")

    def test_a_refused_handshake_chooses_nothing(self) -> None:
        client = self.served(Sec_WebSocket_Protocol="matrix, jwt-alice-token", **HANDSHAKE)
        self.assertNotIn("sec-websocket-protocol", client.headers)

    def test_in_two_lines(self) -> None:
        client = self.world.client()
        self.world.place().answer = TAKEN + b"\r\n"
        lines = "".join(f"{name.replace('_', '-')}: {text}\r\n" for name, text in HANDSHAKE.items())
        client.connection.dataReceived(
            b"GET / HTTP/1.1\r\nHost: door\r\nSec-WebSocket-Protocol: matrix, chat\r\n"
            b"sec_websocket_protocol: jwt-sneaky\r\n"
            b"Sec-WebSocket-Protocol: jwt-alice-token\r\n" + lines.encode() + b"\r\n"
        )
        self.world.let_pass(0.3)
        self.assertEqual(client.status, 101)
        self.assertIn("Sec-WebSocket-Protocol: chat\r\n", self.head)
        self.assertNotIn("jwt-", self.head)

    def test_a_forged_one_is_refused(self) -> None:
        self.refused("malformed", Sec_WebSocket_Protocol="jwt-forged", **HANDSHAKE)

    def test_a_failure_is_told_by_a_subprotocol_that_was_offered(self) -> None:
        """Else a browser would show none of what the close frame says."""
        self.world.asleep()
        self.world.provider_twin.fail("start", ProviderError("no"))
        offer = "jwt-alice-token, chat"
        client = self.served("/ws", 101, Sec_WebSocket_Protocol=offer, **HANDSHAKE)
        self.assertEqual(client.headers["sec-websocket-protocol"], "chat")
        self.assertEqual(client.body[:1], b"\x88")


class TicketTests(PlaceCase):
    """Tickets, from getting one to its use."""

    STREAM = {"Accept": "text/event-stream"}

    def test_it_opens_one_stream_and_goes_no_further(self) -> None:
        ticket = self.ticket()
        self.served(f"/a?x=1&matrix_ticket={ticket}&y=%20", **self.STREAM)
        self.assertTrue(self.head.startswith("GET /a?x=1&y=%20 HTTP/1.1\r\n"), self.head)
        self.assertIn(f"X-Matrix-User: {ALICE}", self.head)
        self.world.place().heads.clear()
        self.refused("ticket", f"/a?matrix_ticket={ticket}", **self.STREAM)

    def test_it_opens_a_websocket_from_anywhere(self) -> None:
        ticket = self.ticket()
        self.world.place().answer = TAKEN + b"\r\n"
        self.served(
            f"/?matrix_ticket={ticket}", 101, **HANDSHAKE, Origin="https://elsewhere.example"
        )

    def test_what_it_is(self) -> None:
        client = self.served("/-/ticket", 201, method="POST", token="alice-token")
        told = json.loads(client.body)
        self.assertEqual(told.keys(), {"ticket", "expires_in"})
        self.assertEqual(told["expires_in"], 30)
        self.assertRegex(told["ticket"], "^[A-Za-z0-9_-]{32}$")
        self.assertEqual(client.headers["cache-control"], "no-store")
        self.assertNotIn(told["ticket"].encode(), self.world.store.tickets._tickets)

    def test_it_is_good_for_thirty_seconds(self) -> None:
        ticket = self.ticket()
        self.world.let_pass(31, step=1.0)
        self.refused("ticket", f"/?matrix_ticket={ticket}", **self.STREAM)

    def test_it_opens_nothing_else(self) -> None:
        ticket = self.ticket()
        self.refused("ticket", f"/?matrix_ticket={ticket}")
        self.refused("ticket", f"/?matrix_ticket={ticket}", method="POST", Cookie=SUPABASE, **OURS)
        self.served(f"/?matrix_ticket={ticket}", **self.STREAM)

    def test_what_cannot_be_one_is_not_looked_for(self) -> None:
        self.served(token="alice-token")  # so that the token would be recalled
        self.world.place().heads.clear()
        self.world.store.lose()  # so that looking would be noticed
        for made_up in ("alice-token", "eyJhbGciOiJub25lIn0.e30.", "", "x" * 31, "x" * 33):
            self.refused("ticket", f"/?matrix_ticket={made_up}", **self.STREAM)

    def test_it_is_taken_out_beside_another_credential_too(self) -> None:
        self.served("/a?matrix_ticket=t&x=1", token="alice-token")
        self.assertTrue(self.head.startswith("GET /a?x=1 HTTP/1.1\r\n"))

    def test_nobody_gets_one_without_a_credential(self) -> None:
        self.refused("missing", "/-/ticket", method="POST")
        self.refused("origin", "/-/ticket", 403, method="POST", Cookie=SUPABASE)
        evil = "https://evil.example"
        self.refused("origin", "/-/ticket", 403, method="POST", Cookie=SUPABASE, Origin=evil)

    def test_a_page_of_ours_gets_one_by_its_cookie(self) -> None:
        ticket = self.ticket(token=None, Cookie=SUPABASE, **OURS)
        self.served(f"/?matrix_ticket={ticket}", **self.STREAM)

    def test_while_the_directory_is_away_it_is_told_so(self) -> None:
        ticket = self.ticket()
        self.world.store.lose()
        self.refused("directory", "/-/ticket", 503, method="POST", token="alice-token")
        self.refused("directory", f"/?matrix_ticket={ticket}", 503, **self.STREAM)
        self.world.store.recover()
        self.served(f"/?matrix_ticket={ticket}", **self.STREAM)


class QueryTests(PlaceCase):
    """Tokens in the query, where they are allowed."""

    def test_the_token_lets_in_and_goes_no_further(self) -> None:
        self.served("/a?access_token=alice-token&b=1")
        self.assertTrue(self.head.startswith("GET /a?b=1 HTTP/1.1\r\n"))

    def test_nor_by_the_pages_address(self) -> None:
        self.served("/x", token="alice-token", Referer="https://door/a?access_token=alice-token")
        self.assertIn("Referer: https://door/a\r\n", self.head)

    def test_two_are_refused(self) -> None:
        self.refused("two-query-tokens", "/?access_token=a&access_token=b", 400)

    def test_no_page_holds_it(self) -> None:
        self.world.asleep()
        self.world.provider_twin.delays["start"] = 60.0
        accept = {"Accept": "text/html", "Sec_Fetch_Mode": "navigate"}
        for target in ("/?access_token=alice-token", "/?apikey=alice-token"):
            client = self.world.ask(target, token="alice-token", **accept)
            self.world.let_pass(3.0)
            self.assertEqual(client.status, 503)
            self.assertNotIn(b"alice-token", client.transport.data)
            self.assertIn(b'data-wanted=""', client.body)


class LogTests(PlaceCase):
    """What the access log shows."""

    def test_no_credential_in_either_form(self) -> None:
        page = "https://door/p?matrix_ticket=s3cret&access_token=s3cret"
        for target in (
            "/a?matrix_ticket=s3cret",
            "/a?x=1&access_token=s3cret",
            "/-/x?token=s3cret",
        ):
            self.world.ask(target, Referer=page, Accept="text/event-stream").leave()
        self.world.let_pass(1.0)
        records = self.world.log.records
        self.assertEqual(len(records), 3)
        for record in records:
            for line in (format_record(record), format_combined(record)):
                self.assertNotIn("s3cret", line)
                self.assertIn("REDACTED", line)


class SessionTests(PlaceCase):
    """C{GET /-/session}."""

    def test_it_tells_who_asks(self) -> None:
        told = json.loads(self.served("/-/session", token="alice-token").body)
        self.assertEqual(
            told,
            {
                "user": ALICE,
                "email": "alice@example.org",
                "session": "a",
                "expires_at": 1_795_003_600.0,
            },
        )

    def test_it_wakes_nobody(self) -> None:
        world = self.world = World()
        client = self.served("/-/session", Cookie=SUPABASE)
        self.assertEqual(client.headers["cache-control"], "no-store")
        self.assertEqual(world.provider_twin.calls, [])
        self.assertEqual(world.registry.counter(series.AUTH, "verified").value, 1)

    def test_nobody_is_nobody(self) -> None:
        self.refused("missing", "/-/session")
        self.refused("ticket", "/-/session?matrix_ticket=" + "x" * 32)
