"""The relay: a request to the machine and its answer back, both streaming."""

import json

from twisted.trial.unittest import SynchronousTestCase

from matrix.http import Limits
from matrix.http._reader import RequestReader
from matrix.testing.relayed import EXTRA, NOTE, Relayed
from matrix.testing.served import GET, read_answer

LIMITS = Limits()
POST = b"POST /up HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n"
CHUNKED = b"POST /up HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class RequestTests(SynchronousTestCase):
    def test_head(self) -> None:
        _, machine = Relayed().ask(b"GET /a%20b?c HTTP/1.1\r\nHost: h:1\r\nAccept: x\r\n\r\n")
        self.assertEqual(
            machine.sent,
            b"GET /a%20b?c HTTP/1.1\r\n"
            b"Host: h:1\r\nX-Forwarded-Host: h:1\r\nAccept: x\r\n"
            b"X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: http\r\n" + EXTRA + b"\r\n",
        )

    def test_counted_body(self) -> None:
        client, machine = Relayed().ask(POST)
        self.assertTrue(machine.take().endswith(b"Content-Length: 5\r\n\r\n"))
        client.receive(b"he", b"llo")
        self.assertEqual(machine.sent, b"hello")

    def test_chunked_body_is_framed_anew(self) -> None:
        client, machine = Relayed().ask(CHUNKED)
        self.assertTrue(machine.take().endswith(b"Transfer-Encoding: chunked\r\n\r\n"))
        client.receive(b"5;secret=1\r\nhe", b"llo\r\n0\r\nX-Trailer: 1\r\n\r\n")
        self.assertEqual(machine.sent, b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n")

    def test_streams_before_it_is_whole(self) -> None:
        client, machine = Relayed().ask(POST.replace(b"5", b"1000000"))
        machine.take()
        client.receive(b"x" * 1000)
        self.assertEqual(len(machine.sent), 1000)

    def test_slow_machine_pauses_the_client(self) -> None:
        client, machine = Relayed().ask(POST.replace(b"5", b"1000000"))
        machine.fill()
        client.receive(b"x" * 1000)
        self.assertTrue(client.paused)
        machine.drain()
        self.assertFalse(client.paused)

    def test_upgrade_to_what_is_not_proxied_is_a_plain_request(self) -> None:
        _, machine = Relayed().ask(
            b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\n"
            b"HTTP2-Settings: x\r\n\r\n"
        )
        for name in (b"pgrade", b"HTTP2"):
            self.assertNotIn(name, machine.sent)

    def test_handshake_with_a_body_smuggles_nothing(self) -> None:
        smuggled = b"GET /x HTTP/1.1\r\nHost: h\r\nX-Matrix-User: root\r\n\r\n"
        _, machine = Relayed().ask(
            b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(smuggled), smuggled)
        )
        reader = RequestReader(LIMITS)
        reader.feed(machine.sent)
        events = []
        while (event := reader.next_event()) is not None:
            events.append(event)
        self.assertEqual(len(events), 3)
        self.assertEqual(events[1], smuggled)


