"""Header rules: what crosses the door, in which form, and what never does."""

from twisted.trial.unittest import SynchronousTestCase

from matrix.auth import SESSION_COOKIE, Places
from matrix.http import HeaderRules, Limits, has_trace
from matrix.http._fields import Fields, parse_fields, parse_lines
from matrix.http._rules import trailers_to_client

LIMITS = Limits()
TRACE = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"


def words(text: str) -> list[str]:
    return text.split()


NEVER_TO_MACHINE = words(
    """
    X-Matrix-User x-matrix-user X_Matrix_User X-Matrix_User X-MATRIX-ANYTHING x_matrix_
    X-Forwarded-For X-Forwarded-Proto X-Forwarded-Host X-Forwarded-Port X_Forwarded_For
    Forwarded FORWARDED X-Real-IP X_Real_IP x-real_ip
    Fly-Client-IP Fly-Region Fly_Forwarded_Port fly-replay-src
    Authorization AUTHORIZATION Proxy-Authorization Proxy_Authorization
    Connection Keep-Alive Keep_Alive Proxy-Connection TE Upgrade
    Proxy-Authenticate Proxy-Authentication-Info
    X-Request-Id X_Request_Id Content_Length Transfer_Encoding
"""
)

ALWAYS_TO_MACHINE = words(
    """
    Accept User-Agent Range If-None-Match Origin Referer Content-Type X-Matrixed Flyer
    Sec-WebSocket-Key Sec-WebSocket-Protocol Expect X-Forwarder Via X_Custom Trailer
"""
)

NEVER_TO_CLIENT = words(
    """
    Connection Keep-Alive Proxy-Authenticate Proxy_Authenticate Transfer-Encoding Upgrade TE
    fly-replay Fly-Replay FLY_REPLAY fly-replay-cache Fly-Replay-Src
    X-Request-Id X_Request_Id Matrix-Wake Content_Length
"""
)

ALWAYS_TO_CLIENT = words(
    """
    Content-Type ETag Location Server-Timing X-Forwarded-For Trailer Fly-Request-Id Date
    WWW-Authenticate Content-Encoding Cache-Control Sec-WebSocket-Accept
"""
)


def rules() -> HeaderRules:
    places = Places()
    return HeaderRules(places.strip, places.allows_set_cookie)


def fields(*lines: str) -> Fields:
    return parse_fields(b"".join(line.encode("latin-1") + b"\r\n" for line in lines), LIMITS)


def to_machine(*lines: str) -> list[str]:
    """The lines that go on, less C{Host} and C{X-Forwarded-Host}, which are always there."""
    block = rules().to_machine(fields("Host: h.example:8443", *lines)).decode("latin-1")
    out = block.split("\r\n")
    assert out.pop() == ""
    assert out[:2] == ["Host: h.example:8443", "X-Forwarded-Host: h.example:8443"]
    return out[2:]


def to_client(*lines: str) -> list[str]:
    out = rules().to_client(fields(*lines)).decode("latin-1").split("\r\n")
    assert out.pop() == ""
    return out


