"""The key set over time: one fetch for many, throttled, refreshed ahead, kept in an outage."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseDone
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IResponse
from zope.interface import implementer
from zope.interface.verify import verifyObject

from matrix.auth import IKeySource, JwksKeys, Key
from matrix.auth._keys import COLD_RETRY, FETCH_TIMEOUT, MAX_DOCUMENT, STALE_MAX, THROTTLE
from matrix.errors import Unavailable

URL = "https://ref.supabase.example/auth/v1/.well-known/jwks.json"
UNIX = 1_800_000_000.0


def jwk(kid: str) -> dict[str, Any]:
    public = ec.generate_private_key(ec.SECP256R1()).public_key()
    return ECAlgorithm.to_jwk(public, as_dict=True) | {"kid": kid, "alg": "ES256"}


FIRST, SECOND = jwk("first"), jwk("second")


@implementer(IResponse)
class Response:
    """An answer whose body comes at once, or never ends."""

    version = (b"HTTP", 1, 1)
    phrase = b""
    previousResponse = None
    request = None

    def __init__(self, code: int, body: bytes, headers: dict[bytes, bytes], ends: bool) -> None:
        self.code = code
        self.headers = Headers({name: [value] for name, value in headers.items()})
        self.length = len(body)
        self._body = body
        self._ends = ends

    def deliverBody(self, protocol: Any) -> None:
        protocol.makeConnection(None)
        for start in range(0, len(self._body), 1000):
            protocol.dataReceived(self._body[start : start + 1000])
        if self._ends:
            protocol.connectionLost(Failure(ResponseDone()))

    def setPreviousResponse(self, response: object) -> None:
        raise NotImplementedError


@implementer(IAgent)
class Issuer:
    """An agent that holds each request until the test answers it."""

    def __init__(self) -> None:
        self.waiting: list[Deferred[Response]] = []
        self.seen: list[tuple[bytes, bytes, Headers]] = []
        self.cancelled = 0

    def request(
        self, method: bytes, uri: bytes, headers: Headers, bodyProducer: object = None
    ) -> Deferred[Response]:
        self.seen.append((method, uri, headers))
        answer: Deferred[Response] = Deferred(self._cancel)
        self.waiting.append(answer)
        return answer

    def _cancel(self, answer: Deferred[Response]) -> None:
        self.cancelled += 1
        self.waiting.remove(answer)

    def answer(self, body: object, *, code: int = 200, ends: bool = True, **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        fields = {name.replace("_", "-").encode(): v.encode() for name, v in headers.items()}
        self.waiting.pop(0).callback(Response(code, data, fields, ends))

    def serve(self, *keys: object, max_age: int = 600) -> None:
        self.answer({"keys": keys}, cache_control=f"public, max-age={max_age}")

    def fail(self) -> None:
        self.waiting.pop(0).errback(ConnectionRefusedError())


class KeysCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.issuer = Issuer()
        self.keys = self.make()

    def make(self, path: Path | None = None) -> JwksKeys:
        keys = JwksKeys(self.issuer, URL, self.clock, self.now, path)
        self.addCleanup(keys.stop)
        return keys

    def now(self) -> float:
        return UNIX + self.clock.seconds()

    def ask(self, kid: str) -> Deferred[Key | None]:
        return Deferred.fromCoroutine(self.keys.find(kid))

    def found(self, kid: str) -> Key | None:
        return self.successResultOf(self.ask(kid))

    def down(self, kid: str) -> Unavailable:
        error: Unavailable = self.failureResultOf(self.ask(kid), Unavailable).value
        return error

    def start(self, *served: object) -> None:
        self.keys.start()
        self.issuer.serve(*served)

    def advance(self, seconds: float, answer: Callable[[], None] | None = None) -> None:
        """Let time pass by the second, each request meanwhile getting the same answer."""
        for _ in range(int(seconds)):
            self.clock.advance(1)
            while answer is not None and self.issuer.waiting:
                answer()


class FetchTests(KeysCase):
    def test_provides_the_interface(self) -> None:
        verifyObject(IKeySource, self.keys)

    def test_the_first_who_asks_causes_a_fetch(self) -> None:
        asked = self.ask("first")
        self.assertNoResult(asked)
        ((method, uri, headers),) = self.issuer.seen
        self.assertEqual((method, uri), (b"GET", URL.encode()))
        self.assertEqual(headers.getRawHeaders(b"accept"), [b"application/json"])
        self.issuer.serve(FIRST)
        key = self.successResultOf(asked)
        self.assertEqual((key.kid, key.algorithm), ("first", "ES256"))

    def test_starting_fetches_ahead(self) -> None:
        started = self.keys.start()
        self.assertNoResult(started)
        self.issuer.serve(FIRST)
        self.successResultOf(started)
        self.assertEqual(self.found("first").kid, "first")
        self.assertEqual(self.keys.fetches, 1)

    def test_many_who_wait_share_one_fetch(self) -> None:
        asked = [self.ask("first") for _ in range(100)]
        self.assertEqual(len(self.issuer.seen), 1)
        self.issuer.serve(FIRST)
        self.assertEqual({self.successResultOf(each).kid for each in asked}, {"first"})

    def test_one_who_gives_up_leaves_the_others_waiting(self) -> None:
        leaving, staying = self.ask("first"), self.ask("first")
        leaving.addErrback(lambda _failure: None)
        leaving.cancel()
        self.assertEqual(self.issuer.cancelled, 0)
        self.issuer.serve(FIRST)
        self.assertEqual(self.successResultOf(staying).kid, "first")

    def test_a_bad_key_beside_a_good_one(self) -> None:
        self.start({"kty": "oct", "k": "AAAA", "kid": "x"}, FIRST)
        self.assertEqual(self.found("first").kid, "first")


class UnknownKeyTests(KeysCase):
    def test_an_unknown_kid_asks_again_but_not_often(self) -> None:
        self.start(FIRST)
        for number in range(1000):
            self.assertIsNone(self.found(f"forged-{number}"))
        self.assertEqual(self.keys.fetches, 1)
        self.clock.advance(THROTTLE)
        asked = [self.ask(f"forged-{number}") for number in range(1000)]
        self.assertEqual(self.keys.fetches, 2)
        self.issuer.serve(FIRST)
        self.assertEqual({self.successResultOf(each) for each in asked}, {None})
        self.assertIsNone(self.found("forged"))
        self.assertEqual(self.keys.fetches, 2)

    def test_a_flood_costs_one_fetch_in_thirty_seconds(self) -> None:
        self.start(FIRST)
        for second in range(600):
            self.clock.advance(1)
            for number in range(5):
                self.ask(f"{second}-{number}").addErrback(lambda failure: failure)
            while self.issuer.waiting:
                self.issuer.serve(FIRST)
        self.assertLessEqual(self.keys.fetches, 1 + 600 / THROTTLE)

    def test_known_keys_do_not_wait_for_an_unknown_one(self) -> None:
        self.start(FIRST)
        self.clock.advance(THROTTLE)
        self.assertNoResult(self.ask("forged"))
        self.assertEqual(self.found("first").kid, "first")
        self.issuer.serve(FIRST)

    def test_a_key_that_was_rotated_in_is_found(self) -> None:
        self.start(FIRST)
        self.clock.advance(THROTTLE)
        asked = self.ask("second")
        self.issuer.serve(FIRST, SECOND)
        self.assertEqual(self.successResultOf(asked).kid, "second")


class RefreshTests(KeysCase):
    def test_when_the_lifetime_is_over(self) -> None:
        for max_age, expected in ((600, 600), (120, 120), (5, 60), (86400, 600)):
            self.keys = self.make()
            self.keys.start()
            self.issuer.serve(FIRST, max_age=max_age)
            self.clock.advance(expected - 1)
            self.assertEqual(self.keys.fetches, 1, max_age)
            self.clock.advance(1)
            self.assertEqual(self.keys.fetches, 2, max_age)
            self.keys.stop()

    def test_nobody_waits_for_a_refresh(self) -> None:
        self.start(FIRST)
        self.clock.advance(600)
        self.assertEqual(len(self.issuer.waiting), 1)
        self.assertEqual(self.found("first").kid, "first")

    def test_a_revoked_key_is_gone_within_ten_minutes(self) -> None:
        self.start(FIRST, SECOND)
        seen: list[set[str]] = []
        self.keys.subscribe(lambda keys: seen.append(set(keys)))
        self.advance(600, lambda: self.issuer.serve(SECOND))
        self.assertEqual(seen, [{"second"}])
        self.assertIsNone(self.found("first"))

    def test_an_unchanged_set_is_no_news(self) -> None:
        self.start(FIRST)
        seen: list[object] = []
        self.keys.subscribe(seen.append)
        self.advance(2000, lambda: self.issuer.serve(FIRST))
        self.assertEqual(seen, [])
        self.assertGreaterEqual(self.keys.fetches, 4)

    def test_other_material_under_the_same_kid_is_news(self) -> None:
        self.start(FIRST)
        seen: list[object] = []
        self.keys.subscribe(seen.append)
        self.advance(600, lambda: self.issuer.serve(jwk("first")))
        self.assertEqual(len(seen), 1)

    def test_stopping_ends_it(self) -> None:
        self.start(FIRST)
        self.keys.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.clock.advance(THROTTLE)
        self.assertIsNone(self.found("forged"))
        self.assertEqual(self.keys.fetches, 1)

    def test_stopping_in_a_fetch_lets_nobody_hang(self) -> None:
        asked = self.ask("first")
        self.keys.stop()
        self.assertEqual(self.issuer.cancelled, 1)
        self.failureResultOf(asked, Unavailable)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.successResultOf(self.keys.start())


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
            json.dumps({"fetched_at": float("nan"), "document": good}).encode(),
            json.dumps({"fetched_at": float("inf"), "document": good}).encode(),
            json.dumps({"fetched_at": self.now(), "document": "<html>"}).encode(),
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
