"""What a handler can do with a request: answer, take its body, run on, change protocol."""

import json
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol
from twisted.trial.unittest import SynchronousTestCase

from matrix.errors import Conflict, InternalError, MatrixError, PayloadTooLarge, Unavailable
from matrix.http import Answer, Exchange, Limits
from matrix.testing.served import GET, BodyRecord, Served, read_answer
from matrix.testing.transport import FakeTransport

LIMITS = Limits()
POST = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"


def started(*data: bytes) -> tuple[Served, FakeTransport, Exchange]:
    served = Served()
    client = served.connect(*data)
    return served, client, served.exchanges[0]


def request(method: bytes, version: bytes = b"1.1") -> bytes:
    return b"%b / HTTP/%b\r\nHost: h\r\n\r\n" % (method, version)


class AnswerTests(SynchronousTestCase):
    def test_at_once(self) -> None:
        served, client, exchange = started(GET)
        exchange.respond(201, [(b"A", b"1"), (b"A", b"2")], b"made")
        self.assertEqual(
            client.sent,
            b"HTTP/1.1 201 Created\r\nA: 1\r\nA: 2\r\nContent-Length: 4\r\n\r\nmade",
        )
        self.assertEqual([(one.status, one.bytes_out) for one in served.over], [(201, 4)])

    def test_no_body_where_none_may_be(self) -> None:
        for method, status, length in (
            (b"HEAD", 200, b"5"),
            (b"GET", 204, None),
            (b"GET", 304, None),
            (b"HEAD", 204, None),
        ):
            for begun in (False, True):
                _, client, exchange = started(request(method))
                if begun:
                    exchange.begin(status, length=5 if length else None)
                    exchange.write(b"hello")
                    exchange.end()
                else:
                    exchange.respond(status, body=b"hello")
                answer, rest = read_answer(client.sent, method)
                self.assertEqual((answer.status, answer.body, rest), (status, b"", b""))
                self.assertEqual(answer.headers.get(b"content-length"), length)
                self.assertFalse(client.disconnecting)

    def test_204_never_tells_a_length(self) -> None:
        _, client, exchange = started(GET)
        exchange.begin(204, length=5)
        exchange.end()
        self.assertNotIn(b"Content-Length", client.sent)

    def test_of_known_length(self) -> None:
        _, client, exchange = started(GET)
        exchange.begin(200, length=6)
        self.assertTrue(client.sent.endswith(b"Content-Length: 6\r\n\r\n"))
        exchange.write(b"one")
        exchange.write(b"")
        exchange.write(b"two")
        exchange.end()
        self.assertEqual(read_answer(client.sent)[0].body, b"onetwo")

    def test_of_unknown_length(self) -> None:
        _, client, exchange = started(GET)
        exchange.begin(200)
        exchange.write(b"one")
        self.assertTrue(client.sent.endswith(b"3\r\none\r\n"))
        exchange.write(b"")
        exchange.write(b"two")
        exchange.end()
        answer, rest = read_answer(client.sent)
        self.assertEqual((answer.body, answer.complete, rest), (b"onetwo", True, b""))

    def test_of_unknown_length_for_http10(self) -> None:
        _, client, exchange = started(
            b"GET / HTTP/1.0\r\nHost: h\r\nConnection: keep-alive\r\n\r\n"
        )
        exchange.begin(200)
        exchange.write(b"one")
        exchange.end()
        answer = read_answer(client.sent, closed=True)[0]
        self.assertNotIn(b"transfer-encoding", answer.headers)
        self.assertEqual((answer.body, answer.complete), (b"one", True))
        self.assertTrue(client.disconnecting)

    def test_too_short_is_cut_off(self) -> None:
        served, client, exchange = started(GET)
        exchange.begin(200, length=5)
        exchange.write(b"hell")
        exchange.end()
        self.assertTrue(client.aborted)
        client.lose()
        self.assertEqual(served.over[0].close_reason, "aborted")

    def test_too_long_is_our_fault(self) -> None:
        _, client, exchange = started(GET)
        exchange.begin(200, length=3)
        with self.assertRaises(InternalError):
            exchange.write(b"hello")
        self.assertNotIn(b"hello", client.sent)

    def test_only_one(self) -> None:
        _, client, exchange = started(GET + GET)
        exchange.begin(200, length=0)
        with self.assertRaises(InternalError):
            exchange.respond(500)
        exchange.end()
        with self.assertRaises(InternalError):
            exchange.respond(500)
        self.assertEqual(read_answer(client.sent)[1], b"")

    def test_no_value_breaks_the_head(self) -> None:
        _, client, exchange = started(GET)
        for value in (b"a\r\nSet-Cookie: b", b"a\nb", b"a\rb"):
            with self.assertRaises(MatrixError):
                exchange.respond(200, [(b"Location", value)])
        self.assertEqual(client.sent, b"")

    def test_slow_reader_pauses_the_producer(self) -> None:
        _, client, exchange = started(GET)
        exchange.begin(200)
        producer = FakeTransport()
        exchange.register_producer(producer)
        client.fill()
        self.assertTrue(producer.paused)
        client.drain()
        self.assertFalse(producer.paused)

    def test_producer_comes_when_it_is_full_already(self) -> None:
        _, client, exchange = started(GET)
        exchange.begin(200)
        client.fill()
        producer = FakeTransport()
        exchange.register_producer(producer)
        self.assertTrue(producer.paused)
        exchange.end()
        client.drain()
        self.assertTrue(producer.paused, "it no longer serves this connection")


