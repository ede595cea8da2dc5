"""The reason codes, which are a promise, and the challenge that carries them."""

import re

from twisted.trial.unittest import SynchronousTestCase

from matrix.auth import Reason, refusal

# RFC 6750 section 3: the characters that an error_description may have.
DESCRIPTION = re.compile(rb"[\x20-\x21\x23-\x5b\x5d-\x7e]+")


class RefusalTests(SynchronousTestCase):
    def test_the_codes_are_these(self) -> None:
        self.assertEqual(
            [reason.value for reason in Reason],
            [
                "missing",
                "malformed",
                "algorithm",
                "embedded-key",
                "unknown-key",
                "signature",
                "expired",
                "not-yet-valid",
                "issuer",
                "audience",
                "role",
                "subject",
                "session",
                "client",
                "anonymous",
                "assurance",
                "ticket",
                "revoked",
                "signed-out",
            ],
        )

    def test_a_request_without_a_token_gets_no_error_code(self) -> None:
        error = refusal(Reason.MISSING)
        self.assertEqual(error.headers, ((b"www-authenticate", b'Bearer realm="matrix"'),))
        self.assertEqual(error.reason, "missing")

    def test_every_other_says_why(self) -> None:
        for reason in set(Reason) - {Reason.MISSING}:
            error = refusal(reason)
            self.assertEqual((error.status, error.reason), (401, reason.value))
            ((name, challenge),) = error.headers
            self.assertEqual(name, b"www-authenticate")
            start = b'Bearer realm="matrix", error="invalid_token", error_description="'
            self.assertTrue(challenge.startswith(start), challenge)
            description = challenge[len(start) : -1]
            self.assertTrue(description.startswith(reason.value.encode() + b": "))
            self.assertIsNotNone(DESCRIPTION.fullmatch(description), description)
            self.assertTrue(error.detail.endswith("."))
