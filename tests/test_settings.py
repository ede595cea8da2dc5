"""Settings: where they come from, which source wins, and how each bad value is refused."""

import os
import subprocess
import sys
from difflib import get_close_matches
from pathlib import Path
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from matrix import settings
from matrix.errors import ConfigurationError
from matrix.model import host_port
from matrix.settings import Settings, env_name, load

ROOT = Path(__file__).parent.parent
URL = "postgresql://matrix:open-sesame@db/matrix"
SECRET = "correct horse battery staple, 36 cha"


class SettingsCase(SynchronousTestCase):
    """A test with an environment and a directory of its own."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir(parents=True)
        patcher = mock.patch.dict(os.environ, clear=True)
        patcher.start()
        self.addCleanup(patcher.stop)

    def env_file(self, text: str | bytes) -> Path:
        path = self.directory / "env"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    def credentials(self, **secrets: str) -> Path:
        directory = self.directory / "credentials"
        directory.mkdir()
        for name, value in secrets.items():
            (directory / name).write_text(value)
        os.environ["CREDENTIALS_DIRECTORY"] = str(directory)
        return directory

    def refusal(self, *args: object, **overrides: object) -> str:
        """The one line with which C{load} refuses."""
        error = self.assertRaises(ConfigurationError, load, *args, **overrides)
        self.assertNotIn("\n", str(error))
        return str(error)


class AccessTests(SettingsCase):
    """Who may come in, and how."""

    def test_lists(self) -> None:
        found = load(oauth_clients="one, two three", origins="https://a.example,http://localhost:3")
        self.assertEqual(found.accepted_clients, {"one", "two", "three"})
        self.assertEqual(found.accepted_origins, {b"https://a.example", b"http://localhost:3"})
        self.assertEqual((load().accepted_clients, load().accepted_origins), (set(), set()))

    def test_what_is_no_origin(self) -> None:
        for text in (
            "*", "null", "a.example", "http://a.example", "https://A.example", "https://a.example/",
            "https://a.example:443", "https://a.example:", "https://", "https://u@a.example",
        ):  # fmt: skip
            said = self.refusal(origins=text)
            self.assertIn(f"MATRIX_ORIGINS: {text!r} is no origin: write https://HOST", said)

    def test_other_issuers(self) -> None:
        os.environ["MATRIX_OTHER_ISSUERS"] = (
            '[{"issuer": "https://b.example/auth/v1", "role": "member"}]'
        )
        (other,) = load().other_issuers
        self.assertEqual((other.issuer, other.jwks_url), ("https://b.example/auth/v1", None))
        self.assertEqual((other.audience, other.role), ("authenticated", "member"))

    def test_other_issuers_that_cannot_be_read(self) -> None:
        for text, wanted in (
            ("https://b.example", "MATRIX_OTHER_ISSUERS: not a JSON list"),
            (
                '[{"issuer": "b.example"}]',
                "MATRIX_OTHER_ISSUERS: 0.issuer: 'b.example' is not a URL",
            ),
            ('[{"issuer": "https://b", "key": "x"}]', "MATRIX_OTHER_ISSUERS: 0.key: "),
            ("[{}]", "MATRIX_OTHER_ISSUERS: 0.issuer: "),
        ):
            os.environ["MATRIX_OTHER_ISSUERS"] = text
            self.assertIn(wanted, self.refusal())

    def test_a_login_that_is_not_possible(self) -> None:
        self.assertIn("needs MATRIX_LOGIN_URL", self.refusal(login="redirect"))
        self.assertIn(
            "MATRIX_LOGIN=builtin needs MATRIX_SUPABASE_KEY",
            self.refusal(login="builtin", database_url=URL),
        )
        self.assertIn(
            "MATRIX_SESSION_CHECK needs MATRIX_SUPABASE_KEY",
            self.refusal(session_check=True, database_url=URL),
        )
        load(login="builtin")  # embedded mode has a key of its own
        load(login="builtin", database_url=URL, supabase_key="sb_publishable_x")


class FlyTests(SettingsCase):
    """Settings of machines at Fly."""

    FLY = {
        "provider": "fly",
        "database_url": URL,
        "fly_token": "t",
        "fly_app": "users",
        "fly_image": "registry.example/daemon:1",
        "fly_regions": "fra, ams",
    }

    def test_all_that_it_takes(self) -> None:
        found = load(**self.FLY)
        self.assertEqual(found.fly_places, ("fra", "ams"))
        self.assertEqual(found.fly_api, "https://api.machines.dev")
        self.assertNotIn("'t'", repr(found))

    def test_what_is_missing_is_named(self) -> None:
        for name in ("fly_token", "fly_app", "fly_image", "fly_regions"):
            some = {other: value for other, value in self.FLY.items() if other != name}
            self.assertIn(f"needs MATRIX_{name.upper()}", self.refusal(**some))

    def test_embedded_mode_leaves_no_machines_at_fly(self) -> None:
        self.assertIn("needs DATABASE_URL", self.refusal(**{**self.FLY, "database_url": ""}))

    def test_what_makes_no_sense(self) -> None:
        for name, text, wanted in (
            ("fly_app", "Users", "'Users' is no app"),
            ("fly_regions", "fra, europe", "'europe' is no region"),
            ("fly_sizes", "huge", "'huge' is no size"),
            ("keep_daily", "3 weeks", "'3 weeks' is no length of time"),
            ("keeping_hours", "1-25", "'1-25' are no hours"),
            ("keeping_hours", "3-3", "'3-3' is no time at all"),
            ("fly_api", "http://api.machines.dev", "write https://"),
            ("fly_api", "api.machines.dev", "is not a URL"),
        ):
            self.assertIn(f"MATRIX_{name.upper()}: ", self.refusal(**{name: text}))
            self.assertIn(wanted, self.refusal(**{name: text}))

    def test_an_api_that_is_near_may_be_in_the_clear(self) -> None:
        for url in ("http://127.0.0.1:4280", "http://_api.internal:4280"):
            self.assertEqual(load(fly_api=url).fly_api, url)


class TrustedProxiesTests(SettingsCase):
    def test_networks_and_addresses(self) -> None:
        found = load(trusted_proxies="10.0.0.0/8, 127.0.0.1,2001:db8::/32")
        networks = [str(network) for network in found.trusted_networks]
        self.assertEqual(networks, ["10.0.0.0/8", "127.0.0.1/32", "2001:db8::/32"])
        self.assertEqual(load().trusted_networks, ())

    def test_what_is_none(self) -> None:
        for text in ("10.0.0.1/8", "proxy.example", "10.0.0.0/33", "::1, x", "10.0.0.0-10.0.0.9"):
            refusal = self.refusal(trusted_proxies=text)
            self.assertIn("MATRIX_TRUSTED_PROXIES", refusal)
            self.assertIn("192.0.2.0/24", refusal)
        self.assertIn("host bits set", self.refusal(trusted_proxies="10.0.0.1/8"))


class SourceTests(SettingsCase):
    def test_nothing_given_is_embedded_mode(self) -> None:
        found = load()
        self.assertTrue(found.embedded)
        self.assertEqual(found.idle_timeout, 900.0)
        self.assertEqual(found.state_dir, Path(".matrix"))

    def test_database_url_ends_embedded_mode(self) -> None:
        os.environ["DATABASE_URL"] = URL
        self.assertFalse(load().embedded)

    def test_precedence(self) -> None:
        """Command line, environment, env file, credentials, default: taken away one by one,
        the next one shows."""
        credentials = self.credentials(MATRIX_AUDIENCE="credentials", DATABASE_URL=URL + "4")
        path = self.env_file(f"MATRIX_AUDIENCE=file\nDATABASE_URL={URL}3\n")
        os.environ.update(MATRIX_AUDIENCE="environment", DATABASE_URL=URL + "2")

        def seen(*args: Path, **overrides: str) -> tuple[str, str | None]:
            found = load(*args, **overrides)
            url = found.database_url
            return found.audience, url.get_secret_value() if url else None

        self.assertEqual(
            seen(path, audience="command line", database_url=URL + "1"),
            ("command line", URL + "1"),
        )
        self.assertEqual(seen(path), ("environment", URL + "2"))
        del os.environ["MATRIX_AUDIENCE"], os.environ["DATABASE_URL"]
        self.assertEqual(seen(path), ("file", URL + "3"))
        self.assertEqual(seen(), ("credentials", URL + "4"))
        for file in credentials.iterdir():
            file.unlink()
        self.assertEqual(seen(), ("authenticated", None))

    def test_credential_loses_its_final_newline(self) -> None:
        self.credentials(MATRIX_DAEMON_TOKEN=SECRET + "\n")
        token = load().daemon_token
        assert token is not None
        self.assertEqual(token.get_secret_value(), SECRET)

    def test_credential_names_in_lower_case(self) -> None:
        self.credentials(matrix_admin_token="admin")
        token = load().admin_token
        assert token is not None
        self.assertEqual(token.get_secret_value(), "admin")

    def test_credentials_directory_of_another_service_is_passed_over(self) -> None:
        os.environ["CREDENTIALS_DIRECTORY"] = str(self.directory / "gone")
        self.assertTrue(load().embedded)
        self.assertEqual(self.flushWarnings(), [])

    def test_credential_that_is_no_text(self) -> None:
        directory = self.credentials()
        (directory / "MATRIX_DAEMON_TOKEN").write_bytes(b"\xff\xfe\x00")
        self.assertEqual(self.refusal(), "CREDENTIALS_DIRECTORY: a file is not UTF-8 text")

    def test_credential_that_may_not_be_read(self) -> None:
        self.credentials(MATRIX_DAEMON_TOKEN=SECRET)
        denied = PermissionError(13, "Permission denied")
        with mock.patch.object(Path, "read_text", side_effect=denied):
            self.assertEqual(self.refusal(), "CREDENTIALS_DIRECTORY: Permission denied")

    def test_empty_values_count_as_not_given(self) -> None:
        path = self.env_file("DATABASE_URL=\nMATRIX_TLS_CERT=\nMATRIX_IDLE_TIMEOUT=\n")
        os.environ["MATRIX_WAKE_TIMEOUT"] = ""
        found = load(path)
        self.assertEqual(
            (found.embedded, found.tls_cert, found.idle_timeout, found.wake_timeout),
            (True, None, 900.0, 30.0),
        )

    def test_empty_override_unsets(self) -> None:
        os.environ["DATABASE_URL"] = URL
        self.assertTrue(load(database_url="").embedded)

    def test_override_that_was_not_given(self) -> None:
        os.environ["MATRIX_LISTEN"] = ":443"
        self.assertEqual(load(listen=None).listen, ":443")

    def test_unknown_override_is_a_programming_error(self) -> None:
        self.assertRaises(TypeError, load, lisen=":443")

    def test_frozen(self) -> None:
        found = load()
        with self.assertRaises(ValueError):
            found.audience = "other"  # type: ignore[misc]

    def test_secrets_are_not_in_the_repr(self) -> None:
        found = load(database_url=URL, daemon_token=SECRET, admin_token="xyzzy")
        for secret in ("open-sesame", SECRET, "xyzzy"):
            self.assertNotIn(secret, repr(found) + str(found))


ALIKE = {"fly_api", "fly_app"}
"""Both names are what one would look for, and neither is refused for the other."""


class RefusalTests(SettingsCase):
    def test_bad_values(self) -> None:
        """Each bad value gets a line that begins with its setting and says what is wrong."""
        table = [
            ("DATABASE_URL", "mysql://root:hunter2@db/x", "write it as postgresql://"),
            ("MATRIX_LISTEN", "localhost", "'localhost' is not HOST:PORT"),
            ("MATRIX_LISTEN", "::1:443", "(an IPv6 host stands in brackets)"),
            ("MATRIX_LISTEN", "localhost:https", "is not HOST:PORT"),
            ("MATRIX_LISTEN", "localhost:99999", "port 99999 is over 65535"),
            ("MATRIX_INTERNAL", "9443", "'9443' is not HOST:PORT"),
            ("MATRIX_DAEMON_TOKEN", "hunter2", "at least 32 characters"),
            ("MATRIX_ISSUER", "supabase.co", "is not a URL"),
            ("MATRIX_JWKS_URL", "file:///etc/passwd", "is not a URL"),
            ("MATRIX_TOKEN_LEEWAY", "-1", "greater than or equal to 0"),
            ("MATRIX_PROVIDER", "cloud", "'local'"),
            ("MATRIX_LOCAL_COMMAND", "serve 'unclosed", "no closing quotation"),
            ("MATRIX_LOCAL_COMMAND", "   ", "no words"),
            ("MATRIX_IDLE_TIMEOUT", "soon", "valid number"),
            ("MATRIX_IDLE_TIMEOUT", "0", "greater than 0"),
            ("MATRIX_WAKE_TIMEOUT", "inf", "finite"),
            ("MATRIX_STREAM_TIMEOUT", "nan", "number"),
            ("MATRIX_NAVIGATION_HOLD", "-0.1", "greater than or equal to 0"),
        ]
        for name, value, reason in table:
            with mock.patch.dict(os.environ, {name: value}):
                line = self.refusal()
            self.assertTrue(line.startswith(f"{name}: "), line)
            self.assertIn(reason, line)
            self.assertNotIn("hunter2", line)

    def test_certificate_without_its_key(self) -> None:
        for half in ({"tls_cert": "cert.pem"}, {"tls_key": "key.pem"}):
            self.assertEqual(
                self.refusal(**half),
                "MATRIX_TLS_CERT and MATRIX_TLS_KEY are set together or not at all",
            )

    def test_all_bad_values_in_one_line(self) -> None:
        line = self.refusal(idle_timeout="soon", listen="x")
        self.assertIn("MATRIX_LISTEN: ", line)
        self.assertIn("; MATRIX_IDLE_TIMEOUT: ", line)

    def test_misspelt_names(self) -> None:
        os.environ["MATRIX_IDEL_TIMEOUT"] = "5"
        self.assertEqual(
            self.refusal(),
            "MATRIX_IDEL_TIMEOUT in the environment: no such setting; meant MATRIX_IDLE_TIMEOUT?",
        )
        del os.environ["MATRIX_IDEL_TIMEOUT"]
        path = self.env_file("matrix_stalemax=5\n")
        self.assertIn("meant MATRIX_STALE_MAX?", self.refusal(path))

    def test_names_of_other_programs_are_left_alone(self) -> None:
        os.environ["MATRIX_SYNAPSE_HOME"] = "/srv"
        load(self.env_file("CARGO_HOME=/x\nMATRIX_CHRONOS_TIMEZONE=UTC\n"))

    def test_settings_are_not_alike(self) -> None:
        """No setting's name would be taken for a misspelling of another's."""
        for field in Settings.model_fields:
            others = [each for each in Settings.model_fields if each != field]
            others = [each for each in others if {each, field} != ALIKE]
            alike = get_close_matches(field, others, cutoff=settings.TYPO_RATIO)
            self.assertEqual(alike, [], field)


class EnvFileTests(SettingsCase):
    def test_quotes_comments_and_export(self) -> None:
        path = self.env_file("# ours\nexport MATRIX_AUDIENCE='a b'\n\nMATRIX_ROLE=c # why\n")
        found = load(path)
        self.assertEqual((found.audience, found.role), ("a b", "c"))

    def test_missing(self) -> None:
        self.assertEqual(
            self.refusal("/nowhere/env"), "--env-file /nowhere/env: there is no such file"
        )

    def test_directory(self) -> None:
        self.assertIn("there is no such file", self.refusal(self.directory))

    def test_unreadable(self) -> None:
        path = self.env_file("MATRIX_ROLE=x\n")
        denied = PermissionError(13, "Permission denied")
        with mock.patch.object(Path, "open", side_effect=denied):
            self.assertEqual(self.refusal(path), f"--env-file {path}: Permission denied")

    def test_no_text(self) -> None:
        path = self.env_file(b"MATRIX_ROLE=\xff\n")
        self.assertEqual(self.refusal(path), f"--env-file {path}: not UTF-8 text")

    def test_broken_line(self) -> None:
        path = self.env_file("MATRIX_ROLE=x\nlisten: :443\n")
        self.assertEqual(self.refusal(path), f"--env-file {path}: line 2 is not NAME=VALUE")


class HostPortTests(SynchronousTestCase):
    def test_forms(self) -> None:
        table = [
            (":443", ("", 443)),
            ("localhost:8443", ("localhost", 8443)),
            ("127.0.0.1:0", ("127.0.0.1", 0)),
            ("[::1]:443", ("::1", 443)),
            ("[::]:443", ("::", 443)),
        ]
        for text, expected in table:
            self.assertEqual(host_port(text), expected)

    def test_refused(self) -> None:
        for text in ("", "443", "host:", "host:-1", "host:+1", "host:٤", "a:b:1", "h:65536"):
            self.assertRaises(ValueError, host_port, text)


class DocumentationTests(SettingsCase):
    def test_env_example_lists_every_setting(self) -> None:
        self.assertEqual(
            (ROOT / ".env.example").read_text(),
            settings.example(),
            "run: python -m matrix.settings > .env.example",
        )

    def test_operating_guide_lists_every_setting(self) -> None:
        self.assertIn(
            settings.table(),
            (ROOT / "docs" / "operating.md").read_text(),
            "put the output of `python -m matrix.settings --table` into docs/operating.md",
        )

    def test_env_example_changes_nothing(self) -> None:
        """Its values, uncommented, are the defaults."""
        lines = settings.example().splitlines()
        names = tuple(f"#{env_name(field)}=" for field in Settings.model_fields)
        text = "\n".join(line[1:] for line in lines if line.startswith(names))
        self.assertEqual(text.count("\n") + 1, len(Settings.model_fields))
        self.assertEqual(load(self.env_file(text)), load())

    def test_every_setting_is_described(self) -> None:
        for field, info in Settings.model_fields.items():
            self.assertTrue(str(info.description).endswith("."), field)

    def test_printed_by_the_module(self) -> None:
        for arguments, expected in (([], settings.example()), (["--table"], settings.table())):
            printed = subprocess.run(
                [sys.executable, "-m", "matrix.settings", *arguments],
                cwd=ROOT,
                check=True,
                capture_output=True,
                text=True,
            ).stdout
            self.assertEqual(printed, expected)
