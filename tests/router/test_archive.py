"""Which store there is, and what machines are told until it is ready."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from matrix.directory import MemoryDirectory
from matrix.errors import ConfigurationError, Forbidden, Unavailable
from matrix.metrics import Registry, series
from matrix.router import archive as archive_module
from matrix.router.archive import Archive, place_from
from matrix.settings import Settings
from matrix.testing.exchange import FakeExchange

MASTER = "m" * 32

STORE = {
    "s3_endpoint": "http://127.0.0.1:9",
    "s3_access_key": "public",
    "s3_secret_key": "hush-hush",
    "DATABASE_URL": "postgresql://u:p@h/d",
}


class ArchiveTests(SynchronousTestCase):
    def open(self, **given: Any) -> Archive:
        """One that was opened."""
        settings = Settings(_env_file=None, state_dir=Path(self.mktemp()), **given)  # type: ignore[call-arg]
        engine: Any = SimpleNamespace(reactor=Clock(), settings=settings)
        archive = Archive(engine)
        archive.open(MemoryDirectory(Clock()), MASTER)
        return archive

    def assert_off(self, archive: Archive) -> None:
        """Machines are told that there are no snapshots."""
        error = FakeExchange().handle(archive).error
        assert isinstance(error, Forbidden)
        self.assertEqual(error.reason, "snapshots-off")

    def test_without_a_store(self) -> None:
        self.assert_off(self.open(DATABASE_URL="postgresql://u:p@h/d"))

    def test_switched_off(self) -> None:
        self.assert_off(self.open(snapshots=False))
        self.assert_off(self.open(snapshots=False, **STORE))

    def test_while_it_starts(self) -> None:
        class Waiting:
            def __init__(self, *args: object) -> None: ...

            def start(self) -> None: ...

            def stop(self) -> None: ...

            async def prepare(self, keeping: object) -> list[str]:
                raise archive_module.StoreUnavailable("the store cannot be reached")

        self.patch(archive_module, "S3Store", Waiting)
        archive = self.open(**STORE)
        error = FakeExchange().handle(archive).error
        assert isinstance(error, Unavailable)
        self.assertEqual((error.reason, error.retry_after), ("store", 5.0))

    def test_without_the_wheel_of_an_own_store(self) -> None:
        class Missing:
            def __init__(self, *args: object) -> None: ...

            async def start(self) -> None:
                raise ConfigurationError("its wheel is not installed")

        self.patch(archive_module, "EmbeddedSeaweed", Missing)
        self.assert_off(self.open())

    def test_the_operators_store(self) -> None:
        settings = Settings(_env_file=None, s3_ca=Path("/ca.pem"), **STORE)  # type: ignore[call-arg, arg-type]
        place = place_from(settings)
        assert place is not None
        self.assertEqual((place.bucket, place.ca_file), ("matrix-snapshots", "/ca.pem"))
        self.assertEqual(place.secret_key, "hush-hush")
        self.assertNotIn("hush", repr(place) + repr(settings))

    def test_what_cannot_be_a_store(self) -> None:
        for endpoint, ca in (("http://h/path", None), ("https://h", Path("/no/such.pem"))):
            given = STORE | {"s3_endpoint": endpoint, "s3_ca": ca}
            with self.assertRaises(ConfigurationError) as caught:
                self.open(**given)
            self.assertIn("MATRIX_S3_ENDPOINT: ", str(caught.exception))

    def test_a_store_needs_its_key(self) -> None:
        for name in ("s3_access_key", "s3_secret_key"):
            given = {key: value for key, value in STORE.items() if key != name}
            with self.assertRaises(ValueError) as caught:
                Settings(_env_file=None, **given)  # type: ignore[call-arg, arg-type]
            self.assertIn("MATRIX_S3_ENDPOINT needs", str(caught.exception))


class MeasureTests(SynchronousTestCase):
    def finished(self, target: str, method: str = "GET") -> Registry:
        """What is counted of a request."""
        settings = Settings(_env_file=None, state_dir=Path(self.mktemp()), **STORE)  # type: ignore[call-arg, arg-type]
        registry = Registry()
        tell = Archive(SimpleNamespace(settings=settings)).measure(registry)  # type: ignore[arg-type]
        request = FakeExchange.of(method, target).request
        tell(SimpleNamespace(request=request, status=200, body_bytes=30, bytes_out=4))  # type: ignore[arg-type]
        return registry

    def test_what_machines_ask(self) -> None:
        registry = self.finished("/restic/user/data/x", "POST")
        counter = registry.counter(series.REPOSITORY_REQUESTS, "POST", "200")
        self.assertEqual(counter.value, 1)
        self.assertEqual(registry.counter(series.REPOSITORY_BYTES, "in").value, 30)
        self.assertEqual(registry.counter(series.REPOSITORY_BYTES, "out").value, 4)
        self.assertEqual(registry.number(series.REPOSITORY_READY), 0)

    def test_what_others_ask_is_not_counted_here(self) -> None:
        registry = self.finished("/admin/v1/status")
        self.assertEqual(registry.counter(series.REPOSITORY_BYTES, "in").value, 0)

    def test_a_method_that_nobody_knows_makes_no_series_of_its_own(self) -> None:
        registry = self.finished("/restic/user/", "BREW")
        self.assertEqual(registry.counter(series.REPOSITORY_REQUESTS, "other", "200").value, 1)
