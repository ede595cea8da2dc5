"""A hostile machine behind a whole Matrix: it fools neither its user's client nor the door."""

from __future__ import annotations

import time
from collections.abc import Mapping

import h11

from matrix.testing.hostile_case import HostileCase, send, status
from matrix.testing.served import read_answer

OK = b"HTTP/1.1 200 OK\r\n"
POISON = OK + b"Content-Length: 6\r\n\r\npoison"


def counted(fields: bytes = b"", body: bytes = b"hello") -> bytes:
    return OK + fields + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


BROKEN: Mapping[str, bytes] = {
    "two lengths": OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "two lengths alike": OK + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "a list of lengths": OK + b"Content-Length: 5, 5\r\n\r\nhello",
    "length and coding": OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    **{
        f"length {value!r}": OK + b"Content-Length: %b\r\n\r\nhello" % value
        for value in (b"+5", b"-5", b"0x5", b"", b"five", b"99999999999999999999", b"5\x00")
    },
    **{
        f"coding {value!r}": OK + b"Transfer-Encoding: %b\r\n\r\n0\r\n\r\n" % value
        for value in (b"gzip", b"chunked, chunked", b"xchunked", b"identity", b"chunked\x0b", b"")
    },
    "coding in HTTP/1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "bare LF": b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello",
    "LF in a field": counted(b"X: a\nSet-Cookie: evil=1\r\n"),
    "CR in a field": counted(b"X: a\rSet-Cookie: evil=1\r\n"),
    "NUL in a field": counted(b"X: a\x00\r\n"),
    "a folded field": counted(b"X: a\r\n Set-Cookie: evil=1\r\n"),
    "a blank before the colon": counted(b"Content-Length : 6\r\n"),
    "no colon": counted(b"evil\r\n"),
    "CR in the reason": b"HTTP/1.1 200 O\rK\r\nContent-Length: 5\r\n\r\nhello",
    "NUL in the reason": b"HTTP/1.1 200 O\x00K\r\nContent-Length: 5\r\n\r\nhello",
    "status 99": b"HTTP/1.1 99 Low\r\n\r\n",
    "status 1000": b"HTTP/1.1 1000 High\r\n\r\n",
    "status +20": b"HTTP/1.1 +20 OK\r\n\r\n",
    "no status": b"HTTP/1.1\r\n\r\n",
    "HTTP/2": b"HTTP/2 200 OK\r\n\r\n",
    "HTTP/0.9": b"<html>hello</html>\r\n\r\n",
    "no HTTP": b"\x00\x00\x06\x04\x00\x00\x00\x00\x00\r\n\r\n",
    "a blank in front": b" " + counted(),
    "an empty line in front": b"\r\n" + counted(),
    "101 unasked": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\n\r\n\x81\x02hi",
    "101 for h2c": b"HTTP/1.1 101 x\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
    "too many fields": OK + b"X: y\r\n" * 200 + b"\r\n",
    "a request": b"GET /-/healthz HTTP/1.1\r\nHost: h\r\n\r\n",
    "nothing": b"",
    "half a head": b"HTTP/1.1 200 OK\r\nContent-Le",
}
"""Answered with 502; nothing of it reaches the client."""

CUT: Mapping[str, bytes] = {
    "less than the length": OK + b"Content-Length: 9\r\n\r\nhello",
    "no last chunk": OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    "half a chunk": OK + b"Transfer-Encoding: chunked\r\n\r\n9\r\nhello",
    "a malformed chunk": OK
    + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n+1\r\nx\r\n0\r\n\r\n",
    "a chunk too long": OK
    + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1\r\nxx\r\n0\r\n\r\n",
    "half a trailer": OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n",
}
"""Bodies of which C{hello} is a part: the client's is cut off."""

