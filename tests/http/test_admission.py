"""How many connections may be open, how much of bodies is held, and what is said beyond."""

import json
import resource

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from matrix.errors import TooManyRequests, Unavailable
from matrix.http import Admission, Hold, files_for_clients
from matrix.http._admission import RESERVED_FILES, TELLING_MAX, peer_name
from matrix.testing.served import GET, BodyRecord, Served, read_answer
from matrix.testing.transport import FakeTransport

POST = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n"


class AdmissionTests(SynchronousTestCase):
    def test_a_total(self) -> None:
        admission = Admission(2, 0)
        self.assertIsNone(admission.enter("a"))
        self.assertIsNone(admission.enter("b"))
        refusal = admission.enter("c")
        assert isinstance(refusal, Unavailable)
        self.assertEqual((refusal.reason, admission.refused), ("connections", 1))
        admission.leave("c")
        admission.leave("a")
        self.assertIsNone(admission.enter("d"))

    def test_connections_to_machines_count(self) -> None:
        admission = Admission(10, 0, lambda: 10)
        self.assertIsInstance(admission.enter("a"), Unavailable)

    def test_one_address(self) -> None:
        admission = Admission(10, 1)
        self.assertIsNone(admission.enter("a"))
        self.assertIsInstance(admission.enter("a"), TooManyRequests)
        self.assertIsNone(admission.enter("b"))

    @given(st.lists(st.tuples(st.booleans(), st.sampled_from("abc"))))
    def test_what_left_is_forgotten(self, moves: list[tuple[bool, str]]) -> None:
        admission = Admission(3, 2)
        present: list[str] = []
        for comes, address in moves:
            if comes:
                refusal = admission.enter(address)
                present.append(address)
                full = len(present) > 3 or present.count(address) > 2
                self.assertEqual(refusal is not None, full)
            elif address in present:
                present.remove(address)
                admission.leave(address)
        for address in present:
            admission.leave(address)
        self.assertEqual((admission._open, dict(admission._by_address)), (0, {}))

    def test_files_are_kept_for_ourselves(self) -> None:
        soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.assertEqual(files_for_clients(), soft - RESERVED_FILES)

    def test_addresses(self) -> None:
        self.assertEqual(peer_name(("::ffff:192.0.2.1", 1, 0, 0)), "192.0.2.1")
        self.assertEqual(peer_name(("2001:db8::1", 1, 0, 0)), "2001:db8::1")
        self.assertEqual(peer_name(""), "local")


class RefusedClientTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.served = Served(admission=Admission(2, 0))
        self.first = [self.served.connect(), self.served.connect()]

    def test_is_told_at_once_without_having_asked(self) -> None:
        client = self.served.connect()
        answer, _ = read_answer(client.sent)
        self.assertEqual(answer.status, 503)
        self.assertEqual(answer.headers[b"connection"], b"close")
        self.assertEqual(answer.headers[b"retry-after"], b"1")
        self.assertEqual(json.loads(answer.body)["reason"], "connections")
        self.assertEqual([exchange.status for exchange in self.served.over], [503])

    def test_is_let_go_of(self) -> None:
        client = self.served.connect()
        client.receive(GET)  # what it still sends is nobody's
        self.assertEqual(self.served.exchanges, [])
        self.served.wait(self.served.limits.linger + 1)
        self.assertTrue(client.disconnecting)

    def test_those_inside_are_served(self) -> None:
        self.served.connect()
        self.first[0].receive(GET)
        self.assertEqual(len(self.served.exchanges), 1)

    def test_room_that_was_left_is_given_again(self) -> None:
        self.first[0].lose()
        client = self.served.connect(GET)
        self.assertEqual((client.sent, len(self.served.exchanges)), (b"", 1))

    def test_a_flood_is_cut_off_without_a_word(self) -> None:
        told = [self.served.connect() for _ in range(TELLING_MAX)]
        flood = self.served.connect()
        self.assertTrue(all(client.sent for client in told))
        self.assertEqual((flood.sent, flood.aborted), (b"", True))
        flood.lose()
        told[0].lose()
        self.assertTrue(self.served.connect().sent)

    def test_all_gone_leaves_nothing_counted(self) -> None:
        clients = [*self.first, *(self.served.connect() for _ in range(TELLING_MAX + 5))]
        for client in clients:
            client.lose()
        admission = self.served.factory.admission
        assert admission is not None
        self.assertEqual((admission._open, admission.telling), (0, 0))


class HoldTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.hold = Hold(1500)
        self.served = Served(hold=self.hold)

    def test_counts_what_nobody_reads(self) -> None:
        self.served.connect(POST + b"x" * 600)
        self.assertEqual(self.hold.bytes, 600)
        body = BodyRecord()
        self.served.exchanges[0].receive(body)
        self.assertEqual((self.hold.bytes, body.data), (0, b"x" * 600))

    def test_refuses_what_is_too_much_for_all(self) -> None:
        first, second = (self.served.connect(POST + b"x" * 900) for _ in range(2))
        self.assertEqual(first.sent, b"")
        answer, _ = read_answer(second.sent, b"POST")
        self.assertEqual((answer.status, json.loads(answer.body)["reason"]), (503, "held-bytes"))
        self.assertEqual(self.hold.bytes, 900)

    def test_forgets_clients_that_leave(self) -> None:
        client = self.served.connect(POST + b"x" * 900)
        client.lose()
        self.assertEqual(self.hold.bytes, 0)

    def test_forgets_what_was_answered(self) -> None:
        client: FakeTransport = self.served.connect(POST + b"x" * 900)
        self.served.exchanges[0].respond(200)
        self.assertTrue(client.sent.startswith(b"HTTP/1.1 200"))
        self.assertEqual(self.hold.bytes, 0)
