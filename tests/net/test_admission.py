"""Who may connect: bounds in all, from one address, and by the files that are left."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from matrix.errors import TooManyRequests, Unavailable
from matrix.net import Admission
from matrix.net._admission import TELLING_MAX, Visit

PLENTY = 1_000_000


class AdmissionTests(SynchronousTestCase):
    def enter(self, admission: Admission, address: str = "a", number: int = 10) -> Visit:
        visit = admission.enter(address, number)
        assert visit is not None
        return visit

    def test_a_total(self) -> None:
        admission = Admission(PLENTY, 2)
        first, second = (self.enter(admission, address) for address in "ab")
        self.assertIsNone(first.refusal or second.refusal)
        third = self.enter(admission, "c")
        assert isinstance(third.refusal, Unavailable)
        self.assertEqual(third.refusal.reason, "connections")
        self.assertEqual((admission.admitted, admission.refused), (2, 1))
        admission.leave(first)
        self.assertIsNone(self.enter(admission, "d").refusal, "who is told to go has no place")

    def test_connections_to_machines_count(self) -> None:
        admission = Admission(PLENTY, 10, others=lambda: 10)
        self.assertIsInstance(self.enter(admission).refusal, Unavailable)

    def test_one_address(self) -> None:
        admission = Admission(PLENTY, per_address=1)
        self.assertIsNone(self.enter(admission).refusal)
        self.assertIsInstance(self.enter(admission).refusal, TooManyRequests)
        self.assertIsNone(self.enter(admission, "b").refusal)

    def test_an_address_that_stands_for_many(self) -> None:
        admission = Admission(PLENTY, per_address=1, exempt="balancer".__eq__)
        for _ in range(5):
            self.assertIsNone(self.enter(admission, "balancer").refusal)

    def test_files_are_kept_from_clients(self) -> None:
        admission = Admission(100)
        self.assertIsNone(self.enter(admission, number=99).refusal)
        self.assertIsInstance(self.enter(admission, number=100).refusal, Unavailable)
        self.assertIsNone(admission.enter("a", 100 + TELLING_MAX))
        self.assertEqual(admission.cut, 1)

    def test_only_so_many_are_told(self) -> None:
        admission = Admission(100, telling=2)
        told = [self.enter(admission, number=100 + number) for number in range(2)]
        self.assertIsNone(admission.enter("a", 101))
        admission.leave(told[0])
        self.assertIsInstance(self.enter(admission, number=100).refusal, Unavailable)

    def test_nobody_is_told_where_operators_come_in(self) -> None:
        self.assertIsNone(Admission(100, telling=0).enter("a", 100))

    @given(st.lists(st.tuples(st.booleans(), st.sampled_from("abc"))))
    def test_what_left_is_forgotten(self, moves: list[tuple[bool, str]]) -> None:
        admission = Admission(PLENTY, 3, 2)
        present: list[Visit] = []
        for comes, address in moves:
            inside = [visit.address for visit in present if visit.refusal is None]
            if comes:
                visit = self.enter(admission, address)
                full = len(inside) >= 3 or inside.count(address) >= 2
                self.assertEqual(visit.refusal is not None, full)
                present.append(visit)
            elif found := next((visit for visit in present if visit.address == address), None):
                present.remove(found)
                admission.leave(found)
        for visit in present:
            admission.leave(visit)
        counts = (admission._open, admission.telling, dict(admission._by_address))
        self.assertEqual(counts, (0, 0, {}))
