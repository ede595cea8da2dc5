"""A request's body on its way to whoever receives it: flow, limits, and early answers."""

import json

from twisted.trial.unittest import SynchronousTestCase

from matrix.errors import PayloadTooLarge
from matrix.http import Exchange, Limits
from matrix.testing.served import GET, BodyRecord, Served, read_answer
from matrix.testing.transport import FakeTransport

LIMITS = Limits()
POST = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
EXPECTING = POST.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n")


def long_post(length: int) -> bytes:
    return b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % length


class FlowTests(SynchronousTestCase):
    def start(self, *data: bytes) -> tuple[Served, FakeTransport, Exchange, BodyRecord]:
        served = Served()
        client = served.connect(*data)
        return served, client, served.exchanges[0], BodyRecord()

    def test_flows_as_it_comes(self) -> None:
        _, client, exchange, body = self.start(POST)
        exchange.receive(body)
        client.receive(b"he")
        self.assertEqual((body.data, body.ended), (b"he", False))
        client.receive(b"llo" + GET)
        self.assertEqual((body.data, body.ended, exchange.body_bytes), (b"hello", True, 5))

    def test_no_body_ends_at_once(self) -> None:
        _, _, exchange, body = self.start(GET)
        exchange.receive(body)
        self.assertTrue(body.ended)

    def test_not_read_before_it_is_wanted(self) -> None:
        much = b"x" * (LIMITS.ahead + 1)
        _, client, exchange, body = self.start(CHUNKED + b"%x\r\n%b\r\n" % (len(much), much))
        self.assertTrue(client.paused)
        exchange.receive(body)
        self.assertFalse(client.paused)
        self.assertEqual(body.data, much)

    def test_little_of_it_is_read_all_the_same(self) -> None:
        """So that a client that leaves is noticed at once."""
        _, client, exchange, body = self.start(CHUNKED + b"2\r\nab\r\n")
        self.assertFalse(client.paused)
        client.receive(b"2\r\ncd\r\n")
        exchange.receive(body)
        self.assertEqual(body.data, b"abcd")

    def test_paused_and_resumed(self) -> None:
        _, client, exchange, body = self.start(CHUNKED)
        exchange.receive(body)
        exchange.pause_body()
        client.receive(b"2\r\nab\r\n", b"2\r\ncd\r\n0\r\n\r\n")
        self.assertTrue(client.paused)
        self.assertEqual(body.data, b"")
        exchange.resume_body()
        self.assertFalse(client.paused)
        self.assertEqual((body.data, body.ended), (b"abcd", True))

    def test_pausing_a_request_that_is_over_leaves_the_next_alone(self) -> None:
        served, client, first, _ = self.start(GET)
        first.respond(200)
        client.receive(POST)
        body = BodyRecord()
        served.exchanges[1].receive(body)
        first.pause_body()
        client.receive(b"hello")
        self.assertEqual(body.data, b"hello")

    def test_silence(self) -> None:
        served, client, exchange, body = self.start(POST)
        exchange.receive(body)
        served.wait(LIMITS.body_silence - 1)
        client.receive(b"he")
        served.wait(LIMITS.body_silence - 1)
        self.assertIsNone(body.lost)
        served.wait(3)
        answer = read_answer(client.sent)[0]
        self.assertEqual((answer.status, json.loads(answer.body)["reason"]), (408, "body-silence"))
        self.assertIsNotNone(body.lost)

    def test_silence_while_nobody_reads_is_not_the_clients(self) -> None:
        served, client, exchange, body = self.start(POST)
        served.wait(LIMITS.body_silence * 2)
        exchange.receive(body)
        exchange.pause_body()
        served.wait(LIMITS.body_silence * 2)
        self.assertEqual((client.sent, body.lost), (b"", None))

    def test_client_that_reads_nothing_is_cut_off_even_while_its_body_waits(self) -> None:
        """An echo that nobody reads would hold both connections for ever."""
        served, client, exchange, body = self.start(long_post(1 << 20))
        exchange.receive(body)
        exchange.begin(200)
        client.fill()
        exchange.pause_body()
        served.wait(LIMITS.body_silence + 1)
        self.assertTrue(client.aborted)

    def test_silence_is_limited_again_behind_a_slow_answer(self) -> None:
        served, client, exchange, body = self.start(POST)
        exchange.receive(body)
        exchange.begin(200)
        client.fill()
        client.drain()
        served.wait(LIMITS.body_silence + 1)
        self.assertTrue(client.aborted)
        self.assertIsNotNone(body.lost)

    def test_broken_framing(self) -> None:
        served, client, exchange, body = self.start(CHUNKED)
        exchange.receive(body)
        client.receive(b"2\r\nab\r\n", b"nonsense\r\n")
        self.assertEqual(body.data, b"ab")
        self.assertIsNotNone(body.lost)
        answer = read_answer(client.sent)[0]
        self.assertEqual((answer.status, json.loads(answer.body)["reason"]), (400, "chunk"))
        served.wait(3)
        self.assertTrue(client.disconnecting)

    def test_client_leaves(self) -> None:
        served, client, exchange, body = self.start(POST + b"he")
        exchange.receive(body)
        client.lose()
        assert body.lost is not None
        self.assertEqual((body.lost.status, served.over[0].status), (499, 499))

    def test_receiver_may_refuse(self) -> None:
        class Full(BodyRecord):
            def body_data(self, data: bytes) -> None:
                raise PayloadTooLarge("no room")

        _, client, exchange, _ = self.start(POST)
        body = Full()
        exchange.receive(body)
        client.receive(b"he")
        self.assertEqual(read_answer(client.sent)[0].status, 413)
        self.assertIsInstance(body.lost, PayloadTooLarge)


