"""What a worker is told makes the same router of it, and shows no secret."""

from __future__ import annotations

import os
import socket
import ssl
from pathlib import Path
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from matrix.net import LocalAuthority
from matrix.router.signin.links import Account
from matrix.router.workers.brief import Brief, secrets_for_workers, settings_for_workers
from matrix.settings import Settings, load
from matrix.testing.issuer import LocalIssuer

DSN = "postgresql://matrix:hidden-password@127.0.0.1/matrix"
MASTER = "m" * 40


class BriefTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.top = Path(self.mktemp())
        self.top.mkdir(parents=True)
        _, cert, key = LocalAuthority(self.top / "tls").ensure()
        self.pem = cert.read_text(), key.read_text()

    def brief(self, codes: dict[str, str] | None = None, **given: object) -> Brief:
        environment = {
            "DATABASE_URL": DSN,
            "MATRIX_DAEMON_TOKEN": MASTER,
            "MATRIX_ADMIN_TOKEN": "hidden-admin",
        }
        with mock.patch.dict(os.environ, environment, clear=True):
            settings = load(state_dir=str(self.top), **given)
        sent = Brief(
            number=2,
            settings=settings_for_workers(settings),
            secrets=secrets_for_workers(settings),
            public=[],
            output=1,
            lock=9,
            cert=self.pem[0],
            key=self.pem[1],
            tickets="00" * 80,
            dsn=DSN,
            issuer="http://localhost/auth/v1",
            jwks_url="http://127.0.0.1:1/jwks.json",
            master=MASTER,
            codes=codes,
        )
        return Brief.load(sent.dump())

    def test_settings_are_the_supervisors_whatever_the_environment_says_now(self) -> None:
        brief = self.brief(idle_timeout=7, workers=3, access_log_format="combined")
        with mock.patch.dict(os.environ, {"MATRIX_IDLE_TIMEOUT": "9", "MATRIX_AUDIENCE": "x"}):
            settings = brief.configured
        self.assertEqual((settings.idle_timeout, settings.workers), (7.0, 3))
        self.assertEqual(settings.access_log_format, "combined")
        self.assertEqual((settings.audience, settings.state_dir), ("authenticated", self.top))

    def test_secrets_are_among_the_supplies_and_nowhere_else(self) -> None:
        brief = self.brief()
        self.assertEqual((brief.supplies.dsn, brief.supplies.master), (DSN, MASTER))
        self.assertIsNone(brief.supplies.admin_token)
        self.assertNotIn("hidden", str(brief.settings))
        for secret in ("hidden", MASTER, "PRIVATE KEY"):
            self.assertNotIn(secret, repr(brief))

    def test_secret_settings_arrive_whole_and_show_nowhere(self) -> None:
        given = {"supabase_key": "hidden-key", "fly_token": "hidden-fly"}
        brief = self.brief(jwt_secret="hidden-jwt-" + "s" * 32, **given)
        settings = brief.configured
        self.assertEqual(settings.fly_token.get_secret_value(), "hidden-fly")
        self.assertEqual(settings.jwt_secret.get_secret_value(), "hidden-jwt-" + "s" * 32)
        self.assertEqual(settings.supabase_key.get_secret_value(), "hidden-key")
        self.assertNotIn("hidden", repr(brief) + str(brief.settings))

    def test_a_worker_of_a_fleet_is_not_embedded(self) -> None:
        fly = {"fly_token": "t", "fly_app": "a", "fly_image": "i", "fly_regions": "fra"}
        brief = self.brief(provider="fly", **fly)
        with mock.patch.dict(os.environ, {}, clear=True):
            self.assertEqual(brief.configured.provider, "fly")
            self.assertFalse(brief.configured.embedded)
            self.assertTrue(self.brief({"code": "alice"}).configured.embedded)

    def test_the_key_to_the_snapshots_is_not_for_workers(self) -> None:
        given = {"s3_endpoint": "http://h:1", "s3_access_key": "hidden", "s3_secret_key": "hidden"}
        brief = self.brief(**given)
        self.assertIsNone(brief.configured.s3_secret_key)
        self.assertNotIn(b"hidden", brief.dump().replace(DSN.encode(), b""))

    def test_no_secret_setting_arrives_as_asterisks(self) -> None:
        given = dict.fromkeys(("fly_token", "jwt_secret", "supabase_key"), "x" * 32)
        brief = self.brief(**given)
        self.assertNotIn("*****", str(brief.settings))
        for name, field in Settings.model_fields.items():
            if "SecretStr" in str(field.annotation):
                self.assertNotIn(name, brief.settings)

    def test_further_issuers_arrive(self) -> None:
        others = '[{"issuer": "https://b.example/auth/v1", "audience": "b"}]'
        (other,) = self.brief(other_issuers=others).configured.other_issuers
        self.assertEqual((other.issuer, other.audience), ("https://b.example/auth/v1", "b"))

    def test_sign_in_links_work_at_any_worker(self) -> None:
        issuer = LocalIssuer.open(self.top / "issuer")
        links = self.brief({"code": "alice"}).supplies.links
        assert links is not None
        account = links.redeem("code")
        assert account is not None
        self.assertEqual(account, Account("alice@localhost", issuer.password("alice")))
        self.assertNotIn(account.password, repr(account) + repr(links))
        self.assertIsNone(links.redeem("another"))
        self.assertIsNone(self.brief().supplies.links)

    def test_the_certificate_is_the_one_that_was_read(self) -> None:
        before = len(os.listdir("/proc/self/fd"))
        self.assertIsInstance(self.brief().context(), ssl.SSLContext)
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)

    def test_listeners_by_number(self) -> None:
        sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(4)]
        copies = [os.dup(one.fileno()) for one in sockets]
        brief = Brief.load(self.brief().dump())
        brief = Brief(**{
            name: getattr(brief, name) for name in brief.__slots__
        } | {"public": [copies[:2], copies[2:]]})  # fmt: skip
        listeners = brief.listeners()
        for one in (*sockets, *listeners[1], *listeners[2]):
            self.addCleanup(one.close)
        found = [one.getsockname() for number in (1, 2) for one in listeners[number]]
        self.assertEqual(found, [one.getsockname() for one in sockets])
