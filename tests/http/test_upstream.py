"""The connections to a machine: which are kept, for how long, and which never again."""

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from matrix.http import Health, examine, probe
from matrix.testing.relayed import IDLE_TIME, Relayed
from matrix.testing.served import GET, read_answer

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
RESTORING = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\n"
    b"Matrix-Machine: restoring; done=10; total=20\r\nContent-Length: 0\r\n\r\n"
)


class PoolTests(SynchronousTestCase):
    def test_reused(self) -> None:
        relayed = Relayed()
        client, machine = relayed.ask(GET)
        machine.receive(OK)
        client.receive(GET)
        machine.receive(OK)
        self.assertEqual(len(relayed.endpoint.made), 1)
        self.assertEqual((relayed.counters.connected, relayed.counters.reused), (1, 1))

    def test_most_recently_used_first(self) -> None:
        relayed = Relayed()
        for _ in range(3):
            relayed.connect(GET)
        first, second, third = relayed.endpoint.made
        for machine in (second, third, first):
            machine.receive(OK)
            machine.take()
        relayed.connect(GET)
        self.assertNotEqual(first.sent, b"")
        relayed.connect(GET)
        self.assertNotEqual(third.sent, b"")
        self.assertEqual(second.sent, b"")

    def test_closed_when_unused(self) -> None:
        relayed = Relayed()
        kept = relayed.warm()
        relayed.wait(IDLE_TIME - 1)
        self.assertFalse(kept.disconnecting)
        relayed.wait(2)
        self.assertTrue(kept.disconnecting)
        relayed.connect(GET)
        self.assertEqual(len(relayed.endpoint.made), 2)

    def test_one_that_is_closing_is_not_taken(self) -> None:
        relayed = Relayed()
        relayed.warm().disconnecting = True
        self.assertIsNone(relayed.backend.take())

    def test_one_that_was_lost_is_not_taken(self) -> None:
        relayed = Relayed()
        relayed.warm().lose()
        self.assertIsNone(relayed.backend.take())

    def test_counted_as_open_until_it_is_lost(self) -> None:
        relayed = Relayed()
        kept = relayed.warm()
        self.assertEqual(relayed.counters.open, 1)
        kept.lose()
        self.assertEqual(relayed.counters.open, 0)
        _, busy = relayed.ask(GET)
        self.assertEqual(relayed.counters.open, 1)
        busy.lose(ConnectionResetError())
        self.assertEqual(relayed.counters.open, 0)

    def test_what_nobody_asked_for_poisons(self) -> None:
        relayed = Relayed()
        kept = relayed.warm()
        kept.receive(OK)
        self.assertTrue(kept.aborted)
        self.assertIsNone(relayed.backend.take())

    def test_more_than_the_answer_poisons(self) -> None:
        relayed = Relayed()
        client, machine = relayed.ask(GET)
        machine.receive(OK + b"HTTP/1.1 200 OK\r\n")
        self.assertEqual(read_answer(client.sent)[0].body, b"ok")
        self.assertTrue(machine.aborted)
        self.assertIsNone(relayed.backend.take())

    def test_not_kept_when_the_machine_closes(self) -> None:
        for answer in (
            OK.replace(b"OK\r\n", b"OK\r\nConnection: close\r\n"),
            OK.replace(b"1.1", b"1.0"),
        ):
            relayed = Relayed()
            client, machine = relayed.ask(GET)
            machine.receive(answer)
            self.assertEqual(read_answer(client.sent)[0].body, b"ok")
            self.assertTrue(machine.disconnecting)
            self.assertFalse(machine.aborted, "nothing is wrong with it")
            self.assertFalse(client.disconnecting, "the client's connection is another matter")

    def test_kept_ones_read_on(self) -> None:
        """One that was paused for a slow client must still notice its end."""
        relayed = Relayed()
        client, machine = relayed.ask(GET)
        machine.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
        client.fill()
        self.assertTrue(machine.paused)
        machine.receive(b"cd")
        self.assertFalse(machine.paused)
        client.drain()

    def test_closed_with_the_boot(self) -> None:
        relayed = Relayed()
        kept = relayed.warm()
        client, busy = relayed.ask(GET), relayed.machine
        self.assertIs(kept, busy)
        other = relayed.ask(GET)[1]
        other.receive(OK)
        relayed.backend.close()
        self.assertTrue(other.aborted)
        self.assertFalse(busy.disconnecting, "what is under way goes on")
        busy.receive(OK)
        self.assertTrue(busy.disconnecting, "and is not used again")
        self.assertEqual(read_answer(client[0].sent)[0].body, b"ok")

    def test_machine_that_takes_no_goodbye_is_not_waited_for(self) -> None:
        relayed = Relayed()
        kept = relayed.warm()
        relayed.wait(IDLE_TIME + 1)
        self.assertFalse(kept.aborted)
        kept.protocol.arm(1)
        relayed.wait(3)
        self.assertTrue(kept.aborted)


