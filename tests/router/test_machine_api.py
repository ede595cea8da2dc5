"""Machines get at what is their own, with their own secret, and at nothing else."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from matrix.api import send_json
from matrix.auth import MachineProof, MachineSecrets
from matrix.directory import MemoryDirectory
from matrix.errors import MethodNotAllowed, NotFound, Unauthorized, Unavailable
from matrix.http.interfaces import Exchange
from matrix.model import UserId
from matrix.router.machine_api import MachineApi
from matrix.testing.exchange import FakeExchange

ALICE = UserId("0a1b2c3d-0000-4000-8000-00000000000a")
BOB = UserId("0a1b2c3d-0000-4000-8000-00000000000b")


async def whose(exchange: Exchange, user_id: UserId) -> None:
    send_json(exchange, {"user": user_id})


class MachineApiTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_000_000)
        self.directory = MemoryDirectory(self.clock)
        for user in (ALICE, BOB):
            self.successResultOf(Deferred.fromCoroutine(self.directory.admit(user, "")))
            making = self.directory.create_machine(user, "local")
            self.successResultOf(Deferred.fromCoroutine(making))
        self.secrets = MachineSecrets("m" * 32)
        self.api = MachineApi(
            MachineProof(self.directory, self.secrets.machine_to_router, self.clock)
        )
        self.api.add("GET", "whose", whose)

    def ask(
        self, token: str | None, user: str = ALICE, method: str = "GET", name: str = "whose"
    ) -> FakeExchange:
        fields = {} if token is None else {"Authorization": token}
        return FakeExchange.of(method, f"/machine/v1/{user}/{name}", fields).handle(self.api)

    def token(self, user: UserId = ALICE, epoch: int = 1) -> str:
        return f"Bearer {self.secrets.machine_to_router(user, epoch)}"

    def test_its_own(self) -> None:
        self.assertEqual(self.ask(self.token()).json, {"user": ALICE})
        self.assertEqual(self.ask(self.token(), ALICE.upper()).json, {"user": ALICE})

    def test_anothers(self) -> None:
        self.assertIsInstance(self.ask(self.token(), BOB).error, Unauthorized)
        self.assertIsInstance(self.ask(self.token(BOB), ALICE).error, Unauthorized)

    def test_other_secrets_of_the_same_machine(self) -> None:
        for secret in (self.secrets.router_to_daemon, self.secrets.restic_account):
            error = self.ask(f"Bearer {secret(ALICE, 1)}").error
            self.assertIsInstance(error, Unauthorized)
            self.assertNotIn(secret(ALICE, 1), str(error))

    def test_none_or_in_another_form(self) -> None:
        secret = self.secrets.machine_to_router(ALICE, 1)
        for token in (None, "", "Bearer", "Bearer ", f"Basic {secret}", secret):
            error = self.ask(token).error
            assert isinstance(error, Unauthorized)
            self.assertEqual(error.reason, "missing")

    def test_of_nobody(self) -> None:
        stranger = UserId("0a1b2c3d-0000-4000-8000-00000000000f")
        self.assertIsInstance(self.ask(self.token(stranger), stranger).error, Unauthorized)
        self.assertIsInstance(self.ask(self.token(), "alice").error, Unauthorized)

    def test_a_rotated_secret(self) -> None:
        self.assertEqual(self.ask(self.token()).status, 200)
        machine = self.successResultOf(Deferred.fromCoroutine(self.directory.machine(ALICE)))
        assert machine is not None
        changing = self.directory.change(machine, secret_epoch=2)
        self.successResultOf(Deferred.fromCoroutine(changing))
        self.clock.advance(2)
        self.assertEqual(self.ask(self.token(epoch=2)).status, 200)
        self.assertIsInstance(self.ask(self.token(epoch=1)).error, Unauthorized)

    def test_an_outage_is_no_refusal(self) -> None:
        self.directory.lose()
        self.assertIsInstance(self.ask(self.token()).error, Unavailable)

    def test_what_is_not_there(self) -> None:
        self.assertIsInstance(self.ask(self.token(), name="nothing").error, NotFound)
        self.assertIsInstance(self.ask(self.token(), method="POST").error, MethodNotAllowed)
        self.assertIsInstance(self.ask(None, name="nothing").error, Unauthorized)
