"""The pure parts: contents, paths, policies, and what a store's refusals mean."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import PackageNotFoundError
from pathlib import Path

from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from minio.error import S3Error, ServerError
from twisted.trial.unittest import SynchronousTestCase
from urllib3 import HTTPResponse
from urllib3.exceptions import MaxRetryError, ReadTimeoutError

from matrix.errors import ConfigurationError, InsufficientStorage, NotFound
from matrix.snapshots import _seaweed, bucket_policy
from matrix.snapshots.__main__ import main
from matrix.snapshots._content import Expected
from matrix.snapshots._places import Keys, Kind, name_of, parse_path
from matrix.snapshots._s3_errors import code_of, refusal, translated
from matrix.snapshots.interfaces import (
    AlreadyThere,
    NoSuchObject,
    OutOfRange,
    Span,
    StoreUnavailable,
    WrongContent,
)
from matrix.testing.restic import ALICE


class ExpectedTests(SynchronousTestCase):
    @given(st.lists(st.binary(min_size=1, max_size=9), max_size=9))
    def test_what_is_right_is_accepted_however_it_comes(self, pieces: list[bytes]) -> None:
        content = b"".join(pieces)
        expected = Expected(len(content), hashlib.sha256(content).hexdigest())
        for piece in pieces:
            expected.accept([piece])
        expected.finish()

    @given(st.binary(min_size=1, max_size=99), st.integers(0, 98), st.integers(1, 255))
    def test_one_other_byte_is_refused_with_the_last(
        self, content: bytes, at: int, change: int
    ) -> None:
        name = hashlib.sha256(content).hexdigest()
        other = bytearray(content)
        other[at % len(content)] ^= change
        expected = Expected(len(content), name)
        expected.accept([bytes(other[:-1])])
        with self.assertRaises(WrongContent):
            expected.accept([bytes(other[-1:])])

    def test_no_bytes(self) -> None:
        Expected(0, hashlib.sha256(b"").hexdigest()).finish()
        with self.assertRaises(WrongContent):
            Expected(0, "0" * 64)


class PlaceTests(SynchronousTestCase):
    @given(st.binary(max_size=120))
    def test_whatever_comes_names_a_place_or_nothing(self, tail: bytes) -> None:
        for path in (tail, b"/restic/" + tail, f"/restic/{ALICE}/".encode() + tail):
            try:
                place = parse_path("/restic", path)
            except NotFound:
                continue
            self.assertEqual(len(place.user_id), 36)
            self.assertIn(len(place.name), (0, 6, 64))

    def test_keys_are_laid_out_as_restic_does_in_s3(self) -> None:
        keys, name = Keys("users/", ALICE), "ab" * 32
        self.assertEqual(keys.config, f"users/{ALICE}/config")
        self.assertEqual(keys.file(Kind.DATA, name), f"users/{ALICE}/data/ab/{name}")
        self.assertEqual(keys.file(Kind.LOCKS, name), f"users/{ALICE}/locks/{name}")
        for kind in Kind:
            self.assertTrue(keys.file(kind, name).startswith(keys.folder(kind)))
            self.assertEqual(name_of(keys.file(kind, name)), name)
        self.assertIsNone(name_of(keys.config))

    @given(st.integers(0, 50), st.integers(-60, 60), st.none() | st.integers(0, 60))
    def test_spans(self, size: int, first: int, last: int | None) -> None:
        content = bytes(range(size))
        try:
            got = Span(first, last if first >= 0 else None).resolve(size)
        except OutOfRange:
            self.assertGreater(size, 0)
            self.assertTrue(first >= size or (last is not None and last < first))
            return
        stop = size if last is None or first < 0 else last + 1
        self.assertEqual(content[got.start : got.stop], content[first:stop])


class RefusalTests(SynchronousTestCase):
    """Only one code is an absence."""

    def test_kinds(self) -> None:
        for status, code, kind in (
            (404, "NoSuchKey", NoSuchObject),
            (412, "PreconditionFailed", AlreadyThere),
            (412, "", AlreadyThere),
            (416, "InvalidRange", OutOfRange),
            (507, "XMinioStorageFull", InsufficientStorage),
            (404, "NoSuchBucket", StoreUnavailable),
            (404, "", StoreUnavailable),
            (403, "AccessDenied", StoreUnavailable),
            (403, "SignatureDoesNotMatch", StoreUnavailable),
            (503, "SlowDown", StoreUnavailable),
            (200, "InternalError", StoreUnavailable),
            (301, "PermanentRedirect", StoreUnavailable),
        ):
            self.assertIs(type(refusal(status, code)), kind, (status, code))

    def test_codes_are_found(self) -> None:
        self.assertEqual(code_of(b"<?xml?><Error><Code>SlowDown</Code></Error>"), "SlowDown")
        self.assertEqual(code_of(b"<html>"), "")

    def test_translation(self) -> None:
        gone = S3Error(HTTPResponse(status=404), "NoSuchKey", "", "/x?X-Amz-Signature=1", "", "")
        url = "/x?X-Amz-Signature=1"
        late = MaxRetryError(None, url, TimeoutError(110, "late"))  # type: ignore[arg-type]
        for error, kind in (
            (gone, NoSuchObject),
            (ServerError("oh", 500), StoreUnavailable),
            (ConnectionRefusedError(111, "Connection refused"), StoreUnavailable),
            (ReadTimeoutError(None, url, "timed out"), StoreUnavailable),  # type: ignore[arg-type]
            (late, StoreUnavailable),
        ):
            with self.assertRaises(kind) as caught, translated():
                raise error
            self.assertNotIn("Signature", str(caught.exception))

    def test_faults_of_ours_are_not_called_the_stores(self) -> None:
        with self.assertRaises(ZeroDivisionError), translated():
            _ = 1 / 0


class PolicyTests(SynchronousTestCase):
    """The key can do what it must, and no more."""

    def allowed(self, **options: bool) -> dict[str, list[str]]:
        """The resources of each action."""
        text = bucket_policy("b", "users/", **{"retention": False, "set_up": False} | options)
        found: dict[str, list[str]] = {}
        for statement in json.loads(text)["Statement"]:
            self.assertEqual(statement["Effect"], "Allow")
            for action in statement["Action"]:
                found.setdefault(action, []).extend(statement["Resource"])
        return found

    def test_the_service_can_delete_locks_only(self) -> None:
        self.assertEqual(self.allowed()["s3:DeleteObject"], ["arn:aws:s3:::b/users/*/locks/*"])

    def test_retention_can_delete_what_is_ours(self) -> None:
        found = self.allowed(retention=True)
        self.assertEqual(found["s3:DeleteObject"], ["arn:aws:s3:::b/users/*"])

    def test_nobody_can_delete_versions_or_take_more(self) -> None:
        for options in ({}, {"retention": True}, {"set_up": True, "retention": True}):
            found = self.allowed(**options)
            self.assertNotIn("s3:DeleteObjectVersion", found)
            self.assertNotIn("s3:DeleteBucket", found)
            self.assertFalse([action for action in found if "*" in action])
            self.assertEqual("s3:CreateBucket" in found, "set_up" in options)

    def test_it_can_be_printed(self) -> None:
        printed = CliRunner().invoke(main, ["policy", "--bucket", "b", "--retention"])
        wanted = bucket_policy("b", "users/", retention=True, set_up=False)
        self.assertEqual((printed.exit_code, printed.output), (0, wanted + "\n"))


class WheelTests(SynchronousTestCase):
    """Embedded mode says what is missing."""

    def test_it_is_found(self) -> None:
        self.assertTrue(Path(_seaweed.find_program()).is_file())

    def test_it_is_not_installed(self) -> None:
        def missing(name: str) -> None:
            raise PackageNotFoundError(name)

        self.patch(_seaweed, "distribution", missing)
        with self.assertRaises(ConfigurationError) as caught:
            _seaweed.find_program()
        self.assertIn("pip install 'matrix-door[embedded]'", str(caught.exception))
