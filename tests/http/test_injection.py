"""Every byte there is, at every place where it may make two parsers disagree."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from matrix.testing.relayed import Relayed
from tests.http.test_differential import by_h11

INNER = b"GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n"
BODY = b"0\r\n\r\n" + INNER
HEAD = b"POST / HTTP/1.1\r\nHost: h\r\n"

PLACES = {
    "in front of the line": b"%bPOST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n",
    "in the method": b"PO%bST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n",
    "behind the method": b"POST%b / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n",
    "in the target": b"POST /a%bb HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n",
    "in front of the version": b"POST / %bHTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n",
    "behind the version": b"POST / HTTP/1.1%b\r\nHost: h\r\nContent-Length: 5\r\n\r\n",
    "in front of a name": HEAD + b"%bContent-Length: 5\r\n\r\n",
    "in a name": HEAD + b"Content%b-Length: 5\r\n\r\n",
    "behind a name": HEAD + b"Content-Length%b: 5\r\n\r\n",
    "in front of a length": HEAD + b"Content-Length: %b5\r\n\r\n",
    "behind a length": HEAD + b"Content-Length: 5%b\r\n\r\n",
    "in front of the coding": HEAD + b"Transfer-Encoding:%bchunked\r\n\r\n",
    "behind the coding": HEAD + b"Transfer-Encoding: chunked%b\r\n\r\n",
    "in the coding's name": HEAD + b"Transfer%bEncoding: chunked\r\n\r\n",
    "behind the coding's name": HEAD + b"Transfer-Encoding%b: chunked\r\n\r\n",
    "in a host": b"POST / HTTP/1.1\r\nHost: h%bh\r\nContent-Length: 5\r\n\r\n",
    "in front of a chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\n%b",
}


class InjectionTests(SynchronousTestCase):
    def test_each(self) -> None:
        """Either the machine gets nothing whole, or h11 reads what it gets as one request with
        the body that h11 reads in what the client sent."""
        passed = 0
        for name, template in PLACES.items():
            for byte in range(256):
                data = template.replace(b"%b", bytes([byte])) + BODY
                relayed = Relayed()
                client = relayed.connect(data)
                if not relayed.endpoint.made:
                    self.assertRegex(client.sent, rb"^HTTP/1\.1 [45]\d\d ", (name, byte))
                    continue
                if client.sent:  # its body was refused
                    self.assertTrue(relayed.machine.disconnecting, (name, byte))
                    continue
                passed += 1
                ours, theirs = by_h11(relayed.machine.sent), by_h11(data)
                self.assertEqual(
                    (ours.method, ours.body), (theirs.method, theirs.body), (name, byte)
                )
                self.assertEqual(len(relayed.endpoint.made), 1)
                self.assertNotIn(b"GET /smuggled", relayed.machine.sent[: -len(ours.body) or None])
        self.assertGreater(passed, 300)
