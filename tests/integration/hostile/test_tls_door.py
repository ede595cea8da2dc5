"""The public listener's TLS, against openssl's own client and against sockets without manners."""

from __future__ import annotations

import socket
import ssl
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from matrix.testing.hostile_case import HostileCase, Raw, send, status

HANDSHAKE = 1.0
"""Seconds that a handshake may take, as set for these tests; the wheel adds none of its own."""


class TlsDoorCase(HostileCase):
    def openssl(self, *options: str, data: bytes = b"", seconds: float = 10.0) -> str:
        """What C{openssl s_client} says; it stays until the server ends the connection."""
        door = self.matrix.door
        command = ["openssl", "s_client", "-connect", f"{door.host}:{door.port}", *options]
        done = subprocess.run(
            command, input=data, capture_output=True, timeout=seconds, check=False
        )
        return (done.stdout + done.stderr).decode("latin-1")

    def get(self, *more: bytes) -> bytes:
        return b"GET /seen HTTP/1.1\r\n%bConnection: close\r\n\r\n" % self.signed + b"".join(more)

    def context(self, **options: Any) -> ssl.SSLContext:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        for name, value in options.items():
            setattr(context, name, value)
        return context

    def plain(self) -> Raw:
        raw = Raw(self.matrix.door.host, self.matrix.door.port, None)
        self.addCleanup(raw.close)
        return raw