class ProbeTests(SynchronousTestCase):
    def probe(self, relayed: Relayed, seconds: float = 1.0) -> Deferred[bool]:
        return Deferred.fromCoroutine(probe(relayed.backend, seconds))

    def test_any_answer_will_do(self) -> None:
        for answer in (OK, b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"):
            relayed = Relayed()
            asked = self.probe(relayed)
            self.assertTrue(relayed.machine.sent.startswith(b"GET /healthz HTTP/1.1\r\n"))
            self.assertNoResult(asked)
            relayed.machine.receive(answer)
            self.assertTrue(self.successResultOf(asked))
            self.assertIsNotNone(relayed.backend.take(), "kept for the first request")
            relayed.wait(5)
            self.assertFalse(relayed.machine.aborted)

    def test_a_machine_that_restores_serves_nobody_yet(self) -> None:
        relayed = Relayed()
        asked = Deferred.fromCoroutine(examine(relayed.backend, 1.0))
        relayed.machine.receive(RESTORING)
        self.assertEqual(self.successResultOf(asked), Health(b"restoring; done=10; total=20"))
        self.assertIsNone(relayed.backend.take(), "no request goes to it")
        asked_again = self.probe(relayed)
        relayed.machine.receive(RESTORING)
        self.assertFalse(self.successResultOf(asked_again))

    def test_only_a_503_can_say_that_it_restores(self) -> None:
        relayed = Relayed()
        asked = self.probe(relayed)
        relayed.machine.receive(RESTORING.replace(b"503", b"200"))
        self.assertTrue(self.successResultOf(asked))

    def test_the_connection_is_told_of_before_the_answer(self) -> None:
        relayed, told = Relayed(), []

        def connected() -> bool:
            told.append(1)
            return True

        asked = Deferred.fromCoroutine(examine(relayed.backend, 1.0, connected))
        self.assertEqual(told, [1])
        self.assertNoResult(asked)
        relayed.machine.receive(OK)
        self.assertEqual(self.successResultOf(asked), Health())

    def test_a_connection_that_came_too_late_is_ended(self) -> None:
        relayed = Relayed()
        asked = Deferred.fromCoroutine(examine(relayed.backend, 1.0, lambda: False))
        self.assertIsNone(self.successResultOf(asked))
        self.assertTrue(relayed.machine.aborted)

    def test_until_close(self) -> None:
        relayed = Relayed()
        asked = self.probe(relayed)
        relayed.machine.receive(b"HTTP/1.0 200 OK\r\n\r\nfine")
        relayed.machine.lose()
        self.assertTrue(self.successResultOf(asked))
        self.assertIsNone(relayed.backend.take())

    def test_nobody_there(self) -> None:
        relayed = Relayed()
        relayed.endpoint.refuse = FileNotFoundError()
        self.assertFalse(self.successResultOf(self.probe(relayed)))

    def test_no_http(self) -> None:
        for data in (b"SSH-2.0-OpenSSH\r\n\r\n", b"HTTP/1.1 200 OK\nA: b\n\n"):
            relayed = Relayed()
            asked = self.probe(relayed)
            relayed.machine.receive(data)
            self.assertFalse(self.successResultOf(asked))
            self.assertTrue(relayed.machine.aborted)

    def test_closes_without_a_word(self) -> None:
        relayed = Relayed()
        asked = self.probe(relayed)
        relayed.machine.lose()
        self.assertFalse(self.successResultOf(asked))

    def test_says_nothing_in_time(self) -> None:
        relayed = Relayed()
        asked = self.probe(relayed, 2.0)
        relayed.wait(1.75)
        self.assertNoResult(asked)
        relayed.wait(1)
        self.assertFalse(self.successResultOf(asked))
        self.assertTrue(relayed.machine.aborted)

    def test_accepts_no_connection_in_time(self) -> None:
        relayed = Relayed()
        relayed.endpoint.hold = True
        asked = self.probe(relayed, 2.0)
        relayed.wait(10)
        self.assertFalse(self.successResultOf(asked))

    def test_cancelled(self) -> None:
        relayed = Relayed()
        asked = self.probe(relayed)
        asked.cancel()
        self.assertTrue(relayed.machine.aborted)
        self.assertFalse(self.successResultOf(asked))
