"""First lines, and what follows from line and fields together."""

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from matrix.errors import BadGateway, MatrixError
from matrix.http import Limits, RequestHead
from matrix.http._fields import parse_fields
from matrix.http._heads import ResponseHead, guess, parse_status_line, read_request

LIMITS = Limits()

REFUSED_LINES: list[tuple[bytes, int, str]] = [
    (b"", 400, "request-line"),
    (b"GET", 400, "request-line"),
    (b"GET /", 400, "request-line"),
    (b"GET  / HTTP/1.1", 400, "request-line"),
    (b"GET / HTTP/1.1 ", 400, "request-line"),
    (b" GET / HTTP/1.1", 400, "request-line"),
    (b"GET /a b HTTP/1.1", 400, "request-line"),
    (b"GET\t/\tHTTP/1.1", 400, "request-line"),
    (b"GET / http/1.1", 400, "request-line"),
    (b"GET / HTTP/11", 400, "request-line"),
    (b"GET / HTTP/1.1x", 400, "request-line"),
    (b"G@T / HTTP/1.1", 400, "method"),
    (b"G\xe9T / HTTP/1.1", 400, "method"),
    (b"GET / HTTP/1.2", 505, "version"),
    (b"GET / HTTP/2.0", 505, "version"),
    (b"PRI * HTTP/2.0", 505, "version"),
    (b"GET / HTTP/0.9", 505, "version"),
    (b"CONNECT a:443 HTTP/1.1", 405, "method"),
    (b"M" * 33 + b" / HTTP/1.1", 501, "method"),
    (b"TRACE / HTTP/1.1", 405, "method"),
    (b"GET /#part HTTP/1.1", 400, "target"),
    (b"GET /\x00 HTTP/1.1", 400, "target"),
    (b"GET /\xe9 HTTP/1.1", 400, "target"),
    (b"GET /\x7f HTTP/1.1", 400, "target"),
    (b"GET /%b HTTP/1.1" % (b"x" * LIMITS.target), 414, "target"),
]

REFUSED_TARGETS: list[tuple[bytes, bytes, str]] = [
    (b"GET", b"*", "target"),
    (b"GET", b"a", "target"),
    (b"GET", b"a:443", "target"),
    (b"GET", b"ftp://host/", "target"),
    (b"GET", b"http://", "target"),
    (b"GET", b"http:///x", "target"),
    (b"GET", b"http://other/", "host"),
    (b"GET", b"http://host:80/", "host"),
    (b"GET", b"http://user@host/", "host"),
    (b"GET", b"http://host\\@other/", "host"),
]


def head(line: bytes, block: bytes = b"Host: host\r\n") -> RequestHead:
    return read_request(line, parse_fields(block, LIMITS), LIMITS)


class RequestLineTests(SynchronousTestCase):
    def test_refused(self) -> None:
        for line, status, reason in REFUSED_LINES:
            with self.assertRaises(MatrixError, msg=repr(line)) as caught:
                head(line)
            error = caught.exception
            self.assertEqual((error.status, error.reason), (status, reason), line)

    def test_method_not_allowed_says_what_is(self) -> None:
        """RFC 9110 section 15.5.6."""
        with self.assertRaises(MatrixError) as caught:
            head(b"TRACE / HTTP/1.1")
        self.assertIn(b"GET", dict(caught.exception.headers)[b"Allow"])

    def test_any_method_goes(self) -> None:
        for method in (b"GET", b"PATCH", b"get", b"PROPFIND", b"X!"):
            self.assertEqual(head(b"%b / HTTP/1.1" % method).method, method)

    def test_target_goes_through_byte_for_byte(self) -> None:
        target = b"//a/../%2e%2F;p\"<>\\^`{|}'?q=%00&x=//?#"[:-1]
        found = head(b"GET %b HTTP/1.1" % target)
        self.assertEqual(found.target, target)
        self.assertEqual(found.path + b"?" + found.query, target)

    def test_longest_target(self) -> None:
        longest = b"/" * LIMITS.target
        self.assertEqual(head(b"GET %b HTTP/1.1" % longest).target, longest)