class AgreementTests(TlsDoorCase):
    def test_versions(self) -> None:
        for option, agreed in (("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")):
            said = self.openssl(option, "-ign_eof", data=self.get())
            self.assertIn(f"New, {agreed}", said)
            self.assertIn("HTTP/1.1 200 OK", said)
            self.assertIn("Compression: NONE", said)

    def test_old_versions_are_refused(self) -> None:
        for option in ("-tls1", "-tls1_1"):
            said = self.openssl(option, "-cipher", "ALL:@SECLEVEL=0")
            self.assertIn("Cipher is (NONE)", said)
            self.assertIn("alert protocol version", said)

    def test_weak_ciphers_are_refused(self) -> None:
        for cipher in ("AES128-SHA", "ECDHE-ECDSA-AES128-SHA256", "NULL", "ADH", "AES256-SHA256"):
            said = self.openssl("-tls1_2", "-cipher", f"{cipher}:@SECLEVEL=0")
            self.assertIn("Cipher is (NONE)", said, cipher)

    def test_application_protocols(self) -> None:
        """Only h2: RFC 7301 would have an alert, which the standard library cannot send. The
        client hears of no agreement, and what it then says in HTTP/2 is refused."""
        for offered, agreed in (("h2,http/1.1", "http/1.1"), ("http/1.1", "http/1.1")):
            said = self.openssl("-alpn", offered, "-ign_eof", data=self.get())
            self.assertIn(f"ALPN protocol: {agreed}", said)
        said = self.openssl("-alpn", "h2", "-ign_eof", data=b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        self.assertIn("No ALPN negotiated", said)
        self.assertIn("HTTP/1.1 505 ", said)

    def test_any_server_name_or_none(self) -> None:
        for options in (
            ["-noservername"],
            ["-servername", "unknown.example"],
            ["-servername", "x" * 250],
            ["-servername", "a\u00e9\x01"],
        ):
            said = self.openssl(*options, "-ign_eof", data=self.get())
            self.assertIn("HTTP/1.1 200 OK", said)

    def test_sessions_are_resumed(self) -> None:
        kept = str(Path(self.matrix.home) / "session")
        for version in ("-tls1_2", "-tls1_3"):
            self.openssl(version, "-ign_eof", "-sess_out", kept, data=self.get())
            said = self.openssl(version, "-ign_eof", "-sess_in", kept, data=self.get())
            self.assertIn("Reused, ", said)
            self.assertIn("HTTP/1.1 200 OK", said)

    def test_no_early_data(self) -> None:
        kept = str(Path(self.matrix.home) / "session")
        said = self.openssl("-tls1_3", "-ign_eof", "-sess_out", kept, data=self.get())
        self.assertIn("Max Early Data: 0", said)

    def test_no_renegotiation(self) -> None:
        said = self.openssl("-tls1_2", data=b"R\n" + self.get())
        self.assertIn("no renegotiation", said.lower().replace("_", " "))

    def test_key_updates(self) -> None:
        said = self.openssl("-tls1_3", data=b"K\n" + b"k\n" + b"Q\n")
        self.assertNotIn("error", said.lower().partition("keyupdate")[2])


class BrokenTests(TlsDoorCase):
    def ends_soon(self, raw: Raw) -> bytes:
        began = time.monotonic()
        said = raw.rest()
        self.assertLess(time.monotonic() - began, HANDSHAKE + 2)
        return said

    def test_http_is_told_to_use_tls(self) -> None:
        for data in (b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", b"POST /x HTTP/1.0\r\n\r\n"):
            raw = self.plain()
            raw.send(data)
            answer = self.ends_soon(raw)
            self.assertEqual(status(answer), 400, answer)
            self.assertIn(b"https", answer)

    def test_no_tls_ends_at_once(self) -> None:
        for data in (
            b"\x00" * 100,
            b"SSH-2.0-x\r\n",
            b"\x80\x2e\x01\x03\x01" + b"\0" * 50,
            b"\x16\x03\x01\xff\xff" + b"x" * 200,
            b"\x17\x03\x03\x00\x05hello",
        ):
            raw = self.plain()
            raw.send(data)
            self.ends_soon(raw)

    def test_half_handshakes_are_cut_off_in_time(self) -> None:
        hello = client_hello()
        parts = (b"", hello[:1], hello[:5], hello[:-1], hello)
        crowd = [self.plain() for _ in parts]
        for raw, part in zip(crowd, parts, strict=True):
            raw.send(part)
        for raw in crowd:
            self.ends_soon(raw)

    def test_handshake_byte_by_byte(self) -> None:
        """Slowly, but in time; and then slowly, and not in time."""
        hello = client_hello()
        raw = self.plain()
        for at in range(len(hello)):
            raw.send(hello[at : at + 1])
        self.assertEqual(raw.socket.recv(1), b"\x16")
        raw, began = self.plain(), time.monotonic()
        for at in range(len(hello)):
            raw.send(hello[at : at + 1])
            time.sleep(0.02)
            if time.monotonic() - began > HANDSHAKE + 1:
                break
        self.ends_soon(raw)

    def test_garbage_within_a_connection(self) -> None:
        for record in (
            b"\x17\x03\x03\x00\x20" + b"x" * 32,
            b"\x17\x03\x03\xff\xff" + b"x" * 65535,
            b"GET / HTTP/1.1\r\n\r\n",
            b"\x15\x03\x03\x00\x02\x02\x28",
        ):
            raw = self.connect()
            raw.send(self.get()[:20])
            plain = socket.socket(fileno=raw.socket.detach())
            plain.settimeout(5)
            self.addCleanup(plain.close)
            plain.sendall(record)
            with suppress(ConnectionResetError):
                while plain.recv(65536):
                    pass
        self.seen()

    def test_a_crowd_that_never_shakes_hands(self) -> None:
        """Does not keep the others out."""
        crowd = [self.plain() for _ in range(300)]
        began = time.monotonic()
        self.seen()
        self.assertLess(time.monotonic() - began, 5)
        for raw in crowd:
            self.ends_soon(raw)


class EndTests(TlsDoorCase):
    def test_ends_with_close_notify(self) -> None:
        """C{rest} tells one that is missing."""
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = self.context(maximum_version=version)
            raw = Raw(self.matrix.door.host, self.matrix.door.port, context)
            raw.send(self.get())
            self.assertNotIn(b"<cut off>", raw.rest())
            raw.close()

    def test_a_cut_answer_is_not_completed(self) -> None:
        """Least of all for who takes the connection's end for the answer's."""
        cut = b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\npart of it"
        for version in (b"HTTP/1.1", b"HTTP/1.0"):
            request = self.say(send(cut), ["close"]).replace(b"HTTP/1.1", version)
            self.assertTrue(self.exchange(request).endswith(b"part of it<cut off>"))

    def test_a_cut_body_is_not_completed(self) -> None:
        raw = self.connect()
        raw.send(b"POST /cut HTTP/1.1\r\n%bContent-Length: 9\r\n\r\nhalf" % self.signed)
        self.matrix.until(self.seen, 5, "the head has arrived")
        raw.socket.shutdown(socket.SHUT_WR)
        self.assertNotIn(b" 200 ", raw.rest())

    def test_large_records(self) -> None:
        body = b"x" * 200000
        head = b"POST /big HTTP/1.1\r\n%bConnection: close\r\nContent-Length: %d\r\n\r\n"
        self.assertIn(b"200 OK", self.exchange(head % (self.signed, len(body)) + body))


def client_hello() -> bytes:
    """The first message of a handshake."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    try:
        client.do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read()
    raise AssertionError("a handshake with nobody")
