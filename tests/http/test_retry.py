"""When a request is sent again, and what counts as use of the machine."""

import json

from twisted.trial.unittest import SynchronousTestCase

from matrix.errors import GatewayTimeout
from matrix.http import Limits
from matrix.http._upstream import CONNECT_TIMEOUT
from matrix.testing.relayed import Relayed
from matrix.testing.served import GET, read_answer

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
HEAD = b"%b / HTTP/1.1\r\nHost: h\r\n%b\r\n"


class RetryTests(SynchronousTestCase):
    """
    Once, on a fresh connection, if nothing of an answer was seen on a kept one, and the
    method is idempotent or no byte of the body was sent.
    """

    def lose_kept(self, *data: bytes, answer: bytes = b"") -> Relayed:
        """The machine closes its kept connection just when the request arrives on it."""
        relayed = Relayed()
        kept = relayed.warm()
        self.client = relayed.connect(*data)
        self.assertEqual(len(relayed.endpoint.made), 1)
        if answer:
            kept.receive(answer)
        kept.lose(ConnectionResetError())
        return relayed

    def test_idempotent(self) -> None:
        for method in (b"GET", b"HEAD", b"PUT", b"DELETE", b"OPTIONS"):
            relayed = self.lose_kept(HEAD % (method, b""))
            self.assertEqual(len(relayed.endpoint.made), 2)
            self.assertTrue(relayed.machine.sent.startswith(method))
            relayed.machine.receive(b"HTTP/1.1 204 No Content\r\n\r\n")
            self.assertEqual(read_answer(self.client.sent, method)[0].status, 204)
            self.assertTrue(relayed.relays[-1].retried)
            self.assertEqual((relayed.counters.retried, relayed.backend.requests), (1, 0))

    def test_others_never(self) -> None:
        for method in (b"POST", b"PATCH", b"PROPFIND"):
            relayed = self.lose_kept(HEAD % (method, b""))
            self.assertEqual(len(relayed.endpoint.made), 1)
            answer = read_answer(self.client.sent)[0]
            self.assertEqual((answer.status, json.loads(answer.body)["reason"]), (502, "reset"))
            self.assertEqual(relayed.backend.requests, 0)

    def test_any_method_without_the_body_it_needs(self) -> None:
        relayed = self.lose_kept(HEAD % (b"POST", b"Content-Length: 5\r\n"))
        self.client.receive(b"hello")
        self.assertTrue(relayed.machine.sent.endswith(b"\r\n\r\nhello"))

    def test_not_with_a_part_of_the_body_gone(self) -> None:
        for method in (b"POST", b"PUT"):
            relayed = self.lose_kept(HEAD % (method, b"Content-Length: 5\r\n"), b"he")
            self.assertEqual(len(relayed.endpoint.made), 1)
            self.assertEqual(read_answer(self.client.sent)[0].status, 502)

    def test_not_when_something_was_seen(self) -> None:
        for seen in (b"H", b"HTTP/1.1 100 Continue\r\n\r\n"):
            relayed = self.lose_kept(GET, answer=seen)
            self.assertEqual(len(relayed.endpoint.made), 1)
            self.assertIn(b"502", self.client.sent)

    def test_not_on_a_fresh_connection(self) -> None:
        """A machine that dies of a request must not get it twice."""
        relayed = Relayed()
        client, machine = relayed.ask(HEAD % (b"POST", b""))
        machine.lose(ConnectionResetError())
        self.assertEqual((len(relayed.endpoint.made), relayed.unreachable), (1, []))
        self.assertEqual(read_answer(client.sent, b"POST")[0].status, 502)

    def test_once(self) -> None:
        relayed = self.lose_kept(GET)
        relayed.machine.lose()
        self.assertEqual(len(relayed.endpoint.made), 2)
        self.assertEqual(read_answer(self.client.sent)[0].status, 502)

    def test_not_on_another_kept_connection(self) -> None:
        relayed = Relayed()
        clients = [relayed.connect(GET) for _ in range(2)]
        for machine in relayed.endpoint.made:
            machine.receive(OK)
        client = relayed.connect(GET)
        relayed.endpoint.made[1].lose()
        self.assertEqual(len(relayed.endpoint.made), 3)
        self.assertIn(b"GET", relayed.machine.sent)
        self.assertEqual(len(clients), 2)
        self.assertFalse(client.disconnecting)

    def test_body_that_comes_while_connecting_again_is_not_lost(self) -> None:
        relayed = Relayed()
        kept = relayed.warm()
        client = relayed.connect(HEAD % (b"PUT", b"Content-Length: 5\r\n"))
        relayed.endpoint.hold = True
        kept.lose()
        client.receive(b"hello")
        machine = relayed.endpoint.accept()
        self.assertTrue(machine.sent.endswith(b"Content-Length: 5\r\n\r\nhello"))
        machine.receive(OK)
        self.assertEqual(read_answer(client.sent)[0].body, b"ok")


