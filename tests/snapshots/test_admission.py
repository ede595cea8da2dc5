"""Machines get in with their own credential, during outages and rotations too."""

from __future__ import annotations

from base64 import b64encode

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from matrix.auth import MachineProof, MachineSecrets
from matrix.directory import MemoryDirectory
from matrix.errors import Forbidden, Unauthorized, Unavailable
from matrix.model import UserState
from matrix.snapshots import MachineAdmission
from matrix.snapshots.interfaces import Access
from matrix.testing.exchange import FakeRequest
from matrix.testing.restic import ALICE, BOB


class AdmissionTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_000_000)
        self.directory = MemoryDirectory(self.clock)
        for user in (ALICE, BOB):
            self.successResultOf(Deferred.fromCoroutine(self.directory.admit(user, "")))
            making = self.directory.create_machine(user, "local")
            self.successResultOf(Deferred.fromCoroutine(making))
        self.secrets = MachineSecrets("m" * 32)
        proof = MachineProof(self.directory, self.secrets.restic_account, self.clock)
        self.admission = MachineAdmission(proof)

    def admit(self, user: str, password: str) -> Deferred[Access]:
        """What comes of a credential."""
        field = b"Basic " + b64encode(f"{user}:{password}".encode())
        request = FakeRequest(headers=[(b"authorization", field)])
        return Deferred.fromCoroutine(self.admission.admit(request))

    def password(self, epoch: int = 1, user: str = ALICE) -> str:
        """A user's credential."""
        return self.secrets.restic_account(user, epoch)  # type: ignore[arg-type]

    def rotate(self) -> None:
        """Count Alice's epoch up."""
        machine = self.successResultOf(Deferred.fromCoroutine(self.directory.machine(ALICE)))
        assert machine is not None
        changing = self.directory.change(machine, secret_epoch=machine.secret_epoch + 1)
        self.successResultOf(Deferred.fromCoroutine(changing))

    def refused(self, user: str, password: str) -> None:
        """It does not get in."""
        error = self.failureResultOf(self.admit(user, password), Unauthorized).value
        self.assertNotIn(password or "\0", str(error))

    def test_ones_own(self) -> None:
        self.assertEqual(self.successResultOf(self.admit(ALICE, self.password())), Access(ALICE))

    def test_anothers(self) -> None:
        self.refused(BOB, self.password())
        self.refused(ALICE, self.password(user=BOB))

    def test_another_secret_of_the_same_machine(self) -> None:
        self.refused(ALICE, self.secrets.machine_to_router(ALICE, 1))
        self.refused(ALICE, self.secrets.router_to_daemon(ALICE, 1))

    def test_nobodys(self) -> None:
        stranger = "0a1b2c3d-0000-4000-8000-00000000000f"
        self.refused(stranger, self.password(user=stranger))
        self.refused("alice", self.password())
        self.refused(ALICE, "")
        self.refused("", "")
        self.refused(ALICE, "ünlike")

    def test_the_warm_way_asks_nobody(self) -> None:
        self.successResultOf(self.admit(ALICE, self.password()))
        before = self.directory.calls
        for _ in range(10):
            self.successResultOf(self.admit(ALICE, self.password()))
        self.assertEqual(self.directory.calls, before)

    def test_wrong_ones_are_no_load_on_the_database(self) -> None:
        self.successResultOf(self.admit(ALICE, self.password()))
        before = self.directory.calls
        for _ in range(10):
            self.refused(ALICE, "wrong")
        self.assertEqual(self.directory.calls, before)

    def test_a_rotated_credential(self) -> None:
        self.successResultOf(self.admit(ALICE, self.password()))
        self.rotate()
        self.clock.advance(2)
        self.successResultOf(self.admit(ALICE, self.password(2)))
        self.refused(ALICE, self.password(1))

    def test_an_old_credential_ends_by_itself(self) -> None:
        self.successResultOf(self.admit(ALICE, self.password()))
        self.rotate()
        self.clock.advance(31)
        self.refused(ALICE, self.password(1))

    def test_an_outage_of_the_directory(self) -> None:
        self.successResultOf(self.admit(ALICE, self.password()))
        self.directory.lose()
        self.clock.advance(599)
        self.successResultOf(self.admit(ALICE, self.password()))
        self.failureResultOf(self.admit(BOB, self.password(user=BOB)), Unavailable)
        self.clock.advance(2)
        self.failureResultOf(self.admit(ALICE, self.password()), Unavailable)
        self.directory.recover()
        self.successResultOf(self.admit(ALICE, self.password()))

    def set_state(self, state: UserState) -> None:
        """Change Alice's state."""
        self.successResultOf(Deferred.fromCoroutine(self.directory.set_user_state(ALICE, state)))

    def test_a_deleted_users_machine_is_refused_at_once(self) -> None:
        self.successResultOf(self.admit(ALICE, self.password()))
        self.set_state(UserState.DELETED)
        error = self.failureResultOf(self.admit(ALICE, self.password()), Forbidden).value
        self.assertEqual(error.reason, "deleted")
        self.refused(ALICE, "wrong")
        self.set_state(UserState.ACTIVE)
        self.successResultOf(self.admit(ALICE, self.password()))

    def test_a_blocked_users_machine_may_finish(self) -> None:
        self.set_state(UserState.BLOCKED)
        self.successResultOf(self.admit(ALICE, self.password()))