class AnswerTests(SynchronousTestCase):
    def test_counted(self) -> None:
        relayed = Relayed()
        client, machine = relayed.ask(GET)
        machine.receive(b"HTTP/1.1 203 Fine\r\nA: 1\r\nContent-Length: 2\r\n\r\nok")
        self.assertEqual(
            client.sent, b"HTTP/1.1 203 Fine\r\nA: 1\r\n" + NOTE + b"Content-Length: 2\r\n\r\nok"
        )
        self.assertEqual(relayed.backend.requests, 0)
        self.assertEqual([one.status for one in relayed.over], [203])

    def test_streams_as_it_comes(self) -> None:
        client, machine = Relayed().ask(GET)
        machine.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
        self.assertIn(b"200 OK", client.take())
        machine.receive(b"abc")
        self.assertEqual(client.take(), b"abc")

    def test_chunks_are_framed_anew(self) -> None:
        client, machine = Relayed().ask(GET)
        machine.receive(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4;a=b\r\nab")
        machine.receive(b"cd\r\n", b"0\r\n\r\n")
        answer, rest = read_answer(client.sent)
        self.assertEqual((answer.body, answer.complete, rest), (b"abcd", True, b""))
        self.assertNotIn(b"a=b", client.sent)

    def test_chunked_for_http10(self) -> None:
        client, machine = Relayed().ask(b"GET / HTTP/1.0\r\nHost: h\r\n\r\n")
        self.assertIn(b"GET / HTTP/1.1\r\n", machine.sent)
        machine.receive(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"
        )
        self.assertEqual(read_answer(client.sent, closed=True)[0].body, b"ab")
        self.assertTrue(client.disconnecting)
        self.assertFalse(client.aborted)

    def test_until_close(self) -> None:
        relayed = Relayed()
        client, machine = relayed.ask(GET)
        machine.receive(b"HTTP/1.0 200 OK\r\n\r\nab", b"cd")
        machine.lose()
        answer = read_answer(client.sent)[0]
        self.assertEqual((answer.body, answer.complete), (b"abcd", True))
        self.assertEqual(relayed.backend.requests, 0)

    def test_without_body(self) -> None:
        for method, head in (
            (b"HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"),
            (b"GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n"),
            (b"GET", b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n"),
        ):
            client, machine = Relayed().ask(GET.replace(b"GET", method))
            machine.receive(head)
            answer, rest = read_answer(client.sent, method)
            self.assertEqual((answer.body, answer.complete, rest), (b"", True, b""))
            told = None if b" 204 " in head else b"9"
            self.assertEqual(answer.headers.get(b"content-length"), told)

    def test_interim(self) -> None:
        client, machine = Relayed().ask(GET)
        machine.receive(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nFly-Replay: x\r\n\r\n")
        self.assertEqual(client.sent, b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
        machine.receive(OK)
        answer = read_answer(client.sent)[0]
        self.assertEqual((answer.interim, answer.body), ([103], b"ok"))

    def test_continue_is_the_machines_to_say(self) -> None:
        client, machine = Relayed().ask(
            POST.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n")
        )
        self.assertEqual(client.sent, b"")
        self.assertIn(b"Expect: 100-continue\r\n", machine.take())
        machine.receive(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.assertEqual(client.take(), b"HTTP/1.1 100 Continue\r\n\r\n")
        client.receive(b"hello")
        self.assertEqual(machine.sent, b"hello")

    def test_interim_is_nothing_for_http10(self) -> None:
        client, machine = Relayed().ask(b"GET / HTTP/1.0\r\nHost: h\r\n\r\n")
        machine.receive(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        self.assertEqual(client.sent, b"")

    def test_trailers_only_if_asked_for(self) -> None:
        data = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        data += b"0\r\nX-Sum: 1\r\nSet-Cookie: a=b\r\n\r\n"
        for asked, passed in ((b"", []), (b"TE: trailers\r\n", [(b"x-sum", b"1")])):
            client, machine = Relayed().ask(GET[:-2] + asked + b"\r\n")
            machine.receive(data)
            self.assertEqual(read_answer(client.sent)[0].trailers, passed)

    def test_slow_client_pauses_the_machine(self) -> None:
        client, machine = Relayed().ask(GET)
        machine.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nabc")
        client.fill()
        self.assertTrue(machine.paused)
        client.drain()
        self.assertFalse(machine.paused)

    def test_client_that_is_full_already_pauses_the_machine(self) -> None:
        client, machine = Relayed().ask(GET)
        client.fill()
        machine.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nabc")
        self.assertTrue(machine.paused)

    def test_client_that_its_last_bytes_fill_pauses_no_idle_machine(self) -> None:
        """The machine's connection serves others from then on: nobody would resume it."""
        client, machine = Relayed().ask(GET)
        machine.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabc")
        write = client.write

        def overflow(data: bytes) -> None:
            write(data)
            client.fill()

        client.write = overflow  # type: ignore[method-assign]
        machine.receive(b"d")
        self.assertFalse(machine.paused)

    def test_interim_answers_without_end_are_paused_too(self) -> None:
        client, machine = Relayed().ask(GET)
        machine.receive(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        client.fill()
        self.assertTrue(machine.paused)

    def test_early_answer_ends_both_connections(self) -> None:
        relayed = Relayed()
        client, machine = relayed.ask(POST.replace(b"5", b"1000000"), b"x")
        machine.receive(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
        answer = read_answer(client.sent)[0]
        self.assertEqual((answer.status, answer.headers[b"connection"]), (413, b"close"))
        self.assertTrue(machine.disconnecting)
        machine.lose()
        client.receive(b"x" * 1000)
        self.assertEqual(relayed.backend.requests, 0)


class CutShortTests(SynchronousTestCase):
    """An answer that the machine does not complete is never completed by us."""

    def test_in_the_middle_of_a_body(self) -> None:
        for head, body in (
            (b"Content-Length: 5\r\n", b"he"),
            (b"Transfer-Encoding: chunked\r\n", b"2\r\nhe\r\n"),
            (b"Transfer-Encoding: chunked\r\n", b"2\r\nhe\r\n0\r\n"),
        ):
            relayed = Relayed()
            client, machine = relayed.ask(GET)
            machine.receive(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n" + body)
            machine.lose()
            self.assertTrue(client.aborted, head)
            self.assertFalse(read_answer(client.sent)[0].complete)
            client.lose()
            self.assertEqual(relayed.over[0].close_reason, "closed")
            self.assertEqual(relayed.backend.requests, 0)

    def test_until_close_and_reset(self) -> None:
        client, machine = Relayed().ask(GET)
        machine.receive(b"HTTP/1.0 200 OK\r\n\r\nab")
        machine.lose(ConnectionResetError())
        self.assertTrue(client.aborted)
        self.assertFalse(read_answer(client.sent)[0].complete)

    def test_broken_framing(self) -> None:
        client, machine = Relayed().ask(GET)
        machine.receive(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"nonsense\r\n")
        self.assertTrue(client.aborted)
        self.assertTrue(machine.aborted)


class BadAnswerTests(SynchronousTestCase):
    def refused(self, *data: bytes, request: bytes = GET) -> tuple[int, str]:
        relayed = Relayed()
        client, machine = relayed.ask(request)
        machine.receive(*data)
        if not machine.disconnecting:
            machine.lose()
        answer, rest = read_answer(client.sent)
        self.assertEqual((answer.complete, rest), (True, b""))
        self.assertFalse(client.disconnecting)
        self.assertEqual(relayed.backend.requests, 0)
        self.assertEqual(relayed.backend.take(), None)
        return answer.status, json.loads(answer.body)["reason"]

    def test_is_502(self) -> None:
        for data, reason in (
            (b"HTTP/1.1 200 OK\nA: b\r\n\r\n", "bare-lf"),
            (b"nonsense\r\n\r\n", "status-line"),
            (b"HTTP/1.1 200 OK\r\nA : b\r\n\r\n", "field-name"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\n", "content-length"),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", "transfer-encoding"),
            (b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\n\r\n", "upgrade"),
            (b"HTTP/1.1 200 OK\r\nConte", "reset"),
            (b"", "reset"),
        ):
            self.assertEqual(self.refused(data), (502, reason), data)

    def test_upgrade_must_be_proper(self) -> None:
        asks = b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        asks += b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        right = b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
        for fields in (
            b"",
            right,
            right + b"Upgrade: websocket\r\n",
            right + b"Connection: Upgrade\r\nUpgrade: h2c\r\n",
            b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n",
        ):
            data = b"HTTP/1.1 101 Switching\r\n" + fields + b"\r\n"
            self.assertEqual(self.refused(data, request=asks), (502, "upgrade"), fields)


class DeadlineTests(SynchronousTestCase):
    def test_no_answer(self) -> None:
        relayed = Relayed()
        client, machine = relayed.ask(GET)
        relayed.wait(LIMITS.response_time - 1)
        self.assertEqual(client.sent, b"")
        relayed.wait(2)
        self.assertEqual(read_answer(client.sent)[0].status, 504)
        self.assertTrue(machine.aborted)
        self.assertFalse(client.disconnecting)

    def test_machine_falls_silent(self) -> None:
        relayed = Relayed()
        client, machine = relayed.ask(GET)
        machine.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab")
        relayed.wait(LIMITS.body_silence - 1)
        machine.receive(b"c")
        relayed.wait(LIMITS.body_silence - 1)
        self.assertFalse(client.aborted)
        relayed.wait(3)
        self.assertTrue(client.aborted)
        self.assertTrue(machine.aborted)

    def test_silence_is_not_the_machines_while_we_do_not_read(self) -> None:
        limits = Limits(body_silence=60, stream_silence=600)
        relayed = Relayed(limits)
        client, machine = relayed.ask(GET)
        machine.receive(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        client.fill()
        relayed.wait(500)
        self.assertFalse(machine.aborted)

    def test_upload_may_take_longer_than_the_answer(self) -> None:
        relayed = Relayed()
        client, machine = relayed.ask(POST)
        for piece in (b"h", b"e", b"l", b"l", b"o"):
            relayed.wait(LIMITS.body_silence - 2)
            client.receive(piece)
        relayed.wait(LIMITS.response_time - 2)
        self.assertEqual(client.sent, b"")
        machine.receive(OK)
        self.assertEqual(read_answer(client.sent)[0].body, b"ok")


class LeavingTests(SynchronousTestCase):
    def test_client_leaves_before_the_answer(self) -> None:
        relayed = Relayed()
        client, machine = relayed.ask(GET)
        client.lose()
        self.assertTrue(machine.aborted)
        self.assertEqual((relayed.backend.requests, relayed.over[0].status), (0, 499))

    def test_client_leaves_in_the_middle(self) -> None:
        for data in (POST + b"he", GET):
            relayed = Relayed()
            client, machine = relayed.ask(data)
            if data is GET:
                machine.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab")
            client.lose()
            self.assertTrue(machine.aborted)
            self.assertEqual(relayed.backend.requests, 0)

    def test_client_leaves_while_connecting(self) -> None:
        relayed = Relayed()
        relayed.endpoint.hold = True
        relayed.connect(GET).lose()
        self.assertEqual(relayed.backend.requests, 0)
        machine = relayed.endpoint.accept()
        self.assertEqual(machine.sent, b"")
        self.assertIsNotNone(relayed.backend.take())

    def test_client_that_left_before_the_start(self) -> None:
        relayed = Relayed()
        relayed.ask(GET)[0].lose()
        relayed.relay(relayed.over[0])
        self.assertEqual((len(relayed.endpoint.made), relayed.backend.requests), (1, 0))

    def test_body_that_breaks_cuts_the_machine_off(self) -> None:
        """It must not take what it has for the whole."""
        relayed = Relayed()
        client, machine = relayed.ask(CHUNKED, b"2\r\nab\r\n", b"zz\r\n")
        self.assertTrue(machine.aborted)
        self.assertNotIn(b"0\r\n\r\n", machine.sent)
        self.assertEqual(read_answer(client.sent)[0].status, 400)
        self.assertEqual(relayed.backend.requests, 0)

    def test_request_refused_while_connecting_reaches_no_machine(self) -> None:
        relayed = Relayed()
        relayed.endpoint.hold = True
        client = relayed.connect(CHUNKED + b"2\r\nab\r\n")
        client.protocol.readConnectionLost()
        machine = relayed.endpoint.accept()
        self.assertEqual((machine.sent, relayed.backend.requests), (b"", 0))
        self.assertEqual(read_answer(client.sent)[0].status, 400)
