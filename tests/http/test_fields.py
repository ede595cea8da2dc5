"""Header blocks: what is refused and why, and what the accepted ones mean."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from matrix.errors import BadRequest, HeadTooLarge, MatrixError
from matrix.http import Limits, _fields
from matrix.http._fields import Fields, is_token, parse_fields, parse_lines

LIMITS = Limits()

REFUSED: list[tuple[bytes, str]] = [
    (b"A: x\ny\r\n", "control"),
    (b"A: x\ry\r\n", "control"),
    (b"A: x\x00y\r\n", "control"),
    (b"A: x\x0by\r\n", "control"),
    (b"A: x\x7fy\r\n", "control"),
    (b"A\x00: x\r\n", "control"),
    (b"A: x\r\r\n", "control"),
    (b"A: x\r\n\n\r\n", "control"),
    (b"A: 1\r\n folded\r\n", "obs-fold"),
    (b"A: 1\r\n\tfolded: 2\r\n", "obs-fold"),
    (b" A: 1\r\n", "obs-fold"),
    (b"A : 1\r\n", "field-name"),
    (b"A\t: 1\r\n", "field-name"),
    (b": 1\r\n", "field-name"),
    (b"A(b): 1\r\n", "field-name"),
    (b"\xe9: 1\r\n", "field-name"),
    (b"A\r\n", "field-colon"),
    (b"Host: a\r\nHost: a\r\n", "host"),
    (b"Host: a\r\nhOST: b\r\n", "host"),
    (b"Host:\r\n", "host"),
    (b"Host: a/b\r\n", "host"),
    (b"Host: a b\r\n", "host"),
    (b"Host: user@a\r\n", "host"),
    (b"Host: a:b\r\n", "host"),
    (b"Host: a:123456\r\n", "host"),
    (b"Host: [::1\r\n", "host"),
    (b"Content-Length: 1\r\nContent-Length: 2\r\n", "content-length"),
    (b"Content-Length: 1\r\nContent-Length: 1\r\n", "content-length"),
    (b"Content-Length: 1, 1\r\n", "content-length"),
    (b"Content-Length: +1\r\n", "content-length"),
    (b"Content-Length: -1\r\n", "content-length"),
    (b"Content-Length: 0x1\r\n", "content-length"),
    (b"Content-Length: 1_0\r\n", "content-length"),
    (b"Content-Length: \xb2\r\n", "content-length"),
    (b"Content-Length:\r\n", "content-length"),
    (b"Content-Length: 1234567890123456789\r\n", "content-length"),
    (b"Transfer-Encoding: gzip, chunked\r\n", "transfer-encoding"),
    (b"Transfer-Encoding: chunked, chunked\r\n", "transfer-encoding"),
    (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "transfer-encoding"),
    (b"Transfer-Encoding: identity\r\n", "transfer-encoding"),
    (b"Transfer-Encoding: xchunked\r\n", "transfer-encoding"),
    (b"Transfer-Encoding: chunked;q=1\r\n", "transfer-encoding"),
    (b"Transfer-Encoding:\r\n", "transfer-encoding"),
    (b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", "te-and-cl"),
    (b"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n", "te-and-cl"),
]


def fields(block: bytes) -> Fields:
    return parse_fields(block, LIMITS)


class RefusalTests(SynchronousTestCase):
    def test_each_with_its_reason(self) -> None:
        for block, reason in REFUSED:
            with self.assertRaises(BadRequest, msg=repr(block)) as caught:
                fields(block)
            self.assertEqual(caught.exception.reason, reason, block)

    def test_too_many(self) -> None:
        block = b"A: 1\r\n" * LIMITS.fields
        self.assertEqual(len(parse_lines(block, LIMITS)), LIMITS.fields)
        with self.assertRaises(HeadTooLarge) as caught:
            parse_lines(block + b"A: 1\r\n", LIMITS)
        self.assertEqual((caught.exception.status, caught.exception.reason), (431, "fields"))

    def test_long_names_are_not_remembered(self) -> None:
        name = b"x" * 60000
        self.assertEqual(parse_lines(name + b": 1\r\n", LIMITS)[0][0], name)
        self.assertNotIn(name, _fields._names)

    def test_a_flood_of_names_is_forgotten(self) -> None:
        """Names are remembered, but not all that strangers make up."""
        for number in range(5000):
            block = b"X-Made-Up-%d: 1\r\n" % number
            self.assertEqual(parse_lines(block, LIMITS)[0][0], b"x-made-up-%d" % number)


class MeaningTests(SynchronousTestCase):
    def test_lines(self) -> None:
        """Lower-case name, value without white space around it, the line as it came."""
        block = b"Accept: a\r\nX-Y:\t b c \t\r\nEmpty:\r\nUrl: http://a:1\r\nLatin: \xe9\r\n"
        self.assertEqual(
            parse_lines(block, LIMITS),
            [
                (b"accept", b"a", b"Accept: a"),
                (b"x-y", b"b c", b"X-Y:\t b c \t"),
                (b"empty", b"", b"Empty:"),
                (b"url", b"http://a:1", b"Url: http://a:1"),
                (b"latin", b"\xe9", b"Latin: \xe9"),
            ],
        )

    def test_hosts(self) -> None:
        for host in (b"a", b"a.b:8443", b"127.0.0.1", b"[::1]:80", b"[fe80::1]", b"x_y.z"):
            self.assertEqual(fields(b"Host: %b\r\n" % host).host, host)

    def test_framing(self) -> None:
        self.assertEqual(fields(b"Content-Length: 007\r\n").length, 7)
        self.assertTrue(fields(b"Transfer-Encoding: Chunked\r\n").chunked)
        plain = fields(b"")
        self.assertEqual((plain.length, plain.chunked, plain.host), (None, False, None))

    def test_connection(self) -> None:
        found = fields(b"Connection: Close , X-Foo\r\nConnection: keep-alive\r\n")
        self.assertEqual(found.connection, {b"close", b"x-foo", b"keep-alive"})
        self.assertTrue(found.close)
        self.assertTrue(found.keep_alive)
        self.assertFalse(fields(b"Connection: closed\r\n").close)

    def test_expectation(self) -> None:
        self.assertTrue(fields(b"Expect: 100-Continue\r\n").expect_continue)
        self.assertFalse(fields(b"Expect: 200-ok\r\n").expect_continue)

    def test_trailers_asked_for(self) -> None:
        self.assertTrue(fields(b"TE: gzip;q=0.5, Trailers\r\n").te_trailers)
        self.assertTrue(fields(b"TE: trailers;q=1\r\nTE: gzip\r\n").te_trailers)
        self.assertFalse(fields(b"TE: gzip\r\n").te_trailers)

    def test_upgrade(self) -> None:
        self.assertEqual(fields(b"Upgrade: WebSocket\r\n").upgrade, b"websocket")
        two = fields(b"Upgrade: websocket\r\nUpgrade: h2c\r\n")
        self.assertEqual(two.upgrade, b"websocket,h2c")

    def test_several_values(self) -> None:
        found = fields(b"A: 1\r\nCookie: x=1\r\na: 2\r\nCookie: y=2\r\n")
        self.assertEqual(found.get(b"a"), b"1, 2")
        self.assertEqual(found.get(b"cookie"), b"x=1; y=2")
        self.assertIsNone(found.get(b"b"))


NAMES = st.text("!#$%&'*+-.^_`|~azAZ09", min_size=1).map(str.encode)
VALUES = st.binary(max_size=30).map(
    lambda raw: bytes(byte for byte in raw if byte == 9 or (byte >= 32 and byte != 127))
)


class AnyBlockTests(SynchronousTestCase):
    @given(st.lists(st.tuples(NAMES, VALUES), max_size=10))
    def test_well_formed_lines_are_read_back(self, pairs: list[tuple[bytes, bytes]]) -> None:
        block = b"".join(b"%b:%b\r\n" % pair for pair in pairs)
        read = [(name, value) for name, value, _ in parse_lines(block, LIMITS)]
        self.assertEqual(read, [(name.lower(), value.strip(b" \t")) for name, value in pairs])

    @given(st.lists(st.sampled_from([b"a", b":", b" ", b"\r", b"\n", b"\r\n", b"\0", b"\t"])))
    def test_what_is_accepted_is_lines_of_clean_bytes(self, pieces: list[bytes]) -> None:
        block = b"".join(pieces) + b"\r\n"
        try:
            lines = parse_lines(block, LIMITS)
        except MatrixError as error:
            self.assertTrue(error.reason)
            return
        self.assertEqual(b"".join(line + b"\r\n" for _, _, line in lines), block)
        for name, value, _ in lines:
            self.assertTrue(is_token(name))
            self.assertEqual(value, value.strip(b" \t"))
            self.assertNotRegex(value, rb"[\x00-\x08\x0a-\x1f\x7f]")
