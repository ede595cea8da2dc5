"""Machines are told who they are, where we are and where their snapshots go; nothing of others."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from matrix.auth import MachineSecrets
from matrix.errors import ConfigurationError
from matrix.model import Machine, MachineState, user_id
from matrix.router.told import Surroundings, environment, settled, surroundings
from matrix.settings import Settings
from matrix.snapshots import EmbeddedSeaweed

ALICE = user_id("a" * 32)
BOB = user_id("b" * 32)
URL = "http://[fdaa:0:1::2]:9443"
SECRETS = MachineSecrets("m" * 40)
STORE = {
    "DATABASE_URL": "postgresql://u:p@h/d",
    "s3_endpoint": "http://127.0.0.1:9",
    "s3_access_key": "public",
    "s3_secret_key": "hush-hush",
}


def told(around: Surroundings, owner: Any = ALICE, epoch: int = 1) -> dict[str, str]:
    machine = Machine(owner, "local", MachineState.RUNNING, generation=1, secret_epoch=epoch)
    return environment(SECRETS, around, machine)


class EnvironmentTests(SynchronousTestCase):
    def test_with_snapshots(self) -> None:
        found = told(Surroundings(URL, snapshots=True))
        self.assertEqual(found["MATRIX_USER"], ALICE)
        self.assertEqual(found["MATRIX_MACHINE_TOKEN"], SECRETS.router_to_daemon(ALICE, 1))
        self.assertEqual(found["MATRIX_ROUTER_URL"], URL)
        self.assertEqual(found["MATRIX_ROUTER_TOKEN"], SECRETS.machine_to_router(ALICE, 1))
        self.assertEqual(found["MATRIX_RESTIC_REPOSITORY"], f"rest:{URL}/restic/{ALICE}/")
        self.assertEqual(found["MATRIX_RESTIC_ACCOUNT"], SECRETS.restic_account(ALICE, 1))
        self.assertEqual(len(set(found.values())), len(found), "each secret has one purpose")

    def test_without_snapshots(self) -> None:
        found = told(Surroundings(URL))
        self.assertNotIn("RESTIC", " ".join(found))
        self.assertIn("MATRIX_ROUTER_TOKEN", found)

    def test_is_the_same_at_each_boot(self) -> None:
        around = Surroundings(URL, snapshots=True)
        self.assertEqual(told(around), told(around))

    def test_an_epoch_replaces_the_credentials_and_keeps_the_repository_readable(self) -> None:
        around = Surroundings(URL, snapshots=True)
        before, after = told(around), told(around, epoch=2)
        changed = {name for name in before if before[name] != after[name]}
        self.assertEqual(
            changed, {"MATRIX_MACHINE_TOKEN", "MATRIX_ROUTER_TOKEN", "MATRIX_RESTIC_ACCOUNT"}
        )

    def test_users_share_nothing_but_the_place(self) -> None:
        around = Surroundings(URL, snapshots=True)
        alice, bob = told(around), told(around, BOB)
        same = {name for name in alice if alice[name] == bob[name]}
        self.assertEqual(same, {"MATRIX_ROUTER_URL"})


class SettledTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.patch(shutil, "which", lambda name: f"/usr/bin/{name}")

    def settled(self, host: str = "127.0.0.1", **given: Any) -> Settings:
        settings = Settings(_env_file=None, state_dir=Path(self.mktemp()), **given)  # type: ignore[call-arg]
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family) as listener:
            listener.bind((host, 0))
            self.port = listener.getsockname()[1]
            return settled(settings, listener)

    def test_the_url_is_where_we_listen(self) -> None:
        around = surroundings(self.settled(**STORE))
        self.assertEqual(around, Surroundings(f"http://127.0.0.1:{self.port}", snapshots=True))

    def test_an_address_of_the_mesh(self) -> None:
        self.assertEqual(self.settled("::1", **STORE).machine_url, f"http://[::1]:{self.port}")

    def test_the_url_that_is_set(self) -> None:
        self.assertEqual(self.settled(machine_url=URL + "/", **STORE).machine_url, URL)

    def test_without_a_store(self) -> None:
        self.assertFalse(self.settled(DATABASE_URL=STORE["DATABASE_URL"]).snapshots)

    def test_switched_off(self) -> None:
        self.assertFalse(self.settled(snapshots=False, **STORE).snapshots)

    def test_without_restic_machines_of_this_host_have_none(self) -> None:
        self.patch(shutil, "which", lambda name: None)
        self.assertFalse(self.settled(**STORE).snapshots)
        fly = {"fly_token": "t", "fly_app": "a", "fly_image": "i", "fly_regions": "fra"}
        self.assertTrue(self.settled(provider="fly", **fly, **STORE).snapshots)

    def test_embedded_mode_brings_its_store_along(self) -> None:
        self.patch(EmbeddedSeaweed, "check", staticmethod(lambda: None))
        self.assertTrue(self.settled().snapshots)

    def test_embedded_mode_without_the_wheel_of_a_store(self) -> None:
        def missing() -> None:
            raise ConfigurationError("its wheel is not installed")

        self.patch(EmbeddedSeaweed, "check", staticmethod(missing))
        self.assertFalse(self.settled().snapshots)

    def test_settling_twice_changes_nothing(self) -> None:
        once = self.settled(**STORE)
        with socket.socket() as other:
            self.assertEqual(settled(once, other), once)