class FailureTests(SynchronousTestCase):
    def test_error_of_the_handler_is_the_answer(self) -> None:
        def refuse(exchange: Exchange) -> None:
            raise Conflict("taken", reason="taken")

        client = Served(refuse).connect(GET)
        answer = read_answer(client.sent)[0]
        self.assertEqual((answer.status, json.loads(answer.body)["reason"]), (409, "taken"))
        self.assertFalse(client.disconnecting)

    def test_crash_is_told_to_the_log_only(self) -> None:
        def crash(exchange: Exchange) -> None:
            raise KeyError("secret detail")

        served = Served(crash)
        client = served.connect(GET)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)
        answer = read_answer(client.sent)[0]
        self.assertEqual(answer.status, 500)
        self.assertNotIn(b"secret", client.sent)
        self.assertNotIn(b"Traceback", client.sent)
        self.assertIn(served.over[0].request_id.encode(), answer.body)

    def test_crash_behind_the_beginning_cuts_off(self) -> None:
        def crash(exchange: Exchange) -> None:
            exchange.begin(200)
            raise KeyError("x")

        client = Served(crash).connect(GET)
        self.flushLoggedErrors(KeyError)
        self.assertTrue(client.aborted)
        self.assertFalse(read_answer(client.sent)[0].complete)

    def test_rendering(self) -> None:
        def page(error: MatrixError, exchange: Exchange) -> Answer:
            return error.status, [(b"Content-Type", b"text/html")], b"<h1>%d</h1>" % error.status

        def refuse(exchange: Exchange) -> None:
            raise Unavailable("asleep")

        client = Served(refuse, render=page).connect(GET)
        self.assertEqual(read_answer(client.sent)[0].body, b"<h1>503</h1>")

    def test_rendering_that_fails(self) -> None:
        def page(error: MatrixError, exchange: Exchange) -> Answer:
            raise ZeroDivisionError

        def refuse(exchange: Exchange) -> None:
            raise Unavailable("asleep")

        client = Served(refuse, render=page).connect(GET)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        answer = read_answer(client.sent)[0]
        self.assertEqual((answer.status, json.loads(answer.body)["status"]), (503, 503))


class RunningOnTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.waiting: Deferred[None] = Deferred(lambda _: self.cancelled.append(True))
        self.cancelled: list[bool] = []

    def start(self, *data: bytes) -> tuple[Served, FakeTransport]:
        async def run(exchange: Exchange) -> None:
            await self.waiting
            exchange.respond(200, body=b"late")

        served = Served(lambda exchange: exchange.spawn(run(exchange)))
        return served, served.connect(*data)

    def test_answers_later(self) -> None:
        _, client = self.start(GET)
        self.assertEqual(client.sent, b"")
        self.waiting.callback(None)
        self.assertEqual(read_answer(client.sent)[0].body, b"late")

    def test_error_later(self) -> None:
        _, client = self.start(GET)
        self.waiting.errback(Unavailable("no", retry_after=3))
        answer = read_answer(client.sent)[0]
        self.assertEqual((answer.status, answer.headers[b"retry-after"]), (503, b"3"))

    def test_cancelled_when_the_client_leaves(self) -> None:
        served, client = self.start(GET)
        gone: list[int] = []
        served.exchanges[0].on_gone(lambda: gone.append(1))
        client.lose()
        self.assertEqual((self.cancelled, gone), ([True], [1]))
        exchange = served.over[0]
        self.assertTrue(exchange.gone)
        self.assertEqual((exchange.status, exchange.close_reason), (499, "client-gone"))
        self.assertEqual(self.flushLoggedErrors(), [])
        exchange.respond(200)  # goes nowhere, silently
        self.assertEqual(client.sent, b"")

    def test_cancelled_when_the_request_is_refused_meanwhile(self) -> None:
        served, client = self.start(POST + b"he")
        client.protocol.readConnectionLost()
        self.assertEqual(self.cancelled, [True])
        answer, rest = read_answer(client.sent)
        self.assertEqual((answer.status, rest), (400, b""))
        self.assertEqual([one.status for one in served.over], [400])

    def test_told_when_the_request_is_refused_meanwhile(self) -> None:
        served, client, exchange = started(POST)
        gone: list[int] = []
        exchange.on_gone(lambda: gone.append(1))
        client.protocol.readConnectionLost()
        self.assertEqual((gone, served.over[0].status), ([1], 400))

    def test_client_that_leaves_in_the_middle_is_499_too(self) -> None:
        served, client, exchange = started(GET)
        exchange.begin(206)
        client.lose()
        self.assertEqual((served.over[0].status, served.over[0].close_reason), (499, "client-gone"))

    def test_status_stays_when_it_was_us_who_ended_it(self) -> None:
        served, client, exchange = started(GET)
        exchange.begin(206)
        client.fill()
        served.wait(61)
        client.lose()
        self.assertEqual(
            (served.over[0].status, served.over[0].close_reason), (206, "client-silence")
        )

    def test_not_told_of_leaving_behind_the_answer(self) -> None:
        served, client, exchange = started(GET)
        gone: list[int] = []
        exchange.on_gone(lambda: gone.append(1))
        exchange.respond(200)
        client.lose()
        self.assertEqual((gone, len(served.over)), ([], 1))


