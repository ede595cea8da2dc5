"""What the fuzz runs found worth keeping is judged again in every run of the tests."""

import random

from twisted.trial.unittest import SynchronousTestCase

from tests.http.fuzz import SEEDS, corpus, judge, mutate, read_in, split


class CorpusTests(SynchronousTestCase):
    def test_all_readers_agree(self) -> None:
        rng = random.Random(1)
        cases = corpus()
        self.assertGreater(len(cases), len(SEEDS))
        outcomes = {judge(data, rng)[0] for data in cases for _ in range(5)}
        self.assertEqual(outcomes, {"read", "refused"})

    def test_a_disagreement_would_be_seen(self) -> None:
        self.assertNotEqual(read_in([b"GET / HTTP/1.1\r\n"]), read_in([SEEDS[0]]))

    def test_splits_lose_nothing(self) -> None:
        rng = random.Random(2)
        for seed in SEEDS:
            data = mutate(seed, rng)
            self.assertEqual(b"".join(split(data, rng)), data)
