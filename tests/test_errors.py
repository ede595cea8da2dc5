"""The error family: each leaf knows its wire code, and no two are taken for each other."""

from http import HTTPStatus

from twisted.trial.unittest import SynchronousTestCase

from matrix import errors
from matrix.errors import ConfigurationError, MatrixError, Unauthorized, Unavailable

FAMILY = [
    value
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, MatrixError) and value is not MatrixError
]


class FamilyTests(SynchronousTestCase):
    def test_statuses_are_errors(self) -> None:
        for leaf in FAMILY:
            self.assertTrue(400 <= leaf.status < 600, leaf)

    def test_statuses_are_registered(self) -> None:
        """All but 499, which is nginx's and for the log alone."""
        for leaf in FAMILY:
            if leaf is not errors.ClientGone:
                HTTPStatus(leaf.status)

    def test_slugs_are_unique_and_fit_a_urn(self) -> None:
        slugs = [leaf.slug for leaf in FAMILY]
        self.assertEqual(len(slugs), len(set(slugs)))
        for slug in slugs:
            self.assertTrue(slug.replace("-", "").isalpha(), slug)
            self.assertEqual(slug, slug.lower())

    def test_titles_are_for_people(self) -> None:
        for leaf in FAMILY:
            self.assertTrue(leaf.title[0].isupper(), leaf)
            self.assertFalse(leaf.title.endswith("."), leaf)

    def test_configuration_errors_answer_no_request(self) -> None:
        self.assertFalse(issubclass(ConfigurationError, MatrixError))


class InstanceTests(SynchronousTestCase):
    def test_without_a_detail_the_title_speaks(self) -> None:
        error = Unauthorized()
        self.assertEqual((str(error), error.detail), ("Sign in first", ""))

    def test_everything_said(self) -> None:
        error = Unavailable(
            "starting", reason="waking", retry_after=1.5, headers=[(b"x-wake", b"1")]
        )
        self.assertEqual(str(error), "starting")
        self.assertEqual(error.detail, "starting")
        self.assertEqual(error.reason, "waking")
        self.assertEqual(error.retry_after, 1.5)
        self.assertEqual(error.headers, ((b"x-wake", b"1"),))

    def test_headers_are_its_own(self) -> None:
        headers = [(b"a", b"b")]
        error = Unauthorized(headers=headers)
        headers.clear()
        self.assertEqual(error.headers, ((b"a", b"b"),))
