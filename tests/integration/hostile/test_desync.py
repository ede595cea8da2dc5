"""A hostile client against a whole Matrix: two parsers never read one request as two."""

from __future__ import annotations

from collections.abc import Mapping

from matrix.testing.hostile_case import HostileCase, status

INNER = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
"""What an attacker wants to be read as a request of its own."""

ZERO = b"0\r\n\r\n" + INNER


def te(*lines: bytes, length: bytes = b"Content-Length: 5\r\n") -> bytes:
    """A POST whose length two parsers may see differently."""
    return b"POST /outer HTTP/1.1\r\n%S" + length + b"\r\n".join(lines) + b"\r\n\r\n" + ZERO


def chunked(body: bytes) -> bytes:
    return b"POST /outer HTTP/1.1\r\n%STransfer-Encoding: chunked\r\n\r\n" + body


REFUSED: Mapping[str, bytes] = {
    "CL.TE": te(b"Transfer-Encoding: chunked"),
    "TE.CL": b"POST /outer HTTP/1.1\r\n%STransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n"
    + b"25\r\n"
    + INNER
    + b"\r\n0\r\n\r\n",
    "CL.CL": te(b"Content-Length: 40"),
    "CL.CL, both alike": te(b"Content-Length: 5"),
    "CL list": te(length=b"Content-Length: 5, 5\r\n"),
    **{
        f"length {value!r}": te(length=b"Content-Length: " + value + b"\r\n")
        for value in (
            b"+5",
            b"-5",
            b"0x5",
            b"5 5",
            b"5;",
            b"5.0",
            b"",
            b'"5"',
            b"5,",
            b"1_0",
            b"99999999999999999999",
            b"\xb2",
            b"5\x0b",
            b"5\x00",
            b"five",
        )
    },
    **{
        f"coding {value!r}": te(b"Transfer-Encoding: " + value, length=b"")
        for value in (
            b"xchunked",
            b"chunked, identity",
            b"identity, chunked",
            b"gzip, chunked",
            b"chunked, chunked",
            b'"chunked"',
            b"'chunked'",
            b"chunked;q=1",
            b"identity",
            b"chunked\x00",
            b"\x0bchunked",
            b"chun\xffked",
            b"chunked,",
            b",chunked",
            b"",
        )
    },
    "two codings": te(b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity", length=b""),
    "coding twice": te(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked", length=b""),
    "coding, HTTP/1.0": te(b"Transfer-Encoding: chunked", length=b"").replace(b"/1.1", b"/1.0", 1),
    "blank before the colon": te(b"Transfer-Encoding : chunked"),
    "tab before the colon": te(b"Transfer-Encoding\t: chunked"),
    "folded": te(b"Transfer-Encoding:", b" chunked"),
    "folded behind another": te(b"X: y", b"\tTransfer-Encoding: chunked"),
    "first line folded": b"POST /outer HTTP/1.1\r\n %S\r\n" + INNER,
    "bare LF in a field": te(b"X: y\nTransfer-Encoding: chunked"),
    "bare CR in a field": te(b"X: y\rTransfer-Encoding: chunked"),
    "NUL in a name": te(b"Transfer-Encoding\x00: chunked"),
    "bare LF ends": b"POST /outer HTTP/1.1\n%SContent-Length: 0\n\n" + INNER,
    "no colon": te(b"Transfer-Encoding chunked"),
    "no name": te(b": chunked"),
    **{
        f"chunk {size!r}": chunked(size + b"\r\n" + ZERO)
        for size in (
            b"-1",
            b"+0",
            b"0x0",
            b" 0",
            b"0 ",
            b"0\t",
            b"g",
            b"",
            b"0 ;a",
            b"0;a\nb",
            b"0;a\rb",
            b"0;\x00",
            b"10000000000000000",
            b"FFFFFFFFFFFFFFFF0",
            b"0;" + b"x" * 1025,
            b"0_0",
            b"\xb2",
        )
    },
    "chunk ends in LF": chunked(b"5\r\nhello\n0\r\n\r\n" + INNER),
    "chunk size ends in LF": chunked(b"5\nhello\r\n0\r\n\r\n" + INNER),
    "chunk too long": chunked(b"3\r\nhello\r\n0\r\n\r\n" + INNER),
    "last chunk ends in LF": chunked(b"0\n\n" + INNER),
    "trailer with LF": chunked(b"0\r\nX: y\n\r\n" + INNER),
    "trailer folded": chunked(b"0\r\nX: y\r\n z\r\n\r\n" + INNER),
    "trailer without a colon": chunked(b"0\r\nGET /smuggled HTTP/1.1\r\n\r\n"),
    "no Host": b"GET /outer HTTP/1.1\r\n\r\n",
    "two Hosts": b"GET /outer HTTP/1.1\r\n%SHost: elsewhere\r\n\r\n",
    "Host list": b"GET /outer HTTP/1.1\r\nHost: a, b\r\n\r\n",
    **{
        f"Host {value!r}": b"GET /outer HTTP/1.1\r\nHost: %b\r\n\r\n" % value
        for value in (
            b"u@h",
            b"u:p@h",
            b"h:port",
            b"h:",
            b"h:1:2",
            b"h:+1",
            b"h/p",
            b"h?q",
            b"h#f",
            b"h\xc3\xa9",
            b"h h",
            b"[::1",
            b"::1",
            b"h\\",
            b"<h>",
            b'"h"',
            b"",
        )
    },
    "absolute, another host": b"GET http://elsewhere/ HTTP/1.1\r\n%S\r\n",
    "absolute, with a user": b"GET http://u@localhost/ HTTP/1.1\r\n%S\r\n",
    "absolute, no host": b"GET http:///outer HTTP/1.1\r\n%S\r\n",
    "absolute, another scheme": b"GET ftp://localhost/ HTTP/1.1\r\n%S\r\n",
    "authority form": b"GET localhost:80 HTTP/1.1\r\n%S\r\n",
    "asterisk for GET": b"GET * HTTP/1.1\r\n%S\r\n",
    "no slash": b"GET outer HTTP/1.1\r\n%S\r\n",
    "a fragment": b"GET /outer#x HTTP/1.1\r\n%S\r\n",
    "no ASCII in the target": b"GET /\xc3\xa9 HTTP/1.1\r\n%S\r\n",
    "NUL in the target": b"GET /\x00 HTTP/1.1\r\n%S\r\n",
    "tab for a blank": b"GET\t/outer\tHTTP/1.1\r\n%S\r\n",
    "two blanks": b"GET  /outer HTTP/1.1\r\n%S\r\n",
    "a blank in the target": b"GET /ou ter HTTP/1.1\r\n%S\r\n",
    "a blank in front": b" GET /outer HTTP/1.1\r\n%S\r\n",
    "a blank behind": b"GET /outer HTTP/1.1 \r\n%S\r\n",
    "CR behind": b"GET /outer HTTP/1.1\r\r\n%S\r\n",
    "version in lower case": b"GET /outer http/1.1\r\n%S\r\n",
    "no version": b"GET /outer\r\n\r\n",
    "version 1.10": b"GET /outer HTTP/1.10\r\n%S\r\n",
    "a method that is none": b"GE(T /outer HTTP/1.1\r\n%S\r\n",
    "quotes": b'"GET" /outer HTTP/1.1\r\n%S\r\n',
}
"""Refused with 400, the connection closed and nothing told to the machine."""

OTHERWISE: Mapping[str, tuple[int, bytes]] = {
    "two Authorizations": (
        400,
        b"GET /outer HTTP/1.1\r\n%SAuthorization: Bearer x\r\nConnection: close\r\n\r\n",
    ),
    "CONNECT": (405, b"CONNECT localhost:22 HTTP/1.1\r\n%S\r\n"),
    "TRACE": (405, b"TRACE /outer HTTP/1.1\r\n%S\r\n"),
    "HTTP/2 without asking": (505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "HTTP/1.2": (505, b"GET /outer HTTP/1.2\r\n%S\r\n"),
    "HTTP/0.9": (505, b"GET /outer HTTP/0.9\r\n%S\r\n"),
    "HTTP/3.0": (505, b"GET /outer HTTP/3.0\r\n%S\r\n"),
    "a long target": (414, b"GET /" + b"x" * 20000 + b" HTTP/1.1\r\n%S\r\n"),
    "a longer one": (414, b"GET /" + b"x" * 70000),
    "a long head": (431, b"GET /outer HTTP/1.1\r\n%SX: " + b"x" * 70000),
    "many fields": (431, b"GET /outer HTTP/1.1\r\n%S" + b"X: y\r\n" * 200 + b"\r\n"),
    "a long method": (501, b"M" * 1000 + b" /outer HTTP/1.1\r\n%S\r\n"),
}


def outer(fields: bytes, body: bytes = b"hello", first: bytes = b"POST /outer HTTP/1.1") -> bytes:
    """The last request of a connection."""
    return first + b"\r\n%SConnection: close\r\n" + fields + b"\r\n" + body


COUNTED = b"Content-Length: 5\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"

PASSED: Mapping[str, bytes] = {
    "in capitals": outer(CHUNKED.upper(), b"5\r\nhello\r\n0\r\n\r\n"),
    "chunk extensions": outer(CHUNKED, b'5;a=b;c="d"\r\nhello\r\n0;x\r\n\r\n'),
    "zeros in front": outer(CHUNKED, b"000000000000005\r\nhello\r\n000\r\n\r\n"),
    "trailers": outer(
        CHUNKED, b"5\r\nhello\r\n0\r\nContent-Length: 99\r\nHost: y\r\nX-Matrix-User: y\r\n\r\n"
    ),
    "underscores": outer(b"Content_Length: 99\r\nTransfer_Encoding: chunked\r\n" + COUNTED),
    "an empty line in front": b"\r\n" + outer(COUNTED),
    "h2c": outer(
        b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAA\r\n"
        + COUNTED
    ),
    "two Upgrades": outer(
        b"Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n" + COUNTED
    ),
    "nominated": outer(
        b"Connection: Host, Authorization, Content-Length, X-Forwarded-For, X-Matrix-User\r\n"
        b"Connection: X-Request-Id, Transfer-Encoding\r\n" + COUNTED
    ),
    "another's names": outer(
        b"X-Matrix-User: root\r\nX_Forwarded_For: 6.6.6.6\r\nx-forwarded-host: evil\r\n"
        b"Forwarded: for=6.6.6.6\r\nFly-Client-IP: 6.6.6.6\r\nX_Request-Id: 6\r\n" + COUNTED
    ),
    "absolute form": outer(COUNTED, first=b"POST https://%H/outer HTTP/1.1"),
    "HTTP/1.0": outer(COUNTED, first=b"POST /outer HTTP/1.0"),
    "expecting": outer(b"Expect: 100-continue\r\n" + COUNTED),
    "expecting, HTTP/1.0": outer(
        b"Expect: 100-continue\r\n" + COUNTED, first=b"POST /outer HTTP/1.0"
    ),
}
"""Passed on as one request with a body of C{hello}."""


class ClientTests(HostileCase):
    def filled(self, data: bytes) -> bytes:
        return data.replace(b"%S", self.signed).replace(b"%H", self.host.encode())

    def test_refused(self) -> None:
        for name, data in REFUSED.items():
            with self.subTest(name):
                answer = self.exchange(self.filled(data))
                self.assertEqual(status(answer), 400, answer[:300])
                self.assertEqual(answer.count(b"HTTP/1.1 "), 1)
                self.assertIn(b"\r\nConnection: close\r\n", answer)
                self.assertNotIn(b"<cut off>", answer)
        self.assertEqual([head for head in self.seen() if "smuggled" in head], [])

    def test_refused_otherwise(self) -> None:
        for name, (expected, data) in OTHERWISE.items():
            with self.subTest(name):
                answer = self.exchange(self.filled(data))
                self.assertEqual(status(answer), expected, answer[:300])
                self.assertNotIn(b"<cut off>", answer)
        self.assertEqual(self.seen(), [])

    def test_passed_as_one(self) -> None:
        for name, data in PASSED.items():
            with self.subTest(name):
                answer = self.exchange(self.filled(data))
                self.assertIn(b"HTTP/1.1 200 OK\r\n", answer)
                self.assertIn(b'"body": "hello"', answer)
                [head] = self.seen()
                self.check(head)

    def check(self, head: str) -> None:
        """What every head that reaches a machine must be like."""
        line, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
        names = [one.partition(":")[0].lower().replace("_", "-") for one in lines]
        fields = dict(zip(names, (one.partition(": ")[2] for one in lines), strict=True))
        self.assertEqual(line, "POST /outer HTTP/1.1")
        self.assertEqual(names.count("host"), 1)
        self.assertEqual(fields["host"], self.host)
        self.assertEqual(sum(names.count(n) for n in ("content-length", "transfer-encoding")), 1)
        self.assertEqual(fields["x-forwarded-for"], "127.0.0.1")
        for name in ("x-matrix-user", "x-request-id", "authorization", "x-forwarded-for"):
            self.assertEqual(names.count(name), 1, name)
        self.assertEqual(fields["x-matrix-user"], self.matrix.user_id("alice"))
        self.assertNotIn(self.token, head)
        for name in ("upgrade", "connection", "fly-client-ip", "forwarded", "http2-settings"):
            self.assertNotIn(name, names)

    def test_pipelined(self) -> None:
        """In order, each with its own answer, whatever of them is refused in the end."""
        requests = b"".join(
            b"GET /%d HTTP/1.1\r\n%b\r\n" % (number, self.signed) for number in range(50)
        )
        answer = self.exchange(requests + b"GET /last HTTP/9\r\n\r\n")
        places = [answer.index(b'"head": "GET /%d ' % number) for number in range(50)]
        self.assertEqual(places, sorted(places))
        self.assertEqual(answer.count(b"HTTP/1.1 200 "), 50)
        self.assertEqual(answer.count(b"HTTP/1.1 400 "), 1)
        self.assertEqual(len(self.seen()), 50)

    def test_byte_by_byte(self) -> None:
        raw = self.connect()
        data = self.filled(PASSED["chunk extensions"])
        for at in range(len(data)):
            raw.send(data[at : at + 1])
        self.assertIn(b'"body": "hello"', raw.rest())
        [head] = self.seen()
        self.check(head)