class ContinueTests(SynchronousTestCase):
    def test_asked_for_when_it_is_wanted(self) -> None:
        served = Served()
        client = served.connect(EXPECTING)
        self.assertEqual(client.sent, b"")
        served.exchanges[0].receive(BodyRecord())
        self.assertEqual(client.take(), b"HTTP/1.1 100 Continue\r\n\r\n")
        client.receive(b"hello")
        served.exchanges[0].respond(200)
        self.assertEqual(read_answer(client.sent)[0].status, 200)

    def test_left_to_the_machine(self) -> None:
        served = Served()
        client = served.connect(EXPECTING)
        served.exchanges[0].receive_unasked(BodyRecord())
        self.assertEqual(client.sent, b"")

    def test_http10_knows_none(self) -> None:
        served = Served()
        client = served.connect(EXPECTING.replace(b"1.1", b"1.0", 1))
        served.exchanges[0].receive(BodyRecord())
        self.assertEqual(client.sent, b"")

    def test_refused_without(self) -> None:
        """The client need not send the body, so the connection cannot be used again."""
        served = Served(lambda exchange: exchange.respond(403))
        client = served.connect(EXPECTING)
        answer = read_answer(client.sent)[0]
        self.assertEqual((answer.status, answer.headers[b"connection"]), (403, b"close"))
        self.assertEqual(answer.interim, [])


class EarlyAnswerTests(SynchronousTestCase):
    """Answered before the body was whole."""

    def test_small_rest_that_is_here_is_read(self) -> None:
        served = Served(lambda exchange: exchange.respond(403))
        client = served.connect(POST + b"hello" + GET)
        first, rest = read_answer(client.sent)
        self.assertNotIn(b"connection", first.headers)
        self.assertEqual(read_answer(rest)[0].status, 403)
        self.assertFalse(client.disconnecting)

    def test_rest_on_its_way_ends_the_connection(self) -> None:
        """And the client is told so, or it would send its next request in vain."""
        served = Served(lambda exchange: exchange.respond(403))
        client = served.connect(long_post(1 << 20), b"x" * 1000)
        answer = read_answer(client.sent)[0]
        self.assertEqual((answer.status, answer.headers[b"connection"]), (403, b"close"))
        self.assertFalse(client.disconnecting, "the answer would be lost with a reset")
        self.assertTrue(client.ended, "the client would wait for more")
        self.assertFalse(client.paused)
        client.receive(b"x" * 1000)
        served.wait(LIMITS.linger + 1)
        self.assertTrue(client.disconnecting)
        self.assertEqual(len(served.exchanges), 1)

    def test_receiver_is_told(self) -> None:
        served = Served()
        client = served.connect(long_post(1 << 20))
        body = BodyRecord()
        served.exchanges[0].receive(body)
        client.receive(b"x")
        served.exchanges[0].respond(413)
        self.assertIsNotNone(body.lost)
        client.receive(b"x")
        client.lose()
        self.assertEqual(body.data, b"x")

    def test_answer_that_begins_early_announces_the_end(self) -> None:
        served = Served()
        client = served.connect(POST)
        body = BodyRecord()
        served.exchanges[0].receive(body)
        served.exchanges[0].begin(200)
        client.receive(b"hello")
        self.assertTrue(body.ended)
        served.exchanges[0].write(body.data)
        served.exchanges[0].end()
        answer = read_answer(client.sent)[0]
        self.assertEqual((answer.body, answer.headers[b"connection"]), (b"hello", b"close"))
        self.assertTrue(client.disconnecting)

    def test_next_request_is_no_body(self) -> None:
        """What follows a body that was not wanted is never taken for a request."""
        served = Served(lambda exchange: exchange.respond(200))
        client = served.connect(long_post(len(GET) * 2) + GET)
        client.receive(GET)
        client.receive(GET)
        self.assertEqual(len(served.exchanges), 1)
        self.assertEqual(read_answer(client.sent)[1], b"")
