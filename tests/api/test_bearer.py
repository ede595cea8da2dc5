"""The bearer check lets in exactly those who know the secret, and tells nobody else why."""

from twisted.trial.unittest import SynchronousTestCase

from matrix.api import BearerCheck
from matrix.errors import ConfigurationError, Unauthorized
from matrix.testing.exchange import FakeRequest

SECRET = "s3cret-of-this-machine"


def request(value: bytes | None) -> FakeRequest:
    return FakeRequest(headers=[] if value is None else [(b"authorization", value)])


class BearerCheckTests(SynchronousTestCase):
    def refused(self, value: bytes | None) -> Unauthorized:
        return self.assertRaises(Unauthorized, BearerCheck(SECRET), request(value))

    def test_lets_in_who_knows_the_secret(self) -> None:
        self.assertIsNone(BearerCheck(SECRET)(request(b"Bearer " + SECRET.encode())))

    def test_scheme_is_case_insensitive(self) -> None:
        self.assertIsNone(BearerCheck(SECRET)(request(b"bEARER  " + SECRET.encode())))

    def test_says_which_rule_was_broken(self) -> None:
        wrong = {
            None: "missing",
            b"": "scheme",
            b"Basic " + SECRET.encode(): "scheme",
            SECRET.encode(): "scheme",
            b"Bearer": "token",
            b"Bearer ": "token",
            b"Bearer " + SECRET.encode()[:-1]: "token",
            b"Bearer " + SECRET.encode() + b"x": "token",
            b"Bearer \xff\xfe": "token",
        }
        for value, reason in wrong.items():
            self.assertEqual(self.refused(value).reason, reason, value)

    def test_refusal_names_the_scheme_to_use(self) -> None:
        self.assertEqual(self.refused(None).headers, ((b"www-authenticate", b"Bearer"),))

    def test_shows_neither_secret(self) -> None:
        shown = repr(BearerCheck(SECRET)) + str(self.refused(b"Bearer hunter2"))
        self.assertNotIn(SECRET, shown)
        self.assertNotIn("hunter2", shown)

    def test_refuses_to_be_made_without_a_secret(self) -> None:
        self.assertRaises(ConfigurationError, BearerCheck, "")