class TogetherTests(SynchronousTestCase):
    def refuse(self, line: bytes, block: bytes) -> str | None:
        with self.assertRaises(MatrixError, msg=repr(line)) as caught:
            head(line, block)
        self.assertEqual(caught.exception.status, 400)
        return caught.exception.reason

    def test_host_is_needed(self) -> None:
        self.assertEqual(self.refuse(b"GET / HTTP/1.1", b""), "host")
        self.assertEqual(self.refuse(b"GET / HTTP/1.0", b""), "host")
        self.assertEqual(self.refuse(b"GET http://host/ HTTP/1.1", b""), "host")

    def test_http10_knows_no_chunks(self) -> None:
        block = b"Host: host\r\nTransfer-Encoding: chunked\r\n"
        self.assertEqual(self.refuse(b"POST / HTTP/1.0", block), "transfer-encoding")

    def test_refused_targets(self) -> None:
        for method, target, reason in REFUSED_TARGETS:
            line = b"%b %b HTTP/1.1" % (method, target)
            self.assertEqual(self.refuse(line, b"Host: host\r\n"), reason, line)

    def test_absolute_form_becomes_origin_form(self) -> None:
        for target, origin in (
            (b"http://host", b"/"),
            (b"HTTP://HOST/a?b", b"/a?b"),
            (b"https://host?b", b"/?b"),
            (b"http://host/a/?b=/c?d", b"/a/?b=/c?d"),
        ):
            self.assertEqual(head(b"GET %b HTTP/1.1" % target).target, origin)

    def test_asterisk_is_for_options(self) -> None:
        self.assertEqual(head(b"OPTIONS * HTTP/1.1").target, b"*")

    def test_keeping_alive(self) -> None:
        for version, connection, keeps in (
            (b"1.1", b"", True),
            (b"1.1", b"Connection: close\r\n", False),
            (b"1.1", b"Connection: keep-alive, close\r\n", False),
            (b"1.0", b"", False),
            (b"1.0", b"Connection: Keep-Alive\r\n", True),
        ):
            found = head(b"GET / HTTP/" + version, b"Host: h\r\n" + connection)
            self.assertEqual(found.keeps_alive, keeps, (version, connection))

    def test_websocket(self) -> None:
        asks = b"Host: h\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"
        self.assertTrue(head(b"GET / HTTP/1.1", asks).wants_websocket)
        for line, block in (
            (b"POST / HTTP/1.1", asks),
            (b"GET / HTTP/1.0", asks),
            (b"GET / HTTP/1.1", b"Host: h\r\nUpgrade: websocket\r\n"),
            (b"GET / HTTP/1.1", b"Host: h\r\nConnection: upgrade\r\n"),
            (b"GET / HTTP/1.1", asks.replace(b"websocket", b"h2c")),
            (b"GET / HTTP/1.1", asks + b"Content-Length: 5\r\n"),
            (b"GET / HTTP/1.1", asks + b"Transfer-Encoding: chunked\r\n"),
        ):
            self.assertFalse(head(line, block).wants_websocket, (line, block))

    def test_navigation(self) -> None:
        page = b"Host: h\r\nAccept: text/html,*/*\r\n"
        self.assertTrue(head(b"GET / HTTP/1.1", page).is_navigation)
        self.assertTrue(head(b"HEAD / HTTP/1.1", page).is_navigation)
        self.assertTrue(
            head(b"GET / HTTP/1.1", b"Host: h\r\nSec-Fetch-Mode: navigate\r\n").is_navigation
        )
        for line, block in (
            (b"POST / HTTP/1.1", page),
            (b"GET / HTTP/1.1", page + b"Sec-Fetch-Mode: cors\r\n"),
            (b"GET / HTTP/1.1", page + b"Upgrade: websocket\r\n"),
            (b"GET / HTTP/1.1", b"Host: h\r\nAccept: */*\r\n"),
            (b"GET / HTTP/1.1", b"Host: h\r\n"),
        ):
            self.assertFalse(head(line, block).is_navigation, (line, block))

    def test_fields_by_name_and_in_order(self) -> None:
        found = head(b"GET / HTTP/1.1", b"Host: h\r\nB: 1\r\nA: 2\r\n")
        self.assertEqual(found.get(b"b"), b"1")
        self.assertEqual(found.headers, [(b"host", b"h"), (b"b", b"1"), (b"a", b"2")])


