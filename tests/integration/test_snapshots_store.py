"""The store in S3, against a real server: the contract, parts, outages and what stays behind."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from functools import cache

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import TestCase

from matrix.errors import ConfigurationError
from matrix.snapshots import S3Place, S3Store, _s3_calls
from matrix.snapshots._bucket import RULE_ID, prepare_bucket
from matrix.snapshots._content import Expected
from matrix.snapshots._s3_calls import S3Calls
from matrix.snapshots._s3_writing import S3Upload
from matrix.snapshots.interfaces import StoreUnavailable, Writing, WrongContent
from matrix.testing.object_store_suite import ObjectStoreContract, sha256
from matrix.testing.seaweed import KEEPING, fresh_bucket

MIB = 1 << 20


@cache
def bucket() -> S3Place:
    """One bucket for all tests here; each has a prefix of its own."""
    return fresh_bucket()


class S3Case(TestCase):
    """A store in the bucket."""

    timeout = 60
    single_bytes = 64 * MIB

    def setUp(self) -> None:
        self.store = self.made(bucket())

    def made(self, place: S3Place) -> S3Store:
        """A store that is stopped after the test."""
        store = S3Store(place, reactor, self.single_bytes, part_bytes=5 * MIB)
        store.start()
        self.addCleanup(store.stop)
        return store


class S3ContractTests(S3Case, ObjectStoreContract):
    """The contract, each object in one request."""

    crowd = 20

    def setUp(self) -> None:
        super().setUp()
        self.patch(_s3_calls, "PAGE", 7)


class S3PartsTests(S3Case, ObjectStoreContract):
    """The contract, each object in parts."""

    single_bytes = 0
    large = 12 * MIB + 1
    crowd = 3

    async def test_of_many_at_once_one_wins(self) -> None:
        """SeaweedFS judges the condition of joined parts not in one step with the joining: more
        than one may win, but what is there is one of them, whole."""
        contents = [bytes([number]) * (6 * MIB) for number in range(3)]
        outcomes = await gatherResults(
            [Deferred.fromCoroutine(self.won(content)) for content in contents]
        )
        self.assertIn(True, outcomes)
        self.assertIn(await self.get(), contents)

    async def test_broken_off_uploads_are_swept(self) -> None:
        writing = await self.store.write(self.key(), self.large)
        await writing.write([bytes(6 * MIB)])
        other = S3Calls(bucket())
        self.addCleanup(other.close)
        self.assertEqual(other.sweep(self.prefix, 60.0), 0)
        self.assertEqual(other.sweep(self.prefix, -60.0), 1)
        self.assertEqual(other.sweep(self.prefix, -60.0), 0)
        with contextlib.suppress(StoreUnavailable):
            await writing.write([bytes(6 * MIB + 1)])
            await writing.commit()
        self.assertIsNone(await self.store.size(self.key()))

    async def test_breaking_off_leaves_no_parts(self) -> None:
        writing = await self.store.write(self.key(), self.large, sha256(b"another"))
        with self.assertRaises(WrongContent):
            await writing.write([bytes(self.large)])
        other = S3Calls(bucket())
        self.addCleanup(other.close)
        self.assertEqual(other.sweep(self.prefix, -60.0), 0)


class TroubleTests(S3Case):
    """What is no absence is never called one."""

    async def assert_unavailable(self, store: S3Store) -> None:
        key = "users/x/config"
        for doing in (store.size(key), store.read(key), store.delete(key), self.listed(store)):
            await self.assertFailure(Deferred.fromCoroutine(doing), StoreUnavailable)
        writing = await store.write(key, 5)
        await self.assertFailure(Deferred.fromCoroutine(self.written(writing)), StoreUnavailable)

    async def listed(self, store: S3Store) -> list[object]:
        return [page async for page in store.list("users/x/")]

    async def written(self, writing: Writing) -> None:
        await writing.write([b"12345"])
        await writing.commit()

    async def test_nobody_there(self) -> None:
        await self.assert_unavailable(self.made(replace(bucket(), endpoint="http://127.0.0.1:9")))

    async def test_no_bucket(self) -> None:
        await self.assert_unavailable(self.made(replace(bucket(), bucket="never-made")))

    async def test_wrong_key(self) -> None:
        await self.assert_unavailable(self.made(replace(bucket(), secret_key="x" * 32)))

    async def test_the_key_is_in_no_text(self) -> None:
        place = replace(bucket(), secret_key="hush-hush", endpoint="http://127.0.0.1:9")
        self.assertNotIn("hush", repr(place))
        failing = Deferred.fromCoroutine(self.made(place).size("users/x"))
        error = await self.assertFailure(failing, StoreUnavailable)
        self.assertNotIn("hush", str(error))
        self.assertIn("cannot be reached: Connection refused", str(error))

    async def test_preparing_with_a_wrong_key(self) -> None:
        store = self.made(replace(bucket(), secret_key="x" * 32))
        failing = Deferred.fromCoroutine(store.prepare(KEEPING))
        error = await self.assertFailure(failing, ConfigurationError)
        self.assertIn("python -m matrix.snapshots policy", str(error))

    def test_what_is_no_endpoint(self) -> None:
        for endpoint in (
            "",
            "localhost:9000",
            "ftp://h",
            "http://h/path",
            "http://u:p@h",
            "http://h:x",
        ):
            with self.assertRaises(ConfigurationError):
                S3Store(replace(bucket(), endpoint=endpoint), reactor)


class BucketTests(TestCase):
    """A bucket is made ready once, and keeps what is deleted."""

    def setUp(self) -> None:
        self.calls = S3Calls(bucket())
        self.addCleanup(self.calls.close)

    def test_it_is_ready(self) -> None:
        minio, name = self.calls.minio, bucket().bucket
        self.assertEqual(minio.get_bucket_versioning(name).status, "Enabled")
        rules = {rule.rule_id: rule for rule in minio.get_bucket_lifecycle(name).rules}
        versions = rules[f"{RULE_ID}-versions"].noncurrent_version_expiration
        self.assertEqual(versions.noncurrent_days, KEEPING.days)
        self.assertEqual(list(minio.list_objects(name, "users/00000000", recursive=True)), [])

    def test_again_changes_nothing(self) -> None:
        self.assertEqual(prepare_bucket(self.calls, KEEPING), [])

    def test_other_rules_stay(self) -> None:
        self.assertEqual(prepare_bucket(self.calls, replace(KEEPING, days=3)), [])
        rules = self.calls.minio.get_bucket_lifecycle(bucket().bucket).rules
        self.assertEqual(len(rules), 2)
        prepare_bucket(self.calls, KEEPING)

    def test_what_is_deleted_is_still_there_for_the_operator(self) -> None:
        upload = S3Upload(self.calls.wire, "users/y/one", Expected(5, None), None, replace=False)
        upload.write([b"12345"])
        upload.commit()
        self.calls.delete("users/y/one")
        self.assertIsNone(self.calls.size("users/y/one"))
        found = [
            *self.calls.minio.list_objects(
                bucket().bucket, "users/y/one", recursive=True, include_version=True
            )
        ]
        self.assertEqual({one.is_delete_marker for one in found}, {True, False})
