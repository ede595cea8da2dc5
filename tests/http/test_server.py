"""A client's connection: one request after the other, and every way it ends."""

import json

from twisted.internet.interfaces import IPushProducer, ITransport
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from matrix.http import Exchange, Limits
from matrix.http._breath import BURST
from matrix.testing.served import GET, Served, read_answer
from matrix.testing.transport import FakeTransport

POST = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n"
LIMITS = Limits()


def hello(exchange: Exchange) -> None:
    exchange.respond(200, [(b"X-Path", exchange.request.path)], b"hello")


class KeepAliveTests(SynchronousTestCase):
    def test_fake_is_a_transport(self) -> None:
        verifyObject(ITransport, FakeTransport())
        verifyObject(IPushProducer, FakeTransport())

    def test_one_connection_many_requests(self) -> None:
        served = Served(hello)
        client = served.connect()
        for number in range(3):
            client.receive(b"GET /%d HTTP/1.1\r\nHost: h\r\n\r\n" % number)
            answer, rest = read_answer(client.take())
            self.assertEqual((answer.status, answer.body, rest), (200, b"hello", b""))
            self.assertEqual(answer.headers[b"x-path"], b"/%d" % number)
        self.assertFalse(client.disconnecting)
        self.assertEqual(len({exchange.request_id for exchange in served.over}), 3)

    def test_close_is_announced_and_done(self) -> None:
        client = Served(hello).connect(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        self.assertEqual(read_answer(client.sent)[0].headers[b"connection"], b"close")
        self.assertTrue(client.disconnecting)
        self.assertFalse(client.aborted)

    def test_http10(self) -> None:
        client = Served(hello).connect(b"GET / HTTP/1.0\r\nHost: h\r\n\r\n")
        self.assertEqual(read_answer(client.sent)[0].body, b"hello")
        self.assertTrue(client.disconnecting)

    def test_http10_kept_alive(self) -> None:
        client = Served(hello).connect(
            b"GET / HTTP/1.0\r\nHost: h\r\nConnection: keep-alive\r\n\r\n"
        )
        self.assertEqual(read_answer(client.sent)[0].headers[b"connection"], b"keep-alive")
        self.assertFalse(client.disconnecting)

    def test_idle_connection_is_closed_in_time(self) -> None:
        served = Served(hello)
        client = served.connect(GET)
        served.wait(LIMITS.keep_alive - 1)
        self.assertFalse(client.disconnecting)
        served.wait(2)
        self.assertTrue(client.disconnecting)

    def test_client_that_never_speaks(self) -> None:
        served = Served(hello)
        client = served.connect()
        served.wait(LIMITS.head_time + 1)
        self.assertTrue(client.disconnecting)
        self.assertEqual((client.sent, served.over), (b"", []))

    def test_peer_names(self) -> None:
        for place, name in (
            (("192.0.2.7", 1), "192.0.2.7"),
            (("2001:db8::7", 1, 0, 0), "2001:db8::7"),
            (("::ffff:192.0.2.7", 1, 0, 0), "192.0.2.7"),
            ("", "local"),
            (None, "local"),
        ):
            served = Served(hello)
            served.connect(GET, peer=place)
            exchange = served.over[0]
            self.assertEqual(exchange.peer, name)
            self.assertEqual(
                exchange.forwarded,
                b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: http\r\n" % name.encode(),
            )

    def test_tls_is_told(self) -> None:
        served = Served(hello)
        served.connect(GET, tls="TLSv1.3")
        self.assertEqual(served.over[0].tls, "TLSv1.3")
        self.assertIn(b"X-Forwarded-Proto: https\r\n", served.over[0].forwarded)


class PipelineTests(SynchronousTestCase):
    def test_answered_in_order_one_at_a_time(self) -> None:
        served = Served()
        client = served.connect(b"".join(GET.replace(b"/ ", b"/%d " % n, 1) for n in range(3)))
        for number in range(3):
            self.assertEqual(len(served.exchanges), number + 1)
            hello(served.exchanges[-1])
            self.assertEqual(read_answer(client.take())[0].headers[b"x-path"], b"/%d" % number)

    def test_answered_at_once(self) -> None:
        client = Served(hello).connect(GET * 50)
        rest = client.sent
        for _ in range(50):
            answer, rest = read_answer(rest)
            self.assertEqual(answer.status, 200)
        self.assertEqual(rest, b"")

    def test_a_long_pipeline_lets_others_have_their_turn(self) -> None:
        """Or one read full of requests to be refused would stop the loop for a second."""
        served = Served(hello)
        client = served.connect(GET * 1000)
        self.assertEqual(len(served.over), BURST)
        self.assertTrue(client.paused)
        client.receive(GET)
        self.assertLess(len(served.over), BURST + 2)
        for _ in range(40):
            served.wait(0.5)
        self.assertEqual(len(served.over), 1001)
        self.assertFalse(client.paused)

    def test_who_leaves_while_others_have_their_turn(self) -> None:
        served = Served(hello)
        client = served.connect(GET * 1000)
        client.lose()
        served.wait(5)
        self.assertEqual(len(served.over), BURST)

    def test_bounded(self) -> None:
        """While one is answered, no more than 64 KiB of further ones are read."""
        served = Served()
        client = served.connect(GET)
        sent = 0
        while not client.paused and sent < 1 << 20:
            client.receive(GET * 100)
            sent += len(GET) * 100
        self.assertLess(sent, LIMITS.ahead + 2 * len(GET) * 100)
        while served.exchanges and not client.disconnecting and sent:
            before = len(served.exchanges)
            hello(served.exchanges[-1])
            if len(served.exchanges) == before:
                break
        self.assertFalse(client.paused)
        self.assertEqual(len(served.over), 1 + sent // len(GET))

    def test_client_that_reads_no_answers_gets_no_further_ones(self) -> None:
        """They would gather here without bound."""
        served = Served(hello)
        client = served.connect(GET)
        client.fill()
        client.receive(GET * 10)
        self.assertEqual(len(served.over), 1)
        self.assertTrue(client.paused)
        client.drain()
        self.assertEqual(len(served.over), 11)
        self.assertFalse(client.paused)

    def test_client_that_reads_no_answers_is_cut_off(self) -> None:
        served = Served()
        client = served.connect(GET)
        client.fill()
        hello(served.exchanges[0])
        client.receive(GET)
        served.wait(LIMITS.body_silence + 1)
        self.assertTrue(client.aborted)

    def test_nothing_behind_a_close_is_served(self) -> None:
        served = Served(hello)
        served.connect(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n" + GET)
        self.assertEqual(len(served.exchanges), 1)

    def test_half_closed_client_gets_all_it_is_owed(self) -> None:
        served = Served()
        client = served.connect(GET * 2)
        self.assertTrue(client.protocol.readConnectionLost())
        hello(served.exchanges[0])
        self.assertFalse(client.disconnecting)
        hello(served.exchanges[1])
        _, rest = read_answer(client.sent)
        self.assertEqual(read_answer(rest)[0].body, b"hello")
        self.assertTrue(client.disconnecting)

    def test_half_close_between_requests_closes(self) -> None:
        client = Served(hello).connect(GET)
        self.assertFalse(client.protocol.readConnectionLost())

    def test_half_close_within_a_body_is_refused(self) -> None:
        served = Served()
        client = served.connect(POST + b"he")
        self.assertFalse(client.protocol.readConnectionLost())
        answer = read_answer(client.sent)[0]
        self.assertEqual((answer.status, json.loads(answer.body)["reason"]), (400, "body-cut"))


class RefusalTests(SynchronousTestCase):
    """The answer is complete, says why, and the connection ends behind it."""

    def refused(self, data: bytes) -> tuple[int, str]:
        served = Served(hello)
        client = served.connect(data)
        answer, rest = read_answer(client.sent)
        self.assertEqual((rest, answer.complete), (b"", True))
        self.assertEqual(answer.headers[b"connection"], b"close")
        self.assertEqual(answer.headers[b"content-type"], b"application/problem+json")
        content = json.loads(answer.body)
        self.assertEqual(content["status"], answer.status)
        self.assertEqual(content["request_id"], served.over[0].request_id)
        # What is still on its way must not reset the connection under the answer.
        self.assertFalse(client.disconnecting)
        client.receive(GET, b"\0\0\0")
        served.wait(LIMITS.linger + 1)
        self.assertTrue(client.disconnecting)
        self.assertEqual(len(served.over), 1)
        self.assertEqual(served.over[0].status, answer.status)
        return answer.status, content["reason"]

    def test_malformed(self) -> None:
        for data, status, reason in (
            (b"GET / HTTP/1.1\nHost: h\r\n\r\n", 400, "bare-lf"),
            (b"GET / HTTP/1.1\r\n\r\n", 400, "host"),
            (b"GET /" + b"a" * 70000, 414, "target"),
            (b"GET / HTTP/1.1\r\nA: " + b"a" * 70000, 431, "head"),
            (b"GET / HTTP/2.0\r\nHost: h\r\n\r\n", 505, "version"),
            (b"TRACE / HTTP/1.1\r\nHost: h\r\n\r\n", 405, "method"),
            (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n", 400, "request-line"),
        ):
            self.assertEqual(self.refused(data), (status, reason), data[:40])

    def test_behind_good_ones(self) -> None:
        client = Served(hello).connect(GET * 2 + b"GET\r\n\r\n")
        _, rest = read_answer(client.sent)
        _, rest = read_answer(rest)
        self.assertEqual(read_answer(rest)[0].status, 400)

    def test_head_too_slow(self) -> None:
        served = Served(hello)
        client = served.connect()
        for _ in range(20):  # a byte now and then does not help
            client.receive(b"G")
            served.wait(0.75)
        answer = read_answer(client.sent)[0]
        self.assertEqual((answer.status, json.loads(answer.body)["reason"]), (408, "head-time"))
        served.wait(3)
        self.assertTrue(client.disconnecting)

    def test_second_head_too_slow(self) -> None:
        served = Served(hello)
        client = served.connect(GET)
        client.take()
        served.wait(LIMITS.head_time + 5)
        client.receive(b"GET")
        served.wait(LIMITS.head_time - 1)
        self.assertEqual(client.sent, b"")
        served.wait(2)
        self.assertEqual(read_answer(client.sent)[0].status, 408)

    def test_client_that_lingers_on_is_not_waited_for(self) -> None:
        """Also if it begins to read only now: the time to linger is not begun anew."""
        served = Served(hello)
        client = served.connect()
        client.fill()
        client.receive(b"GET\r\n\r\n")
        client.drain()
        served.wait(LIMITS.linger + 1)
        self.assertTrue(client.disconnecting)


class DrainTests(SynchronousTestCase):
    def test_idle_connections_close_at_once(self) -> None:
        served = Served(hello)
        idle, fresh = served.connect(GET), served.connect()
        served.factory.drain()
        self.assertTrue(idle.disconnecting)
        self.assertTrue(fresh.disconnecting)

    def test_busy_ones_after_their_answer(self) -> None:
        served = Served()
        client = served.connect(GET)
        served.factory.drain()
        self.assertFalse(client.disconnecting)
        hello(served.exchanges[0])
        answer = read_answer(client.sent)[0]
        self.assertEqual((answer.body, answer.headers[b"connection"]), (b"hello", b"close"))
        self.assertTrue(client.disconnecting)

    def test_answers_under_way_are_completed(self) -> None:
        served = Served()
        client = served.connect(GET)
        served.exchanges[0].begin(200, length=2)
        served.factory.drain()
        served.exchanges[0].write(b"ok")
        served.exchanges[0].end()
        self.assertEqual(read_answer(client.sent)[0].body, b"ok")
        self.assertTrue(client.disconnecting)

    def test_new_connections_get_one_answer(self) -> None:
        served = Served(hello)
        served.factory.drain()
        client = served.connect(GET)
        self.assertEqual(read_answer(client.sent)[0].headers[b"connection"], b"close")
        self.assertTrue(client.disconnecting)

    def test_connections_are_known_while_open(self) -> None:
        served = Served(hello)
        client = served.connect()
        self.assertEqual(len(served.factory.connections), 1)
        client.lose()
        self.assertEqual(len(served.factory.connections), 0)


class SlowReaderTests(SynchronousTestCase):
    def test_silent_reader_is_cut_off(self) -> None:
        served = Served()
        client = served.connect(GET)
        served.exchanges[0].begin(200)
        client.fill()
        served.wait(LIMITS.body_silence - 1)
        self.assertFalse(client.aborted)
        served.wait(2)
        self.assertTrue(client.aborted)
        client.lose()
        self.assertEqual(served.over[0].close_reason, "client-silence")

    def test_reader_of_a_stream_has_longer(self) -> None:
        served = Served()
        client = served.connect(GET)
        served.exchanges[0].is_stream = True
        served.exchanges[0].begin(200)
        client.fill()
        served.wait(LIMITS.body_silence * 2)
        self.assertFalse(client.aborted)
        served.wait(LIMITS.stream_silence)
        self.assertTrue(client.aborted)

    def test_reader_that_goes_on_in_time(self) -> None:
        served = Served()
        client = served.connect(GET)
        served.exchanges[0].begin(200)
        for _ in range(5):
            client.fill()
            served.wait(LIMITS.body_silence - 1)
            client.drain()
        served.wait(LIMITS.body_silence * 5)
        self.assertFalse(client.disconnecting)

    def test_last_answer_is_not_held_for_ever(self) -> None:
        """A client that asks to close, and then reads nothing, keeps no connection."""
        served = Served(hello)
        client = served.connect(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        client.fill()
        self.assertFalse(client.aborted)
        served.wait(LIMITS.body_silence + 1)
        self.assertTrue(client.aborted)