class ToMachineTests(SynchronousTestCase):
    def test_dropped_in_every_spelling(self) -> None:
        for name in NEVER_TO_MACHINE:
            self.assertEqual(to_machine(f"{name}: x"), [], name)

    def test_framing_is_written_anew(self) -> None:
        self.assertEqual(to_machine("Content-Length: 5"), [])
        self.assertEqual(to_machine("Transfer-Encoding: chunked"), [])

    def test_kept_as_it_came(self) -> None:
        for name in ALWAYS_TO_MACHINE:
            self.assertEqual(to_machine(f"{name}:  x\t"), [f"{name}:  x\t"])

    def test_order_is_kept(self) -> None:
        lines = ["B: 1", "A: 2", "B: 3"]
        self.assertEqual(to_machine(*lines), lines)

    def test_nominated_by_connection(self) -> None:
        kept = to_machine("X-One: 1", "Connection: close, X-One", "x-one: 2", "X-Two: 3")
        self.assertEqual(kept, ["X-Two: 3"])

    def test_host_cannot_be_nominated(self) -> None:
        self.assertEqual(to_machine("Connection: Host, X-Forwarded-Host"), [])

    def test_trailers_are_asked_for_again(self) -> None:
        self.assertEqual(to_machine("TE: trailers, gzip"), ["TE: trailers", "Connection: TE"])

    def test_session_cookies(self) -> None:
        name = SESSION_COOKIE if isinstance(SESSION_COOKIE, str) else SESSION_COOKIE.decode()
        kept = to_machine(f"Cookie: a=1; {name}=secret; b=2")
        self.assertEqual(len(kept), 1)
        self.assertNotIn("secret", kept[0])
        self.assertIn("a=1", kept[0])
        self.assertIn("b=2", kept[0])
        self.assertEqual(to_machine(f"Cookie: {name}=secret"), [])

    def test_valid_trace_is_kept(self) -> None:
        lines = [f"traceparent: {TRACE}", "tracestate: v=1"]
        self.assertTrue(has_trace(fields(*lines)))
        self.assertEqual(to_machine(*lines), lines)

    def test_other_trace_is_dropped_with_its_state(self) -> None:
        zero_trace, zero_span = "0" * 32, "0" * 16
        for value in (
            "",
            TRACE + "-",
            TRACE.upper(),
            TRACE.replace("00-", "01-", 1),
            TRACE.replace("a" * 32, zero_trace),
            TRACE.replace("b" * 16, zero_span),
            TRACE[:-1],
        ):
            lines = (f"traceparent: {value}", "tracestate: v=1")
            self.assertFalse(has_trace(fields(*lines)), value)
            self.assertEqual(to_machine(*lines), [], value)

    def test_two_traces_are_none(self) -> None:
        self.assertEqual(to_machine(f"traceparent: {TRACE}", f"traceparent: {TRACE}"), [])
        self.assertEqual(to_machine("tracestate: v=1"), [])

    def test_found_out_once_per_block(self) -> None:
        door, block = rules(), fields("Host: h", "A: 1")
        self.assertIs(door.to_machine(block), door.to_machine(block))


class ToClientTests(SynchronousTestCase):
    def test_dropped_in_every_spelling(self) -> None:
        for name in NEVER_TO_CLIENT:
            value = "chunked" if name == "Transfer-Encoding" else "x"
            self.assertEqual(to_client(f"{name}: {value}"), [], name)
        self.assertEqual(to_client("Content-Length: 5"), [])

    def test_kept_as_it_came(self) -> None:
        for name in ALWAYS_TO_CLIENT:
            self.assertEqual(to_client(f"{name}:  x\t"), [f"{name}:  x\t"])

    def test_nominated_by_connection(self) -> None:
        self.assertEqual(to_client("Connection: X-One", "X-One: 1", "X-Two: 2"), ["X-Two: 2"])

    def test_fly_replay_type(self) -> None:
        for value in ("application/vnd.fly.replay+json", "Application/VND.Fly.Replay+JSON; a=b"):
            self.assertEqual(to_client(f"Content-Type: {value}", "A: 1"), ["A: 1"])
        kept = "Content-Type: application/json"
        self.assertEqual(to_client(kept), [kept])

    def test_a_machine_sets_its_own_cookies_only(self) -> None:
        name = SESSION_COOKIE if isinstance(SESSION_COOKIE, str) else SESSION_COOKIE.decode()
        own = "Set-Cookie: theme=dark; Path=/"
        self.assertEqual(to_client(f"Set-Cookie: {name}=forged; Path=/", own), [own])

    def test_found_out_once_per_block(self) -> None:
        door, block = rules(), fields("A: 1")
        self.assertIs(door.to_client(block), door.to_client(block))


class TrailerTests(SynchronousTestCase):
    def passed(self, *lines: str) -> list[str]:
        block = b"".join(line.encode() + b"\r\n" for line in lines)
        return trailers_to_client(parse_lines(block, LIMITS)).decode().split("\r\n")[:-1]

    def test_kept(self) -> None:
        lines = ["X-Checksum: 1", "Server-Timing: a;dur=1", "grpc-status: 0"]
        self.assertEqual(self.passed(*lines), lines)

    def test_never_framing_routing_or_credentials(self) -> None:
        for name in words(
            """
            Content-Length Transfer-Encoding Trailer TE Connection Upgrade Keep-Alive
            Host Location Forwarded X-Forwarded-Host Fly-Replay fly_replay
            Set-Cookie Cookie Authorization Proxy-Authorization WWW-Authenticate
            Content-Type Content-Encoding Content_Range Cache-Control Expires Vary
            X-Request-Id Matrix-Wake X-Matrix-User
        """
        ):
            self.assertEqual(self.passed(f"{name}: x"), [], name)