class UnreachableTests(SynchronousTestCase):
    """Nobody there is not the client's affair: whoever made the relay decides."""

    def test_refused(self) -> None:
        relayed = Relayed()
        relayed.endpoint.refuse = ConnectionRefusedError("refused")
        client = relayed.connect(GET)
        self.assertIsInstance(relayed.unreachable[0], ConnectionRefusedError)
        self.assertEqual((client.sent, relayed.counters.failed), (b"", 1))
        self.assertEqual(relayed.backend.requests, 0)

    def test_nobody_answers(self) -> None:
        relayed = Relayed()
        relayed.endpoint.hold = True
        relayed.connect(GET)
        relayed.wait(CONNECT_TIMEOUT + 1)
        self.assertIsInstance(relayed.unreachable[0], GatewayTimeout)
        self.assertEqual(relayed.backend.requests, 0)

    def test_a_fresh_connection_that_ends_without_a_word(self) -> None:
        """Sockets of a process that was killed accept for some milliseconds more."""
        relayed = Relayed()
        client, machine = relayed.ask(GET)
        machine.lose(ConnectionResetError())
        self.assertIsInstance(relayed.unreachable[0], ConnectionResetError)
        self.assertEqual((client.sent, relayed.backend.requests), (b"", 0))

    def test_not_if_it_said_something(self) -> None:
        relayed = Relayed()
        client, machine = relayed.ask(GET)
        machine.receive(b"HTTP/1.1")
        machine.lose(ConnectionResetError())
        self.assertEqual(relayed.unreachable, [])
        self.assertEqual(read_answer(client.sent)[0].status, 502)

    def test_refused_at_the_retry(self) -> None:
        relayed = Relayed()
        kept = relayed.warm()
        client = relayed.connect(GET)
        relayed.endpoint.refuse = ConnectionRefusedError("refused")
        kept.lose()
        self.assertEqual((len(relayed.unreachable), client.sent), (1, b""))

    def test_not_told_of_a_client_that_left(self) -> None:
        relayed = Relayed()
        relayed.endpoint.hold = True
        relayed.connect(GET).lose()
        relayed.wait(CONNECT_TIMEOUT + 1)
        self.assertEqual(relayed.unreachable, [])

    def test_other_failures_are_ours(self) -> None:
        relayed = Relayed()
        relayed.endpoint.refuse = ZeroDivisionError()
        client = relayed.connect(GET)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(read_answer(client.sent)[0].status, 500)
        self.assertEqual(relayed.backend.requests, 0)


class UseTests(SynchronousTestCase):
    """What keeps a machine awake."""

    def used(self, relayed: Relayed) -> bool:
        """Whether the machine was used since a moment ago."""
        now, self.before = relayed.wheel.now, relayed.backend.used_at
        return self.before == now

    def test_request_and_its_bytes(self) -> None:
        relayed = Relayed()
        relayed.wait(5)
        client, machine = relayed.ask(HEAD % (b"PUT", b"Content-Length: 2\r\n"))
        self.assertTrue(self.used(relayed))
        relayed.wait(5)
        self.assertFalse(self.used(relayed))
        client.receive(b"ab")
        self.assertTrue(self.used(relayed))
        relayed.wait(5)
        machine.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
        self.assertFalse(self.used(relayed))
        machine.receive(b"ok")
        self.assertTrue(self.used(relayed))

    def test_request_under_way(self) -> None:
        relayed = Relayed()
        _, machine = relayed.ask(GET)
        self.assertEqual(relayed.backend.requests, 1)
        machine.receive(OK)
        self.assertEqual(relayed.backend.requests, 0)

    def test_passive_request_is_none(self) -> None:
        relayed = Relayed(passive=True)
        relayed.wait(5)
        _, machine = relayed.ask(GET)
        machine.receive(OK)
        self.assertFalse(self.used(relayed))

    def test_events_and_not_comments(self) -> None:
        relayed = Relayed()
        client, machine = relayed.ask(GET)
        relayed.wait(5)
        machine.receive(b"HTTP/1.1 200 OK\r\nContent-Type: Text/Event-Stream; a=b\r\n\r\n")
        self.assertEqual(relayed.backend.requests, 0, "a stream alone keeps nothing awake")
        machine.receive(b": still here\n\n")
        self.assertFalse(self.used(relayed))
        client.take()
        machine.receive(b"data: 1\n\n")
        self.assertTrue(self.used(relayed))
        self.assertEqual(client.take(), b"9\r\ndata: 1\n\n\r\n", "each event goes out at once")


class EventStreamTests(SynchronousTestCase):
    def start(self) -> None:
        self.relayed = Relayed()
        self.client, self.machine = self.relayed.ask(GET)
        self.machine.receive(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n"
        )

    def test_silence_for_an_hour(self) -> None:
        self.start()
        limits = Limits()
        self.relayed.wait(limits.stream_silence - 1)
        self.machine.receive(b"1\r\n:\r\n")
        self.relayed.wait(limits.stream_silence - 1)
        self.assertFalse(self.client.disconnecting)
        self.relayed.wait(3)
        self.assertTrue(self.client.aborted)

    def test_drained_is_ended_properly(self) -> None:
        self.start()
        self.assertEqual(len(self.relayed.backend.streams), 1)
        self.relayed.backend.drain("suspend")
        answer, rest = read_answer(self.client.sent)
        self.assertEqual((answer.body, answer.complete, rest), (b"data: 1\n\n", True, b""))
        self.assertTrue(self.machine.aborted)
        self.assertEqual(len(self.relayed.backend.streams), 0)
        self.assertEqual(self.relayed.over[0].close_reason, "suspend")
        self.assertFalse(self.client.disconnecting)

    def test_client_leaves(self) -> None:
        self.start()
        self.client.lose()
        self.assertTrue(self.machine.aborted)
        self.assertEqual(len(self.relayed.backend.streams), 0)

    def test_machine_ends_it(self) -> None:
        self.start()
        self.machine.receive(b"0\r\n\r\n")
        self.assertTrue(read_answer(self.client.sent)[0].complete)
        self.assertEqual(len(self.relayed.backend.streams), 0)

    def test_machine_dies(self) -> None:
        self.start()
        self.machine.lose(ConnectionResetError())
        self.assertTrue(self.client.aborted)
        self.assertEqual(len(self.relayed.backend.streams), 0)
