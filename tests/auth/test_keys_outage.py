"""The key set while its issuer is down: kept in memory and on disk, but not for ever."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path

from matrix.auth import JwksKeys
from matrix.auth._fetch import MAX_DOCUMENT
from matrix.auth._keys import COLD_RETRY, FETCH_TIMEOUT, STALE_MAX, THROTTLE
from matrix.errors import Unavailable
from tests.auth.asking import FIRST, SECOND, URL, KeysCase


class OutageTests(KeysCase):
    def test_bad_answers_keep_the_keys(self) -> None:
        for number, bad in enumerate(
            (
                self.issuer.fail,
                lambda: self.issuer.answer(b"oops", code=503),
                lambda: self.issuer.answer({"keys": [SECOND]}, code=500),
                lambda: self.issuer.answer(b"", code=302, location="https://evil.example/"),
                lambda: self.issuer.answer({"keys": []}),
                lambda: self.issuer.answer({"keys": [{"kty": "oct", "k": "AA", "kid": "h"}]}),
                lambda: self.issuer.answer(b"<html>"),
                lambda: self.issuer.answer(b"[" * 100_000),
                lambda: self.issuer.answer(b" " * (MAX_DOCUMENT + 1)),
                lambda: self.issuer.answer(b" " * (MAX_DOCUMENT + 1), ends=False),
            )
        ):
            self.keys = self.make()
            self.start(FIRST)
            self.clock.advance(600)
            bad()
            self.assertEqual(self.keys.failures, 1, number)
            self.assertEqual(self.found("first").kid, "first", number)
            self.keys.stop()
        self.assertEqual({uri for _, uri, _ in self.issuer.seen}, {URL.encode()})

    def test_an_issuer_that_is_slow(self) -> None:
        asked = self.ask("first")
        self.clock.advance(FETCH_TIMEOUT)
        self.assertEqual(self.issuer.cancelled, 1)
        self.failureResultOf(asked, Unavailable)

    def test_an_issuer_that_never_ends_its_answer(self) -> None:
        asked = self.ask("first")
        self.issuer.answer({"keys": [FIRST]}, ends=False)
        self.clock.advance(FETCH_TIMEOUT)
        self.failureResultOf(asked, Unavailable)

    def test_keys_live_for_an_hour_and_no_longer(self) -> None:
        self.start(FIRST)
        seen: list[object] = []
        self.keys.subscribe(seen.append)
        self.advance(STALE_MAX - 1, self.issuer.fail)
        self.assertEqual(self.found("first").kid, "first")
        self.advance(2, self.issuer.fail)
        self.assertEqual(seen, [{}])
        self.down("first")

    def test_the_hour_ends_even_while_a_fetch_hangs(self) -> None:
        self.keys.start()
        self.issuer.serve(FIRST, max_age=125)  # the last try is then 5 s before the end
        self.advance(STALE_MAX - 6, self.issuer.fail)
        self.advance(5)
        self.assertEqual(len(self.issuer.waiting), 1)
        self.assertEqual(self.found("first").kid, "first")
        self.advance(1)
        self.assertEqual(len(self.issuer.waiting), 1)
        self.assertNoResult(self.ask("first").addErrback(lambda _failure: None))

    def test_what_became_of_each_fetch_is_counted(self) -> None:
        self.start(FIRST)
        for bad in (self.issuer.fail, lambda: self.issuer.answer(b"<html>"), self.issuer.fail):
            while not self.issuer.waiting:
                self.clock.advance(1)
            bad()
        self.assertEqual(self.keys.outcomes, {"good": 1, "unusable": 1, "unreachable": 2})
        self.assertEqual((self.keys.fetches, self.keys.failures), (4, 3))

    def test_the_age_grows_until_a_good_fetch(self) -> None:
        self.assertGreaterEqual(self.keys.age, STALE_MAX)
        self.assertFalse(self.keys.fresh)
        self.start(FIRST)
        self.assertEqual(self.keys.age, 0)
        self.advance(650, self.issuer.fail)
        self.assertEqual(self.keys.age, 650)
        self.assertFalse(self.keys.fresh)
        self.advance(THROTTLE, lambda: self.issuer.serve(FIRST))
        self.assertTrue(self.keys.fresh)

    def test_the_issuer_is_asked_every_thirty_seconds_meanwhile(self) -> None:
        self.start(FIRST)
        self.advance(600, self.issuer.fail)
        before = self.keys.fetches
        self.advance(600, self.issuer.fail)
        self.assertEqual(self.keys.fetches - before, 600 / THROTTLE)

    def test_an_unknown_key_in_an_outage_may_be_a_new_one(self) -> None:
        self.start(FIRST)
        self.advance(600, self.issuer.fail)
        error = self.down("second")
        self.assertEqual((error.status, error.reason), (503, "keys"))
        self.assertGreater(error.retry_after, 0)
        self.assertEqual(self.found("first").kid, "first")

    def test_recovery(self) -> None:
        self.start(FIRST)
        self.advance(1000, self.issuer.fail)
        self.advance(THROTTLE, lambda: self.issuer.serve(FIRST, SECOND))
        self.assertEqual(self.found("second").kid, "second")
        self.assertIsNone(self.found("forged"))

    def test_a_cold_start_without_the_issuer(self) -> None:
        started = self.keys.start()
        self.issuer.fail()
        self.successResultOf(started)
        for _ in range(100):
            self.down("first")
        self.assertEqual(self.keys.fetches, 1)
        self.clock.advance(COLD_RETRY)
        self.assertEqual(self.keys.fetches, 2)
        self.issuer.serve(FIRST)
        self.assertEqual(self.found("first").kid, "first")


class SecretProjectTests(KeysCase):
    """An issuer that signs with a secret lists no keys, and that is as it should be."""

    def make(self, path: Path | None = None, url: str = URL, **options: bool) -> JwksKeys:
        return super().make(path, url, **{"may_be_empty": True, **options})

    def test_no_key_is_no_failure(self) -> None:
        self.start()
        self.assertEqual((self.keys.failures, self.keys.fresh), (0, True))
        self.assertIsNone(self.found("forged"))
        self.advance(599, lambda: self.issuer.serve())
        self.assertEqual(self.keys.fetches, 2)

    def test_the_last_key_may_go(self) -> None:
        self.start(FIRST)
        self.advance(600, lambda: self.issuer.serve())
        self.assertIsNone(self.found("first"))

    def test_keys_that_are_there_but_unusable_are_a_failure(self) -> None:
        self.start(FIRST)
        self.clock.advance(600)
        self.issuer.serve({"kty": "EC"})
        self.assertEqual(self.keys.failures, 1)
        self.assertEqual(self.found("first").kid, "first")


class KeptOnDiskTests(KeysCase):
    def setUp(self) -> None:
        super().setUp()
        self.directory = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.directory)
        self.path = self.directory / "state" / "keys.json"

    def keep(self, *served: object) -> None:
        """What a process leaves behind that fetched these keys and ended."""
        self.keys = self.make(self.path)
        self.start(*served)
        self.keys.stop()

    def restart(self) -> None:
        """A new process whose issuer is down."""
        self.keys = self.make(self.path)
        self.keys.start()
        self.issuer.fail()

    def test_a_start_without_the_issuer(self) -> None:
        self.keep(FIRST)
        self.clock.advance(STALE_MAX - 10)
        self.restart()
        self.assertEqual(self.found("first").kid, "first")

    def test_kept_keys_serve_while_the_first_fetch_runs(self) -> None:
        self.keep(FIRST)
        self.keys = self.make(self.path)
        self.assertNoResult(self.keys.start())
        self.assertEqual(self.found("first").kid, "first")

    def test_their_hour_began_when_they_were_fetched(self) -> None:
        self.keep(FIRST)
        self.clock.advance(STALE_MAX - 10)
        self.restart()
        self.advance(12, self.issuer.fail)
        self.down("first")

    def test_old_ones_are_not_used(self) -> None:
        self.keep(FIRST)
        self.clock.advance(STALE_MAX)
        self.restart()
        self.down("first")

    def test_old_ones_do_not_even_bridge_the_first_fetch(self) -> None:
        self.keep(FIRST)
        self.clock.advance(STALE_MAX)
        self.keys = self.make(self.path)
        self.keys.start()
        self.assertNoResult(self.ask("first").addErrback(lambda _failure: None))

    def test_another_issuers_are_not_used(self) -> None:
        self.keep(FIRST)
        self.keys = self.make(self.path, URL.replace("ref", "other"))
        self.keys.start()
        self.issuer.fail()
        self.down("first")

    def test_a_start_knows_whether_a_revoked_key_may_be_among_them(self) -> None:
        for age, fresh in ((500, True), (700, False)):
            self.keep(FIRST)
            self.clock.advance(age)
            self.keys = self.make(self.path)
            self.keys.start()
            self.assertEqual(self.keys.fresh, fresh, age)
            self.issuer.serve(FIRST)
            self.keys.stop()

    def test_only_the_owner_reads_the_file_and_no_other_stays(self) -> None:
        self.keep(FIRST)
        self.assertEqual(os.stat(self.path).st_mode & 0o777, 0o600)
        self.assertEqual(os.listdir(self.path.parent), ["keys.json"])

    def test_a_failed_fetch_does_not_touch_it(self) -> None:
        self.keep(FIRST)
        before = self.path.read_bytes()
        self.restart()
        self.assertEqual(self.path.read_bytes(), before)

    def test_an_unusable_file_is_no_obstacle(self) -> None:
        self.path.parent.mkdir()
        good = json.dumps({"keys": [FIRST]})
        for content in (
            b"",
            b"{",
            b"[]",
            b"null",
            b"{}",
            b"\xff",
            b'{"fetched_at": "x", "document": "{}"}',
            json.dumps({"fetched_at": self.now(), "document": good}).encode(),
            json.dumps({"url": URL, "fetched_at": float("nan"), "document": good}).encode(),
            json.dumps({"url": URL, "fetched_at": float("inf"), "document": good}).encode(),
            json.dumps({"url": URL, "fetched_at": self.now(), "document": "<html>"}).encode(),
        ):
            self.path.write_bytes(content)
            self.restart()
            self.down("first")
            self.keys.stop()
        self.keep(FIRST)
        self.restart()
        self.assertEqual(self.found("first").kid, "first")

    def test_a_directory_that_cannot_be_written_is_no_obstacle(self) -> None:
        blocked = self.directory / "file"
        blocked.write_text("not a directory")
        self.keys = self.make(blocked / "keys.json")
        self.start(FIRST)
        self.assertEqual(self.found("first").kid, "first")
