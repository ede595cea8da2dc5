"""The key set over time: one fetch for many, throttled, refreshed ahead of need."""

from __future__ import annotations

from zope.interface.verify import verifyObject

from matrix.auth import IKeySource
from matrix.auth._keys import AHEAD, FETCH_TIMEOUT, MAX_WAITING, THROTTLE
from matrix.errors import Unavailable
from tests.auth.asking import FIRST, SECOND, URL, KeysCase, jwk


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

    def test_a_fetch_that_hangs_delays_no_known_key(self) -> None:
        self.start(FIRST)
        self.clock.advance(THROTTLE)
        flood = [self.ask(f"forged-{number}") for number in range(50)]
        for _ in range(int(FETCH_TIMEOUT)):
            self.assertEqual(self.found("first").kid, "first")
            self.clock.advance(1)
        for each in flood:
            self.failureResultOf(each, Unavailable)
        self.assertEqual(self.found("first").kid, "first")
        self.assertEqual(self.keys.fetches, 2)

    def test_a_flood_during_a_slow_fetch_is_not_held(self) -> None:
        self.start(FIRST)
        self.clock.advance(THROTTLE)
        held = [self.ask(f"held-{number}") for number in range(MAX_WAITING)]
        for number in range(1000):
            self.assertIsNone(self.found(f"forged-{number}"))
        self.assertNoResult(held[-1])
        self.issuer.serve(FIRST)
        self.assertEqual({self.successResultOf(each) for each in held}, {None})
        self.assertEqual(self.keys.fetches, 2)

    def test_who_leaves_makes_room(self) -> None:
        self.start(FIRST)
        self.clock.advance(THROTTLE)
        for _ in range(2 * MAX_WAITING):
            leaving = self.ask("forged").addErrback(lambda _failure: None)
            leaving.cancel()
        staying = self.ask("second")
        self.issuer.serve(FIRST, SECOND)
        self.assertEqual(self.successResultOf(staying).kid, "second")

    def test_a_key_that_was_rotated_in_is_found(self) -> None:
        self.start(FIRST)
        self.clock.advance(THROTTLE)
        asked = self.ask("second")
        self.issuer.serve(FIRST, SECOND)
        self.assertEqual(self.successResultOf(asked).kid, "second")


class RefreshTests(KeysCase):
    def test_when_the_lifetime_is_over(self) -> None:
        for max_age, expected in (
            (600, 600 - AHEAD),
            (120, 120 - AHEAD),
            (5, 60),
            (86400, 600 - AHEAD),
        ):
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

    def test_a_revoked_key_is_gone_even_if_each_fetch_takes_its_time(self) -> None:
        """Counted from the moment the key was last listed, which is when it was asked for."""
        self.keys.start()
        asked = self.clock.seconds()
        self.clock.advance(FETCH_TIMEOUT - 1)
        self.issuer.serve(FIRST, SECOND)
        while not self.issuer.waiting:
            self.clock.advance(1)
        self.clock.advance(FETCH_TIMEOUT - 1)
        self.issuer.serve(SECOND)
        self.assertLessEqual(self.clock.seconds() - asked, 600)
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