BODYLESS: Mapping[str, tuple[bytes, bytes]] = {
    "HEAD": (b"HEAD", OK + b"Content-Length: 9\r\n\r\n"),
    "HEAD with a body": (b"HEAD", counted() + POISON),
    "HEAD, chunked": (b"HEAD", OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    "204": (b"GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
    "204 with a length": (b"GET", b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n"),
    "204 with a body": (b"GET", b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello"),
    "204, chunked": (
        b"GET",
        b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    "304": (b"GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"),
    "304 with a body": (b"GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nhello"),
}


class MachineTests(HostileCase):
    def test_broken_answers(self) -> None:
        for name, data in BROKEN.items():
            with self.subTest(name):
                request = self.say(send(data), ["close"], fields=b"Connection: close\r\n")
                answer = self.exchange(request)
                self.assertEqual(status(answer), 502, answer[:300])
                self.assertEqual(answer.count(b"HTTP/1.1 "), 1)
                self.assertNotIn(b"evil", answer)
                self.assertNotIn(b"<cut off>", answer)

    def test_too_long_a_head(self) -> None:
        request = self.say(send(OK), send(b"X: yyyyyyy\r\n", 7000), fields=b"Connection: close\r\n")
        answer = self.exchange(request)
        self.assertEqual(status(answer), 502)
        self.assertNotIn(b"yyy", answer)

    def test_cut_bodies(self) -> None:
        for name, data in CUT.items():
            for version in (b"HTTP/1.1", b"HTTP/1.0"):
                with self.subTest(name, version=version):
                    request = self.say(send(data), ["close"]).replace(b"HTTP/1.1", version)
                    answer = self.exchange(request)
                    if status(answer) != 502:  # all of it in one piece may still be refused
                        self.assertTrue(answer.endswith(b"<cut off>"), answer)
                    if version == b"HTTP/1.1" and status(answer) != 502:
                        with self.assertRaises(h11.RemoteProtocolError):
                            read_answer(answer.removesuffix(b"<cut off>"), closed=True)

    def test_answers_without_a_body(self) -> None:
        """What a machine sends in its place is the answer to nothing."""
        for name, (method, data) in BODYLESS.items():
            with self.subTest(name):
                raw = self.connect()
                raw.send(self.say(send(data), method=method) + self.last())
                first, rest = read_answer(raw.rest(), method)
                self.assertTrue(first.complete)
                self.assertEqual(first.body, b"")
                second, rest = read_answer(rest)
                self.assertIn(b"GET /last ", second.body)
                self.assertEqual(rest, b"")

    def last(self) -> bytes:
        return b"GET /last HTTP/1.1\r\n%bConnection: close\r\n\r\n" % self.signed

    def test_what_comes_behind_an_answer_answers_nothing(self) -> None:
        """With it, or by itself on an idle connection."""
        for steps in (
            [send(counted() + POISON)],
            [send(counted()), ["wait", 0.1], send(POISON)],
            [send(counted() + b"\r\n")],
            [send(counted()), ["wait", 0.1], send(b"\r\n" + POISON)],
            [send(OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + POISON)],
            [send(counted() + b"HTTP/1.1 100 Continue\r\n\r\n")],
        ):
            with self.subTest(steps):
                raw = self.connect()
                raw.send(self.say(*steps))
                raw.until(
                    b"0\r\n\r\n" if b"chunked" in bytes.fromhex(str(steps[0][1])) else b"hello"
                )
                time.sleep(0.2)
                raw.send(self.last())
                answer = raw.rest()
                self.assertIn(b"GET /last ", answer)
                self.assertNotIn(b"poison", answer)

    def test_interim_answers(self) -> None:
        interim = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nContent-Length: 3\r\n\r\n"
        request = self.say(send(interim * 3 + counted()), fields=b"Connection: close\r\n")
        answer = read_answer(self.exchange(request))[0]
        self.assertEqual((answer.interim, answer.body), ([103, 103, 103], b"hello"))
        old = self.exchange(request.replace(b"HTTP/1.1", b"HTTP/1.0"))
        self.assertEqual(old.count(b"HTTP/1.1 "), 1)

    def test_a_flood_of_interim_answers(self) -> None:
        """Is held up by who does not read it, and gains the machine no time."""
        flood = send(b"HTTP/1.1 102 Processing\r\n\r\n", 2000)
        before = self.matrix.memory()
        raw = self.connect()
        raw.send(self.say(flood, ["wait", 10], fields=b"Connection: close\r\n"))
        answer = raw.rest()
        self.assertEqual(answer.count(b"HTTP/1.1 102 "), 2000)
        self.assertEqual(answer.count(b"HTTP/1.1 504 "), 1)
        self.assertLess(self.matrix.memory() - before, 16 << 20)

    def test_answers_that_dribble(self) -> None:
        """A head is waited for no longer because a byte of it comes now and then."""
        slowly = [step for byte in OK[:14] for step in (send(bytes([byte])), ["wait", 0.3])]
        began = time.monotonic()
        answer = self.exchange(self.say(*slowly, fields=b"Connection: close\r\n"))
        self.assertEqual(status(answer), 504)
        self.assertLess(time.monotonic() - began, 3.5)

    def test_fields_that_a_machine_may_not_set(self) -> None:
        fields = (
            b"Connection: X-Own\r\nX-Own: 1\r\nKeep-Alive: timeout=9\r\nProxy-Authenticate: x\r\n"
            b"Fly-Replay: elsewhere=true\r\nfly_replay: app=evil\r\nUpgrade: h2c\r\n"
            b"Content-Type: application/vnd.fly.replay+json\r\nX-Request-Id: forged\r\n"
            b"Matrix-Wake: forged\r\nSet-Cookie: __Host-matrix=forged\r\nX-Kept: yes\r\n"
        )
        answer = self.exchange(
            self.say(send(counted(fields)), fields=b"Connection: close\r\n")
        ).lower()
        for gone in (b"x-own", b"keep-alive", b"proxy-auth", b"replay", b"h2c", b"forged"):
            self.assertNotIn(gone, answer)
        self.assertIn(b"\r\nx-kept: yes\r\n", answer)
        self.assertEqual(answer.count(b"content-length"), 1)

    def test_trailers(self) -> None:
        """Only for who asked, and never fields of framing, routing or credentials."""
        trailers = b"X-Sum: 1\r\nSet-Cookie: a=b\r\nContent-Length: 9\r\nFly-Replay: x\r\n"
        data = OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n" + trailers + b"\r\n"
        for asked, told in ((b"", []), (b"TE: trailers\r\n", [(b"x-sum", b"1")])):
            request = self.say(send(data), fields=asked + b"Connection: close\r\n")
            answer = read_answer(self.exchange(request))[0]
            self.assertEqual((answer.body, answer.trailers), (b"hello", told))

    def test_a_body_of_tiny_chunks(self) -> None:
        """Holds nobody up."""
        count = 100_000
        data = send(b"1\r\nx\r\n" * 100, count // 100)
        head = send(OK + b"Transfer-Encoding: chunked\r\n\r\n")
        raw = self.connect()
        raw.send(self.say(head, data, send(b"0\r\n\r\n"), fields=b"Connection: close\r\n"))
        began = time.monotonic()
        answer = read_answer(raw.rest())[0]
        self.assertEqual(answer.body, b"x" * count)
        self.assertLess(time.monotonic() - began, 5)
