"""Refused tokens are counted by address, and a flood of them keeps no known user out."""

from __future__ import annotations

import json
from ipaddress import ip_network
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from matrix.auth import MemoryGate, Reason, refusal
from matrix.auth._failures import FLOOD, FLOOD_WINDOW
from matrix.http import TrustedProxies
from matrix.metrics import series
from matrix.router.stall import STALL
from tests.router.world import FAILURES, Client, Transport, World


class From(Transport):
    """A connection from some other address than the usual one."""

    def __init__(self, address: str) -> None:
        super().__init__()
        self._address = address

    def getPeer(self) -> tuple[str, int]:
        return (self._address, 4712)


class ReasonTests(SynchronousTestCase):
    """Each refusal's code is the same word wherever it shows."""

    def test_header_body_and_metric_agree(self) -> None:
        for reason in set(Reason) - {Reason.MISSING}:

            async def refuse(_gate: MemoryGate, _token: bytes, reason: Reason = reason) -> Any:
                raise refusal(reason)

            self.patch(MemoryGate, "verify", refuse)
            world = World()
            client = world.ask(token="any")
            problem = json.loads(client.body)
            self.assertEqual((client.status, problem["status"]), (401, 401))
            self.assertEqual(problem["reason"], reason.value)
            said = f'error="invalid_token", error_description="{reason.value}: '
            self.assertIn(said, client.headers["www-authenticate"])
            text = world.registry.render()[1].decode()
            self.assertIn(f'matrix_auth_total{{result="{reason.value}"}} 1.0', text)
            self.assertEqual(world.provider_twin.calls, [], "a wake for nobody")


class FailureLimitTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = World()
        self.world.awake()

    def client(self, address: str) -> Client:
        client = Client.__new__(Client)
        client.transport = From(address)
        client.connection = self.world.factory.buildProtocol(None)
        client.connection.makeConnection(client.transport)
        return client

    def served(self, client: Client, token: str = "alice-token", **fields: str) -> int:
        client.ask(token=token, **fields)
        self.world.let_pass(0.2)
        return client.status

    def flood(self, **fields: str) -> None:
        for number in range(FAILURES):
            client = self.world.ask(token=f"forged-{number}", **fields)
            self.assertEqual(client.status, 401, number)

    def refused(self, token: str = "forged", **fields: str) -> Client:
        """The answer to a token that is not looked at, which comes late."""
        client = self.world.ask(token=token, **fields)
        self.assertEqual(client.transport.data, b"")
        self.world.let_pass(STALL + 0.1)
        return client

    def test_too_many_are_told_to_wait(self) -> None:
        self.flood()
        client = self.refused()
        self.assertEqual((client.status, client.headers["retry-after"]), (429, "2"))
        problem = json.loads(client.body)
        self.assertEqual(problem["reason"], "auth-failures")
        self.assertNotIn("www-authenticate", client.headers)
        counted = self.world.registry.counter
        self.assertEqual(counted(series.AUTH, "limited").value, 1)
        self.assertEqual(counted(series.AUTH, "malformed").value, FAILURES)
        self.assertEqual(self.world.failures.limited(), 1)

    def test_no_token_is_checked_then_not_even_a_good_one(self) -> None:
        self.flood()
        self.assertEqual(self.refused("bob-token").status, 429)
        self.assertEqual(self.world.gate.recall(b"bob-token"), None)

    def test_a_token_that_is_known_is_served_all_the_same(self) -> None:
        self.assertEqual(self.served(self.world.client()), 200)
        self.flood()
        self.assertEqual(self.served(self.world.client()), 200)

    def test_other_addresses_do_not_notice(self) -> None:
        self.flood()
        self.assertEqual(self.served(self.client("192.0.2.8")), 200)

    def test_it_passes(self) -> None:
        self.flood()
        self.world.clock.advance(2)
        self.assertEqual(self.served(self.world.client()), 200)

    def test_good_and_missing_tokens_count_for_nothing(self) -> None:
        for _ in range(2 * FAILURES):
            self.assertEqual(self.world.ask(token=None).status, 401)
        self.assertEqual(self.served(self.world.client()), 200)
        self.assertEqual(len(self.world.failures), 0)

    def test_behind_a_trusted_proxy_each_client_counts_for_itself(self) -> None:
        self.world.factory.proxies = TrustedProxies([ip_network("192.0.2.7")])
        self.flood(X_Forwarded_For="198.51.100.1")
        self.assertEqual(self.refused(X_Forwarded_For="198.51.100.1").status, 429)
        client = self.world.client()
        self.assertEqual(self.served(client, X_Forwarded_For="198.51.100.2"), 200)

    def test_whom_an_untrusted_client_names_counts_for_nothing(self) -> None:
        self.flood(X_Forwarded_For="198.51.100.1")
        self.assertEqual(self.refused(X_Forwarded_For="198.51.100.2").status, 429)

    def test_in_a_flood_from_everywhere_refusals_come_late(self) -> None:
        for number in range(int(FLOOD * FLOOD_WINDOW)):
            self.world.failures.failed(f"198.51.100.{number % 250}")
        self.assertEqual(self.refused().status, 401)
        self.assertEqual(self.served(self.world.client()), 200, "what is good comes at once")

    def test_who_leaves_meanwhile_is_forgotten(self) -> None:
        self.flood()
        client = self.world.ask(token="forged")
        client.leave()
        self.world.let_pass(STALL + 0.1)
        self.assertEqual(len(self.world.stall), 0)
        self.assertEqual(client.transport.data, b"")