class StatusLineTests(SynchronousTestCase):
    def test_accepted(self) -> None:
        for line, read in (
            (b"HTTP/1.1 200 OK", (True, 200, b"OK")),
            (b"HTTP/1.0 404 Not Found", (False, 404, b"Not Found")),
            (b"HTTP/1.1 599 ", (True, 599, b"")),
            (b"HTTP/1.1 204", (True, 204, b"")),
            (b"HTTP/1.1 200 d\xe9j\xe0", (True, 200, b"d\xe9j\xe0")),
        ):
            self.assertEqual(parse_status_line(line), read)

    def test_refused(self) -> None:
        for line in (
            b"",
            b"HTTP/1.1 20 OK",
            b"HTTP/1.1 2000 OK",
            b"HTTP/1.1 099 OK",
            b"HTTP/1.1  200 OK",
            b"HTTP/2 200",
            b"HTTP/1.2 200 OK",
            b"ICY 200 OK",
            b"HTTP/1.1 200 O\x00K",
            b"HTTP/1.1 200 O\nK",
            b"HTTP/1.1 +20 OK",
        ):
            with self.assertRaises(BadGateway, msg=repr(line)) as caught:
                parse_status_line(line)
            self.assertEqual(caught.exception.reason, "status-line")

    def test_body_or_none(self) -> None:
        nothing = parse_fields(b"", LIMITS)
        for status, method, body in (
            (200, b"GET", True),
            (200, b"HEAD", False),
            (204, b"GET", False),
            (304, b"GET", False),
            (103, b"GET", False),
            (205, b"GET", True),
        ):
            self.assertEqual(ResponseHead(True, status, b"", nothing).has_body(method), body)

    def test_keeping_alive(self) -> None:
        for http11, block, keeps in (
            (True, b"", True),
            (True, b"Connection: close\r\n", False),
            (False, b"", False),
            (False, b"Connection: keep-alive\r\n", True),
        ):
            found = ResponseHead(http11, 200, b"", parse_fields(block, LIMITS))
            self.assertEqual(found.keeps_alive, keeps)


class GuessTests(SynchronousTestCase):
    """What the log may say of a head that could not be read."""

    def test_what_was_asked_for(self) -> None:
        for head, method, target in (
            (b"GET /a?b HTTP/1.1\r\nBad\r\n\r\n", b"GET", b"/a?b"),
            (b"\r\n\r\nPUT /a HTT", b"PUT", b"/a"),
            (b"GET /a b HTTP/1.1\r\n\r\n", b"GET", b"/a"),
            (b"GET /a", b"GET", b"/a"),
            (b"GET /" + b"x" * 9000, b"GET", b"/" + b"x" * 4091),
        ):
            guessed = guess(head)
            self.assertEqual((guessed.method, guessed.target), (method, target), head)

    @example(b"secret")
    @example(b"secret \r\n")
    @example(b"Cookie: sb=secret\r\n\r\n")
    @example(b"GET secret HTTP/1.1\r\n\r\n")
    @example(b"GET /a\nCookie:secret\r\n\r\n")
    @given(st.binary())
    def test_nothing_of_what_is_no_request(self, head: bytes) -> None:
        guessed = guess(head)
        self.assertEqual(bool(guessed.method), bool(guessed.target))
        self.assertNotIn(b"secret", guessed.method + guessed.target)
