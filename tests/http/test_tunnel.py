"""The tunnel: a WebSocket joined end to end, and how it ends."""

from twisted.internet.interfaces import IProtocol
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyClass

from matrix.http import Limits, accept_key, close_frame
from matrix.http._tunnel import ANSWER_TIMEOUT, CLOSE_TIMEOUT, Tunnel
from matrix.testing.relayed import NOTE, Relayed
from matrix.testing.transport import FakeTransport

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
ASKS = (
    b"GET /ws HTTP/1.1\r\nHost: h\r\nUpgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n"
    b"Sec-WebSocket-Key: " + KEY + b"\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
AGREES = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: " + accept_key(KEY) + b"\r\nSec-WebSocket-Protocol: chat\r\n\r\n"
)
HELLO = b"\x81\x05hello"
MASKED = b"\x81\x85\0\0\0\0hello"
PING = b"\x89\x00"


class TunnelCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.relayed = Relayed()
        self.backend = self.relayed.backend

    def open(self, early: bytes = b"", behind: bytes = b"") -> tuple[FakeTransport, FakeTransport]:
        """A tunnel, with what each side sent before it was there."""
        client, machine = self.relayed.ask(ASKS + early)
        machine.receive(AGREES + behind)
        return client, machine

    def open_quietly(self) -> tuple[FakeTransport, FakeTransport]:
        client, machine = self.open()
        client.take()
        machine.take()
        return client, machine