class Echo(Protocol):
    def __init__(self) -> None:
        self.got = b""
        self.lost = False

    def dataReceived(self, data: bytes) -> None:
        self.got += data
        cast(Any, self.transport).write(data)

    def connectionLost(self, reason: object = None) -> None:
        self.lost = True


class UpgradeTests(SynchronousTestCase):
    def test_hands_the_connection_over(self) -> None:
        served, client, exchange = started(GET + b"early")
        echo = Echo()
        self.assertIs(exchange.upgrade([(b"Upgrade", b"echo")], echo), client)
        self.assertEqual(
            client.take(), b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\n\r\nearly"
        )
        client.receive(b" late")
        self.assertEqual(echo.got, b"early late")
        served.wait(LIMITS.keep_alive * 2)
        self.assertFalse(client.disconnecting)
        client.lose()
        self.assertTrue(echo.lost)
        self.assertEqual([one.status for one in served.over], [101])

    def test_what_was_paused_goes_on(self) -> None:
        """More than the bound of early bytes had come."""
        _, client, exchange = started(GET, b"x" * (LIMITS.ahead + 1))
        self.assertTrue(client.paused)
        echo = Echo()
        exchange.upgrade([], echo)
        self.assertFalse(client.paused)
        self.assertEqual(len(echo.got), LIMITS.ahead + 1)

    def test_not_behind_an_answer(self) -> None:
        _, client, exchange = started(GET)
        exchange.respond(200)
        with self.assertRaises(InternalError):
            exchange.upgrade([], Echo())
        self.assertNotIn(b"101", client.sent)


class ReadBodyTests(SynchronousTestCase):
    def read(self, limit: int, *data: bytes) -> tuple[FakeTransport, list[bytes]]:
        bodies: list[bytes] = []

        async def run(exchange: Exchange) -> None:
            bodies.append(await exchange.read_body(limit))
            exchange.respond(200)

        served = Served(lambda exchange: exchange.spawn(run(exchange)))
        return served.connect(*data), bodies

    def test_whole(self) -> None:
        for data in (
            (POST, b"he", b"llo"),
            (POST + b"hello",),
            (CHUNKED, b"5\r\nhello\r\n0\r\n\r\n"),
        ):
            client, bodies = self.read(5, *data)
            self.assertEqual(bodies, [b"hello"])
            self.assertEqual(read_answer(client.sent)[0].status, 200)

    def test_none(self) -> None:
        self.assertEqual(self.read(5, GET)[1], [b""])

    def test_too_long(self) -> None:
        for data in (
            (POST,),
            (CHUNKED, b"3\r\nabc\r\n", b"2\r\nde\r\n"),
            (CHUNKED, b"5\r\nhello\r\n"),
        ):
            client, bodies = self.read(4, *data)
            self.assertEqual(bodies, [])
            self.assertEqual(read_answer(client.sent)[0].status, PayloadTooLarge.status)

    def test_broken(self) -> None:
        client, bodies = self.read(9, CHUNKED, b"3\r\nabcd")
        self.assertEqual((bodies, read_answer(client.sent)[0].status), ([], 400))

    def test_of_a_client_that_left(self) -> None:
        client, bodies = self.read(9, POST, b"he")
        client.lose()
        self.assertEqual((bodies, client.sent), ([], b""))

    def test_of_a_request_that_was_refused_is_never_whole(self) -> None:
        _, client, exchange = started(POST + b"he")
        client.protocol.readConnectionLost()
        body = BodyRecord()
        exchange.receive(body)
        self.assertFalse(body.ended)
        self.assertIsNotNone(body.lost)