class OpeningTests(TunnelCase):
    def test_handshake(self) -> None:
        client, machine = self.open()
        verifyClass(IProtocol, Tunnel)
        self.assertIn(b"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", machine.sent)
        self.assertIn(b"Sec-WebSocket-Version: 13\r\n", machine.sent)
        self.assertEqual(
            client.sent,
            b"HTTP/1.1 101 Switching Protocols\r\n"
            b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
            b"Sec-WebSocket-Protocol: chat\r\n"
            b"Connection: Upgrade\r\nUpgrade: websocket\r\n" + NOTE + b"\r\n",
        )
        self.assertEqual((self.backend.requests, len(self.backend.streams)), (0, 1))

    def test_bytes_that_came_early(self) -> None:
        client, machine = self.open(early=MASKED, behind=HELLO)
        self.assertTrue(client.sent.endswith(b"\r\n\r\n" + HELLO))
        self.assertTrue(machine.sent.endswith(b"\r\n\r\n" + MASKED))

    def test_machine_that_does_not_agree(self) -> None:
        client, machine = self.relayed.ask(ASKS)
        machine.receive(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        self.assertIn(b"403", client.sent)
        self.assertEqual(len(self.backend.streams), 0)

    def test_both_ways(self) -> None:
        client, machine = self.open_quietly()
        client.receive(MASKED, PING)
        self.assertEqual(machine.take(), MASKED + PING)
        machine.receive(HELLO, PING)
        self.assertEqual(client.take(), HELLO + PING)
        client.lose()
        exchange = self.relayed.over[0]
        self.assertEqual((exchange.status, exchange.body_bytes), (101, len(MASKED + PING)))
        self.assertEqual(exchange.bytes_out, len(HELLO + PING))

    def test_back_pressure_both_ways(self) -> None:
        client, machine = self.open_quietly()
        client.fill()
        self.assertEqual((machine.paused, client.paused), (True, False))
        client.drain()
        self.assertFalse(machine.paused)
        machine.fill()
        self.assertEqual((machine.paused, client.paused), (False, True))
        machine.drain()
        self.assertFalse(client.paused)

    def test_client_that_is_full_already(self) -> None:
        client, machine = self.relayed.ask(ASKS)
        client.fill()
        machine.receive(AGREES)
        self.assertTrue(machine.paused)

    def test_use_is_data(self) -> None:
        client, machine = self.open_quietly()
        for side, data, used in (
            (client, PING, False),
            (machine, PING, False),
            (client, MASKED, True),
            (machine, HELLO, True),
        ):
            self.relayed.wait(5)
            side.receive(data)
            self.assertEqual(self.backend.used_at == self.relayed.wheel.now, used, data)


class EndingTests(TunnelCase):
    def test_client_leaves(self) -> None:
        client, machine = self.open_quietly()
        client.lose()
        self.assertTrue(machine.disconnecting)
        self.assertEqual(len(self.backend.streams), 0)
        machine.receive(HELLO)
        machine.lose()
        self.assertEqual(len(self.relayed.over), 1)

    def test_closing_handshake_passes(self) -> None:
        client, machine = self.open_quietly()
        client.receive(close_frame(1000, "bye", masked=True))
        machine.receive(close_frame(1000, "bye"))
        machine.lose()
        self.assertEqual(client.sent, close_frame(1000, "bye"))
        self.assertTrue(client.disconnecting)
        self.assertFalse(client.aborted)

    def test_machine_dies(self) -> None:
        """The client sees what it would see without us: an end without a close frame."""
        for error in (None, ConnectionResetError()):
            client, machine = self.open_quietly()
            machine.receive(HELLO)
            machine.lose(error)
            self.assertEqual(client.sent, HELLO)
            self.assertTrue(client.disconnecting)
            self.assertFalse(client.aborted)
            client.receive(MASKED)
            client.lose()
            self.assertEqual(machine.sent, b"")

    def test_machine_dies_within_a_frame(self) -> None:
        client, machine = self.open_quietly()
        machine.receive(HELLO[:3])
        machine.lose()
        self.assertEqual(client.sent, HELLO[:3])
        self.assertTrue(client.disconnecting)

    def test_client_that_reads_nothing_is_not_waited_for(self) -> None:
        client, machine = self.open_quietly()
        machine.lose()
        self.relayed.wait(Limits().body_silence - 1)
        self.assertFalse(client.aborted)
        self.relayed.wait(2)
        self.assertTrue(client.aborted)

    def test_machine_that_half_closes_behind_its_close_frame_is_answered(self) -> None:
        client, machine = self.open_quietly()
        machine.receive(close_frame(1000, "bye"))
        self.assertTrue(machine.protocol.readConnectionLost())
        answer = close_frame(1000, "bye", masked=True)
        client.receive(answer[:4])
        self.assertFalse(machine.disconnecting)
        client.receive(answer[4:])
        self.assertEqual(machine.sent, answer)
        self.assertTrue(machine.disconnecting)
        self.assertTrue(client.disconnecting)
        self.assertFalse(client.aborted)

    def test_half_closed_machine_is_not_answered_for_ever(self) -> None:
        client, machine = self.open_quietly()
        machine.receive(close_frame(1000, "bye"))
        machine.protocol.readConnectionLost()
        self.relayed.wait(ANSWER_TIMEOUT + 1)
        self.assertTrue(client.disconnecting)
        self.assertFalse(client.aborted)
        self.assertTrue(machine.disconnecting)
        self.assertEqual(len(self.backend.streams), 0)

    def test_half_closed_machine_without_a_close_frame_is_gone(self) -> None:
        _, machine = self.open_quietly()
        machine.receive(HELLO)
        self.assertFalse(machine.protocol.readConnectionLost())

    def test_silence(self) -> None:
        client, machine = self.open_quietly()
        limit = Limits().stream_silence
        self.relayed.wait(limit - 1)
        client.receive(PING)
        self.relayed.wait(limit - 1)
        machine.receive(PING)
        self.relayed.wait(limit - 1)
        self.assertFalse(client.disconnecting)
        self.relayed.wait(3)
        self.assertTrue(client.aborted)
        self.assertTrue(machine.disconnecting)
        client.lose()
        self.assertEqual(self.relayed.over[0].close_reason, "stream-silence")


class DrainTests(TunnelCase):
    """The machine goes to sleep under an open WebSocket."""

    def drain(self) -> None:
        self.backend.drain("suspend")
        self.assertEqual(len(self.backend.streams), 0)

    def test_both_sides_are_told(self) -> None:
        client, machine = self.open_quietly()
        self.drain()
        self.assertEqual(client.sent, close_frame(1012, "suspend"))
        frame = machine.sent
        self.assertEqual(frame[:2], bytes((0x88, 0x80 | (len(frame) - 6))))
        mask = frame[2:6]
        payload = bytes(byte ^ mask[at % 4] for at, byte in enumerate(frame[6:]))
        self.assertEqual(payload, b"\x03\xf4suspend")
        self.assertTrue(machine.disconnecting)
        self.assertFalse(client.disconnecting)

    def test_client_answers(self) -> None:
        client, machine = self.open_quietly()
        self.drain()
        machine.lose()
        client.receive(MASKED)
        self.assertFalse(client.disconnecting)
        client.receive(close_frame(1012, "", masked=True))
        self.assertTrue(client.disconnecting)
        self.assertFalse(client.aborted)
        client.lose()
        self.assertEqual(self.relayed.over[0].close_reason, "suspend")

    def test_client_does_not_answer(self) -> None:
        client, _ = self.open_quietly()
        self.drain()
        self.relayed.wait(CLOSE_TIMEOUT - 0.5)
        self.assertFalse(client.aborted)
        self.relayed.wait(1.5)
        self.assertTrue(client.aborted)

    def test_client_that_was_paused_can_answer(self) -> None:
        client, machine = self.open_quietly()
        machine.fill()
        self.assertTrue(client.paused)
        self.drain()
        self.assertFalse(client.paused)

    def test_within_a_frame_of_the_machine(self) -> None:
        """A close frame of ours would be taken for a part of it."""
        client, machine = self.open_quietly()
        machine.receive(HELLO[:3])
        self.drain()
        self.assertEqual(client.sent, HELLO[:3])
        self.assertTrue(client.aborted)

    def test_within_a_frame_of_the_client(self) -> None:
        client, machine = self.open_quietly()
        client.receive(MASKED[:8])
        self.drain()
        self.assertEqual(machine.sent, MASKED[:8])
        self.assertEqual(client.sent, close_frame(1012, "suspend"))

    def test_while_it_closes_already(self) -> None:
        client, machine = self.open_quietly()
        frame = close_frame(1000, "bye")
        machine.receive(frame)
        client.receive(close_frame(1000, "", masked=True))
        sent = machine.sent
        self.drain()
        self.assertEqual((client.sent, machine.sent), (frame, sent))
        self.assertTrue(client.disconnecting)
        self.assertFalse(client.aborted)

    def test_machine_that_takes_nothing_is_not_waited_for(self) -> None:
        """It may be frozen already."""
        _, machine = self.open_quietly()
        self.drain()
        self.assertFalse(machine.aborted)
        self.relayed.wait(CLOSE_TIMEOUT + 1)
        self.assertTrue(machine.aborted)

    def test_last_words_of_the_machine_come_too_late(self) -> None:
        client, machine = self.open_quietly()
        self.drain()
        machine.receive(HELLO)
        self.assertEqual(client.sent, close_frame(1012, "suspend"))
